from collections.abc import Callable
from pathlib import Path

import pytest

from mgrl_cli.inspection.replay import inspect_agent
from mgrl_cli.replay.schema import Episode

SANE = {"obs": [[0.0, 1.0], [1.0, 2.0], [2.0, 0.0]]}


@pytest.fixture
def warnings_of(
    tmp_path: Path, replay_at: Callable[[Path, list[Episode]], Path]
) -> Callable[..., tuple[str, ...]]:
    def look(*episodes: Episode) -> tuple[str, ...]:
        return inspect_agent(replay_at(tmp_path / "agent-000", list(episodes))).warnings

    return look


def test_sane_data_raise_no_warning(
    warnings_of: Callable[..., tuple[str, ...]], episode: Callable[..., Episode]
) -> None:
    assert warnings_of(episode([1.0, 2.0], **SANE)) == ()


def test_a_single_step_is_not_called_constant(
    warnings_of: Callable[..., tuple[str, ...]], episode: Callable[..., Episode]
) -> None:
    assert warnings_of(episode([1.0])) == ()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rewards": [3.0, 3.0]}, "the reward is always 3"),
        ({"obs": [[0.0, 1.0], [1.0, 1.0], [2.0, 0.0]]}, "observation dimension 1 never changes"),
        ({"is_random": True}, "no policy steps yet: every action was drawn uniformly"),
        (
            {"actions": [[1.0, -1.0], [0.995, 1.0]]},
            "the policy is saturated: 100% of its action numbers are beyond ±0.99",
        ),
    ],
)
def test_odd_data_raise_one_warning_each(
    changes: dict[str, object],
    expected: str,
    warnings_of: Callable[..., tuple[str, ...]],
    episode: Callable[..., Episode],
) -> None:
    assert warnings_of(episode(**{"rewards": [1.0, 2.0], **SANE, **changes})) == (expected,)


def test_random_saturated_actions_say_nothing_of_the_policy(
    warnings_of: Callable[..., tuple[str, ...]], episode: Callable[..., Episode]
) -> None:
    at_bounds = {"actions": [[1.0, -1.0], [1.0, 1.0]], **SANE}
    found = warnings_of(
        episode([1.0, 2.0], is_random=True, **at_bounds), episode([1.0, 2.0], **SANE)
    )
    assert found == ()


def test_episodes_of_one_step_and_without_an_end_are_odd(
    warnings_of: Callable[..., tuple[str, ...]], episode: Callable[..., Episode]
) -> None:
    steps = [
        episode([float(n)], obs=[[n, -n], [0, 0]])._replace(terminated=episode([0.0]).truncated)
        for n in range(2)
    ]
    assert warnings_of(*steps) == (
        "every episode has a single step",
        "no episode ends by terminating or by a limit",
    )
