import math

import pytest
import torch

from mgrl_cli.algorithm.batches import (
    Behaviour,
    masked_mean,
    mean_weights,
    part_of,
    transitions_of,
)
from tests.algorithm.problems import LENGTHS, STEPS, random_windows

VALUES = torch.tensor([[1.0, 2.0, 9.0], [6.0, math.nan, math.inf]])
IS_VALID = torch.tensor([[True, True, False], [True, False, False]])


def test_the_mean_divides_by_valid_steps():
    # (1 + 2 + 6) / 3 = 3; what padding holds does not matter
    assert masked_mean(VALUES, IS_VALID).item() == 3.0


def test_over_padding_divides_by_all_steps():
    # (1 + 2 + 6) / 6 = 1.5
    assert masked_mean(VALUES, IS_VALID, over_padding=True).item() == 1.5


def test_the_mean_of_nothing_is_zero():
    assert masked_mean(VALUES, torch.zeros_like(IS_VALID)).item() == 0.0


def test_padding_gets_no_gradient():
    values = torch.tensor([1.0, 2.0, 9.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(
        masked_mean(values, torch.tensor([True, True, False])), values
    )
    assert gradient.tolist() == [0.5, 0.5, 0.0]


def test_windows_become_transitions_with_the_stored_successor(rng):
    windows = random_windows(rng)
    rows = transitions_of(windows)
    assert rows.reward.shape == (len(LENGTHS) * STEPS,)
    for b, length in enumerate(LENGTHS):
        for t in range(STEPS):
            row = b * STEPS + t
            assert rows.is_valid[row] == (t < length)
            assert torch.equal(rows.obs[row], windows.obs[b, t])
            assert torch.equal(rows.next_obs[row], windows.obs[b, t + 1])
            assert torch.equal(rows.action[row], windows.action[b, t])
            assert rows.reward[row] == windows.reward[b, t]
            assert rows.terminated[row] == windows.terminated[b, t]


def test_only_the_end_of_a_window_is_padding(rng):
    """What `Windows` promises and the problems of these tests rely on."""
    windows = random_windows(rng)
    assert windows.is_valid.sum(dim=1).tolist() == LENGTHS
    assert windows.is_valid.int().diff(dim=1).max() == pytest.approx(0)


@pytest.mark.parametrize("over_padding", [False, True])
def test_mean_weights_are_the_gradient_of_the_mean(over_padding):
    values = torch.tensor([[1.0, 2.0, 9.0], [6.0, 3.0, 3.0]], requires_grad=True)
    mean = masked_mean(values, IS_VALID, over_padding=over_padding)
    (gradient,) = torch.autograd.grad(mean, values)
    weights = mean_weights(IS_VALID, over_padding=over_padding)
    torch.testing.assert_close(weights, gradient)
    # 3 valid of 6 entries
    assert weights.max().item() == pytest.approx(1 / 6 if over_padding else 1 / 3)
    assert mean_weights(torch.zeros_like(IS_VALID)).tolist() == [[0.0] * 3] * 2


def test_a_part_of_a_batch_takes_its_behaviour_along(rng):
    windows = random_windows(rng)
    part = part_of(windows, slice(1, 3))
    assert part.behaviour is None
    assert all(torch.equal(a, b[1:3]) for a, b in zip(part[:-1], windows[:-1], strict=True))
    behaviour = Behaviour(2 * windows.action, windows.reward)
    part = part_of(windows._replace(behaviour=behaviour), slice(1, 3))
    assert torch.equal(part.behaviour.raw_action, 2 * part.action)
    assert torch.equal(part.behaviour.log_density, part.reward)
