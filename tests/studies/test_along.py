"""Which objectives of a meta-training are tested."""

import pytest

from mgrl_cli.errors import UsageError
from mgrl_cli.studies.along import evenly_spaced, parse_along

GIVEN = {
    "run": "runs/r",
    "trained_on": ["pendulum"],
    "envs": ["reacher"],
    "rounds": [10, 20],
    "env_steps": [600, 1200],
    "preset": "smoke",
}


@pytest.mark.parametrize(
    ("rounds", "points", "chosen"),
    [
        ([10, 20, 30, 40, 50, 60, 70, 80, 90, 100], 5, [20, 40, 60, 80, 100]),
        ([10, 20, 30, 40, 50, 60, 65], 3, [20, 40, 65]),
        ([10, 20, 30], 1, [30]),
        ([10, 20, 30], 9, [10, 20, 30]),
        ([7], 5, [7]),
    ],
)
def test_points_are_even_and_the_last_is_one(
    rounds: list[int], points: int, chosen: list[int]
) -> None:
    assert evenly_spaced(rounds, points) == chosen


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"envs": []}, "'envs'"),
        ({"envs": ["reacher", "reacher"]}, "name one twice"),
        ({"against": ["learned"]}, "leave it out"),
        ({"env_steps": [600]}, "differ in length"),
        ({"points": 0}, "'points'"),
    ],
)
def test_a_mistake_is_refused(change: dict[str, object], part: str) -> None:
    assert parse_along(GIVEN).seeds == 3
    with pytest.raises(UsageError, match=part):
        parse_along({**GIVEN, **change})


def test_what_is_written_down_reads_back_the_same() -> None:
    along = parse_along({**GIVEN, "against": ["ddpg"], "steps": 120})
    assert parse_along(along.document) == along
