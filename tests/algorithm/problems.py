"""Small random problems in float64, with every parameter away from its special initial value."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mgrl_cli.algorithm.batches import WindowTensors
from mgrl_cli.algorithm.meta_gradient import MetaProblem, VirtualStep
from mgrl_cli.algorithm.networks import CriticNetwork, PolicyNetwork
from mgrl_cli.algorithm.objective_network import (
    ObjectiveNetwork,
    ObjectiveShape,
    ObjectiveSignals,
)
from mgrl_cli.algorithm.parameters import ParameterLayout
from tests.algorithm import oracles

STEPS = 6
LENGTHS = [6, 1, 4, 6, 2, 5]
"""Valid steps of the windows of a batch: whole, single and everything between."""


def normal(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape))


def uniform_actions(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.uniform(-1, 1, shape))


def perturbed(params: Tensor, rng: np.random.Generator, scale: float = 0.2) -> Tensor:
    """Return float64 parameters whose biases are not zero and whose gains are not one."""
    return params.double() + scale * normal(rng, *params.shape)


def validity(lengths: list[int], steps: int = STEPS) -> Tensor:
    return torch.arange(steps) < torch.tensor(lengths)[:, None]


def last_step_terminated(lengths: list[int], steps: int = STEPS) -> Tensor:
    """Every second window ends in a terminal step."""
    terminated = torch.zeros(len(lengths), steps, dtype=torch.bool)
    for b, length in enumerate(lengths):
        terminated[b, length - 1] = b % 2 == 1
    return terminated


def random_windows(
    rng: np.random.Generator,
    obs_size: int = 3,
    act_size: int = 2,
    lengths: list[int] = LENGTHS,
    steps: int = STEPS,
) -> WindowTensors:
    """Windows padded as the replay pads them: zeros, and the last observation again."""
    is_valid = validity(lengths, steps)
    obs = normal(rng, len(lengths), steps + 1, obs_size)
    for b, length in enumerate(lengths):
        obs[b, length:] = obs[b, length]
    return WindowTensors(
        obs=obs,
        action=uniform_actions(rng, len(lengths), steps, act_size) * is_valid[..., None],
        reward=normal(rng, len(lengths), steps) * is_valid,
        terminated=last_step_terminated(lengths, steps),
        is_valid=is_valid,
    )


def random_signals(
    rng: np.random.Generator, lengths: list[int] = LENGTHS, steps: int = STEPS
) -> ObjectiveSignals:
    shape = (len(lengths), steps)
    return ObjectiveSignals(
        reward=3 * normal(rng, *shape) - 1,
        value=7 * normal(rng, *shape) + 5,
        next_value=7 * normal(rng, *shape) + 5,
        terminated=last_step_terminated(lengths, steps),
        is_valid=validity(lengths, steps),
    )


def oracle_signals(signals: ObjectiveSignals) -> oracles.Signals:
    lengths = signals.is_valid.sum(dim=1).tolist()
    return oracles.Signals(*(tensor.numpy() for tensor in signals[:4]), lengths)


def as_arrays(layout: ParameterLayout, params: Tensor) -> oracles.Parameters:
    return {name: view.numpy() for name, view in layout.views(params).items()}


class Setup(NamedTuple):
    """A meta-gradient's problem and where to evaluate it."""

    problem: MetaProblem
    alpha: Tensor
    phi: Tensor
    batches: list[WindowTensors]


def meta_setup(
    rng: np.random.Generator,
    virtual_step: VirtualStep,
    *,
    inner_steps: int = 1,
    shape: ObjectiveShape | None = None,
    hidden: int = 8,
    layer_norm: bool = True,
) -> Setup:
    """Return a problem with masked windows, three observations and two action dimensions."""
    policy = PolicyNetwork(3, 2, hidden, layer_norm=layer_norm)
    critic = CriticNetwork(3, 2, hidden, layer_norm=layer_norm)
    objective = ObjectiveNetwork(shape)
    problem = MetaProblem(
        policy=policy,
        critic=critic,
        objective=objective,
        critic_params=perturbed(critic.initialise_twins(rng), rng),
        virtual_step=virtual_step,
    )
    alpha = perturbed(objective.initialise(rng), rng, 0.1)
    phi = perturbed(policy.initialise(rng), rng)
    batches = [random_windows(rng) for _ in range(inner_steps + 1)]
    return Setup(problem, alpha, phi, batches)


def relative_error(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).norm() / expected.norm()).item()
