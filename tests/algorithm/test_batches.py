import math

import numpy as np
import pytest
import torch

from mgrl_cli.algorithm.batches import (
    Behaviour,
    Windows,
    masked_mean,
    mean_weights,
    part_of,
    transitions_of,
)
from tests.algorithm.problems import LENGTHS, STEPS, random_windows


def drawn_windows(rng):
    """Windows as the replay gives them."""
    obs, action, reward, terminated, is_valid, _ = random_windows(rng)
    numbers = (tensor.float().numpy() for tensor in (obs, action, reward))
    return Windows(*numbers, terminated.numpy(), is_valid.numpy())


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


def test_transitions_of_windows_of_one_step_have_no_gaps(rng):
    windows = drawn_windows(rng)
    one_step = Windows(windows.obs[:, :2].copy(), *(array[:, :1].copy() for array in windows[1:-1]))
    rows = transitions_of(one_step)
    assert all(array.flags.c_contiguous for array in rows)
    assert np.array_equal(rows.next_obs, windows.obs[:, 1])


def test_windows_become_transitions_with_the_stored_successor(rng):
    windows = drawn_windows(rng)
    rows = transitions_of(windows)
    assert all(array.flags.c_contiguous for array in rows)
    assert rows.reward.shape == (len(LENGTHS) * STEPS,)
    for b, length in enumerate(LENGTHS):
        for t in range(STEPS):
            row = b * STEPS + t
            assert rows.is_valid[row] == (t < length)
            assert np.array_equal(rows.obs[row], windows.obs[b, t])
            assert np.array_equal(rows.next_obs[row], windows.obs[b, t + 1])
            assert np.array_equal(rows.action[row], windows.action[b, t])
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
    windows = drawn_windows(rng)
    part = part_of(windows, slice(1, 3))
    assert part.behaviour is None
    assert all(np.array_equal(a, b[1:3]) for a, b in zip(part[:-1], windows[:-1], strict=True))
    behaviour = Behaviour(2 * windows.action, windows.reward)
    part = part_of(windows._replace(behaviour=behaviour), slice(1, 3))
    assert np.array_equal(part.behaviour.raw_action, 2 * part.action)
    assert np.array_equal(part.behaviour.log_density, part.reward)


def test_tensors_share_the_memory_of_a_batch(rng):
    windows = drawn_windows(rng)
    windows = windows._replace(behaviour=Behaviour(2 * windows.action, windows.reward.copy()))
    *arrays, behaviour = windows
    *tensors, behaviour_tensors = windows.tensors()
    rows = transitions_of(windows)
    for array, tensor in zip(
        (*arrays, *behaviour, *rows), (*tensors, *behaviour_tensors, *rows.tensors()), strict=True
    ):
        assert np.shares_memory(array, tensor.numpy())
        assert np.array_equal(array, tensor.numpy())
    assert windows._replace(behaviour=None).tensors().behaviour is None
