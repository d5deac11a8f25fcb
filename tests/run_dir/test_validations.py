"""Which objective is the best by its validations, worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrl_cli.errors import FileError
from mgrl_cli.run_dir.validations import (
    Validation,
    are_over,
    best_validation,
    mean_ranks,
    validations_of,
)

NAN = math.nan


def validations(**scores: list[float]) -> list[Validation]:
    """Return validations after rounds 10, 20, ...: environment → one score for each of them."""
    columns = list(zip(*scores.values(), strict=True))
    return [
        Validation(10 * number, {name: (score,) for name, score in zip(scores, row, strict=True)})
        for number, row in enumerate(columns, start=1)
    ]


def best(**scores: list[float]) -> int | None:
    found = best_validation(validations(**scores))
    return found.round_index if found is not None else None


def test_with_one_environment_the_highest_score_is_the_best() -> None:
    assert best(hopper=[-3.0, 250.0, 100.0]) == 20


def test_equals_go_to_the_earlier() -> None:
    assert best(hopper=[1.0, 2.0, 2.0]) == 20
    # Ranks (1, 2) and (2, 1): the same mean.
    assert best(hopper=[9.0, 1.0], reacher=[1.0, 9.0]) == 10


def test_several_environments_are_compared_by_ranks_not_by_returns() -> None:
    # hopper: ranks 1, 2, 3; reacher and lunar: 3, 1, 2 -> means 7/3, 4/3, 7/3.
    found = validations(hopper=[1e6, 2.0, 1.0], reacher=[0.1, 0.3, 0.2], lunar=[-9.0, -7.0, -8.0])
    assert mean_ranks(found) == pytest.approx([7 / 3, 4 / 3, 7 / 3])
    assert best_validation(found) is found[1]


def test_a_later_validation_can_make_an_earlier_one_the_best() -> None:
    # First two: ranks (1, 2) and (2, 1). The third lies between them in reacher only.
    assert best(hopper=[3.0, 2.0], reacher=[1.0, 5.0]) == 10
    assert best(hopper=[3.0, 2.0, 1.0], reacher=[1.0, 5.0, 2.0]) == 20


def test_equal_scores_share_the_mean_of_their_ranks() -> None:
    assert mean_ranks(validations(hopper=[1.0, 5.0, 5.0, 0.0])) == [3.0, 1.5, 1.5, 4.0]


def test_what_has_no_score_ranks_last_and_is_never_the_best_alone() -> None:
    assert mean_ranks(validations(hopper=[NAN, -1e9, NAN])) == [2.5, 1.0, 2.5]
    assert best(hopper=[NAN, -1e9]) == 20
    assert best(hopper=[NAN, NAN]) is None
    assert best_validation([]) is None


def test_one_agent_without_a_score_takes_the_score_of_its_environment() -> None:
    scores = Validation(10, {"hopper": (1.0, NAN), "reacher": (1.0, 2.0)}).scores
    assert math.isnan(scores["hopper"])
    assert scores["reacher"] == 1.5


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_one_environment_agrees_with_the_maximum(scores: list[float]) -> None:
    assert best(hopper=scores) == 10 * (1 + scores.index(max(scores)))


def test_patience_counts_the_validations_after_the_best() -> None:
    found = validations(hopper=[1.0, 3.0, 2.0, 2.0])
    assert [are_over(found, patience) for patience in (0, 1, 2, 3)] == [False, True, True, False]
    assert not are_over(found[:2], 1)
    assert not are_over([], 1)
    assert are_over(validations(hopper=[NAN, NAN]), 2)


def test_rows_say_what_was_measured() -> None:
    (read,) = validations_of([{"round": 7, "seed_scores": {"hopper": [1, None]}, "scores": {}}])
    assert read.round_index == 7
    assert read.seed_scores["hopper"][0] == 1.0
    assert math.isnan(read.seed_scores["hopper"][1])


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"round": 7},
        {"round": 7, "seed_scores": {}},
        {"round": 7, "seed_scores": {"hopper": []}},
        {"round": 7, "seed_scores": {"hopper": 1.0}},
        {"round": 7, "seed_scores": {"hopper": ["1"]}},
        {"round": 7, "seed_scores": {"hopper": [True]}},
        {"round": 7, "seed_scores": {"hopper": [1e300]}},
        {"round": "7", "seed_scores": {"hopper": [1.0]}},
    ],
)
def test_other_rows_are_refused(row: dict[str, object]) -> None:
    with pytest.raises(FileError, match="restore the metrics from a copy"):
        validations_of([row])


def test_rows_of_different_environments_are_refused() -> None:
    rows: list[dict[str, object]] = [
        {"round": number, "seed_scores": {name: [1.0]}}
        for number, name in ((1, "hopper"), (2, "reacher"))
    ]
    with pytest.raises(FileError, match="round 2 names other environments"):
        validations_of(rows)
