import numpy as np
import pytest
import torch

from mgrl_cli.algorithm.td3 import (
    clipped_double_q_target,
    polyak_update_,
    smoothed_target_action,
    twin_critic_loss,
)
from tests.algorithm import oracles
from tests.algorithm.problems import normal


def target(reward=1.0, terminated=False, next_q=(10.0, 8.0), **kwargs):
    return clipped_double_q_target(
        torch.tensor([reward]),
        torch.tensor([terminated]),
        torch.tensor([[next_q[0]], [next_q[1]]]),
        discount=0.9,
        **kwargs,
    ).item()


def test_the_target_takes_the_smaller_critic():
    # 1 + 0.9 · min(10, 8) = 8.2, in either order
    assert target() == pytest.approx(8.2)
    assert target(next_q=(8.0, 10.0)) == pytest.approx(8.2)


def test_a_terminal_step_cuts_the_bootstrap():
    # 1 + 0.9 · 0 · 8 = 1
    assert target(terminated=True) == 1.0


def test_the_terminal_bonus_is_added_at_terminal_steps_alone():
    # terminal: 1 + 0 + 1 = 2; otherwise 1 + 0.9 · 8 = 8.2 as without it
    assert target(terminated=True, terminal_bonus=1.0) == 2.0
    assert target(terminal_bonus=1.0) == pytest.approx(8.2)


def test_targets_agree_with_loops(rng):
    reward, next_q = normal(rng, 30), normal(rng, 2, 30)
    terminated = torch.from_numpy(rng.random(30) < 0.3)
    for terminal_bonus in (0.0, 1.0):
        expected = oracles.critic_targets(
            reward.numpy(),
            terminated.numpy(),
            next_q.numpy(),
            discount=0.99,
            terminal_bonus=terminal_bonus,
        )
        got = clipped_double_q_target(
            reward, terminated, next_q, discount=0.99, terminal_bonus=terminal_bonus
        )
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)


def test_target_noise_is_clipped_before_the_action_is():
    # noise 0.8 → 0.5: 0.2 + 0.5 = 0.7;  -0.1 stays: 0.3 - 0.1 = 0.2;
    # 0.9 + 0.3 = 1.2 → 1;  noise -2 → -0.5: -0.8 - 0.5 = -1.3 → -1
    action = torch.tensor([[0.2, 0.3], [0.9, -0.8]])
    noise = torch.tensor([[0.8, -0.1], [0.3, -2.0]])
    got = smoothed_target_action(action, noise, noise_clip=0.5)
    torch.testing.assert_close(got, torch.tensor([[0.7, 0.2], [1.0, -1.0]]))


Q = torch.tensor([[1.0, 4.0, 100.0], [3.0, 5.0, -100.0]])
Y = torch.tensor([2.0, 2.0, 0.0])
IS_VALID = torch.tensor([True, True, False])


def test_the_twin_loss_sums_both_means_over_valid_steps():
    # first: ((1-2)² + (4-2)²)/2 = 2.5; second: ((3-2)² + (5-2)²)/2 = 5; sum 7.5
    assert twin_critic_loss(Q, Y, IS_VALID).value.item() == 7.5


def test_the_twin_loss_over_padding_divides_by_all_steps():
    # (1 + 4)/3 + (1 + 9)/3 = 5
    assert twin_critic_loss(Q, Y, IS_VALID, over_padding=True).value.item() == pytest.approx(5)


def test_padding_gives_the_critics_no_gradient():
    q = Q.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(twin_critic_loss(q, Y, IS_VALID).value, q)
    # 2 (q - y) / 2 valid steps
    assert gradient.tolist() == [[-1.0, 2.0, 0.0], [1.0, 3.0, 0.0]]


@pytest.mark.parametrize("over_padding", [False, True])
def test_the_slope_of_the_twin_loss_is_autograds(over_padding):
    q = Q.clone().requires_grad_()
    loss = twin_critic_loss(q, Y, IS_VALID, over_padding=over_padding)
    (gradient,) = torch.autograd.grad(loss.value, q)
    torch.testing.assert_close(loss.slope.detach(), gradient)


def test_a_target_moves_by_its_rate_in_place():
    # 1 + 0.005 · (3 - 1) = 1.01; -2 + 0.005 · (0 - -2) = -1.99
    slow, online = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.0])
    memory = slow.data_ptr()
    polyak_update_(slow, online, rate=0.005)
    assert slow.tolist() == pytest.approx([1.01, -1.99])
    assert slow.data_ptr() == memory
    assert online.tolist() == [3.0, 0.0]
