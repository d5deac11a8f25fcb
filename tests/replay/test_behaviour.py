import math

import numpy as np
import torch

from mgrl_cli.replay.behaviour import behaviour_log_density
from mgrl_cli.replay.schema import BehaviourKind

KINDS = np.array([BehaviourKind.POLICY, BehaviourKind.RANDOM], np.uint8)


def test_densities_of_worked_numbers():
    # σ 0.5, two dimensions, a - mean = (0.5, -1) → (1, -2) deviations: -½(1 + 4) - 2 ln(0.5 √2π);
    # a random step has density ½ in each dimension, wherever it went.
    raw_action = np.array([[0.75, -1.5], [0.3, -0.9]], np.float32)
    mean = np.array([[0.25, -0.5], [0.0, 0.0]], np.float32)
    got = behaviour_log_density(raw_action, mean, KINDS, 0.5)
    assert got.dtype == np.float32
    expected = [-2.5 - 2 * math.log(0.5 * math.sqrt(2 * math.pi)), -2 * math.log(2)]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_densities_are_those_of_torchs_distributions(rng):
    raw_action = rng.standard_normal((50, 3)).astype(np.float32)
    mean = rng.uniform(-1, 1, (50, 3)).astype(np.float32)
    kind = rng.integers(2, size=50).astype(np.uint8)
    gaussian = torch.distributions.Normal(torch.from_numpy(mean).double(), 0.1)
    uniform = torch.distributions.Uniform(-torch.ones(3).double(), 1.0)
    expected = torch.where(
        torch.from_numpy(kind) == BehaviourKind.RANDOM,
        uniform.log_prob(torch.zeros(50, 3).double()).sum(-1),
        gaussian.log_prob(torch.from_numpy(raw_action).double()).sum(-1),
    )
    got = behaviour_log_density(raw_action, mean, kind, 0.1)
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-6)
