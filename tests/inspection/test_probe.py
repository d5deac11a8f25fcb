from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mgrl_cli.inspection.probe import probe
from mgrl_cli.objective_file import LearnedObjective


def distance_times(weight: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a loss that pulls the policy to executed actions of positive weight."""

    def loss(
        action: Tensor,
        policy_action: Tensor,
        reward: Tensor,
        value: Tensor,
        next_value: Tensor,
        terminated: Tensor,
        is_valid: Tensor,
        *,
        per_step: bool = False,
    ) -> Tensor:
        assert per_step
        assert not terminated.any()
        assert is_valid.all()
        return (action - policy_action).square().mean(-1) * weight(reward, value, next_value)

    return loss


def test_reinforcement_pulls_towards_rewarded_and_away_from_punished_actions() -> None:
    answer = probe(distance_times(lambda reward, value, next_value: reward), 8)

    reward, next_value, value = answer.pulls
    # Descent of r (a - p)² in p at p = 0, a = ±0.5 is 2 r a: towards a by |2 r a| = 1.
    assert reward.when_high == pytest.approx(1.0)
    assert reward.when_low == pytest.approx(-1.0)
    assert reward.difference == pytest.approx(2.0)
    assert reward.verdict == "towards"
    assert {next_value.verdict, value.verdict} == {"indifferent to"}
    assert answer.steps == 8


def test_an_advantage_pulls_towards_high_next_values_and_away_from_high_values() -> None:
    answer = probe(distance_times(lambda reward, value, next_value: reward + next_value - value), 5)
    verdicts = {pull.signal: pull.verdict for pull in answer.pulls}
    assert verdicts == {"reward": "towards", "next_value": "towards", "value": "away from"}


def test_a_perverse_objective_is_found_out() -> None:
    answer = probe(distance_times(lambda reward, value, next_value: -reward), 8)
    assert answer.pulls[0].verdict == "away from"


def test_pulling_to_every_action_alike_is_indifferent_but_not_zero() -> None:
    answer = probe(distance_times(lambda reward, value, next_value: torch.ones_like(reward)), 8)
    for pull in answer.pulls:
        assert pull.when_high == pytest.approx(1.0)
        assert pull.when_low == pytest.approx(1.0)
        assert pull.verdict == "indifferent to"
    assert answer.gradient_size > 0


def test_an_earlier_loss_counts_too() -> None:
    """Recurrent objectives see later actions: the gradient of all losses is what descends."""

    def loss(action: Tensor, policy_action: Tensor, reward: Tensor, *_: Tensor, per_step: bool):
        assert per_step
        later = (action - policy_action).square().mean(-1) * reward
        return torch.cat([later[:, 1:], torch.zeros_like(later[:, :1])], dim=1)

    assert probe(loss, 6).pulls[0].when_high == pytest.approx(1.0)


@pytest.mark.parametrize(("window_steps", "steps"), [(1, 1), (20, 20), (10**6, 50)])
def test_long_windows_are_cut(window_steps: int, steps: int) -> None:
    loss = distance_times(lambda reward, value, next_value: reward)
    assert probe(loss, window_steps).steps == steps


def test_a_learned_objective_always_gives_the_same_answer(
    objective: Callable[..., LearnedObjective],
) -> None:
    torch.manual_seed(1)
    first = probe(objective(), 6)
    torch.manual_seed(2)
    assert probe(objective(), 6) == first
    assert first.gradient_size > 0


def test_a_fresh_objective_that_asks_for_nothing_has_no_gradient(
    objective: Callable[..., LearnedObjective],
) -> None:
    answer = probe(objective(last_layer="zero"), 6)
    assert answer.gradient_size == 0
    assert {pull.verdict for pull in answer.pulls} == {"indifferent to"}
