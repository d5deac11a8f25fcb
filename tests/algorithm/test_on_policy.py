import numpy as np
import pytest
import torch

from mgrl_cli.algorithm.on_policy import discounted_sums, episode_advantages, standardised


def test_discounted_sums_of_worked_numbers():
    terms = torch.tensor([1.0, 2.0, 4.0])
    # 1 + 0.5 (2 + 0.5 (4 + 0.5 · 8)) = 4; 2 + 0.5 · 8 = 6; 4 + 4 = 8
    assert discounted_sums(terms, rate=0.5, last=8.0).tolist() == [4.0, 6.0, 8.0]
    assert discounted_sums(terms, rate=0.5).tolist() == [3.0, 4.0, 4.0]
    assert discounted_sums(terms, rate=0.0, last=9.0).tolist() == [1.0, 2.0, 4.0]


def test_advantages_are_the_double_sum():
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=12), rng.normal(size=13)
    discount, trace_decay = 0.9, 0.7
    expected = []
    for t in range(12):
        delta = [reward[k] + discount * value[k + 1] - value[k] for k in range(t, 12)]
        expected.append(sum((discount * trace_decay) ** k * d for k, d in enumerate(delta)))
    found = episode_advantages(
        torch.from_numpy(reward),
        torch.from_numpy(value),
        discount=discount,
        trace_decay=trace_decay,
    )
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_standardised_values_have_mean_zero_and_population_variance_one():
    values = standardised(torch.tensor([1.0, 2.0, 6.0]))
    assert values.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert values.square().mean().item() == pytest.approx(1.0)
    assert not torch.isfinite(standardised(torch.ones(3))).any()
