"""Validations of a meta-training: what each measured, and which objective is the best by them.

Pure functions of the scores, so that a run that was cut back judges again as it did before. Knows
nothing of how objectives are tested.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, cast, final

from mgrl_cli.config import RunConfig
from mgrl_cli.errors import FileError
from mgrl_cli.run_dir.manifest import Manifest
from mgrl_cli.run_dir.metrics import Record

WORKER_LOST = "its worker was lost"
"""How the reason begins where an agent was left out for what the machine did, such as running out
of memory; it tells nothing of the objective."""
_LARGEST_SCORE = 1e100
"""As in `metrics`: no run measures more."""


@final
@dataclass(frozen=True, slots=True)
class Validation:
    """One test of the objective at the end of a round."""

    round_index: int
    seed_scores: Mapping[str, tuple[float, ...]]
    """Environment → final score of every fresh agent; NaN for one that has none."""

    @property
    def scores(self) -> dict[str, float]:
        """Environment → mean over its agents; NaN where one of them has no score."""
        return {name: statistics.fmean(scores) for name, scores in self.seed_scores.items()}

    @classmethod
    def from_row(cls, row: Record) -> Self:
        """Return the validation that a line of `metrics/validation.jsonl` tells of.

        Raises:
            FileError: it is none.
        """
        match row:
            case {"round": int(rounds), "seed_scores": dict() as scores} if scores:
                by_environment = cast("dict[str, object]", scores)
                return cls(rounds, {name: _scores(own) for name, own in by_environment.items()})
            case _:
                raise FileError(f"{row!r:.80} is no validation; restore the metrics from a copy")


def validations_of(rows: Sequence[Record]) -> list[Validation]:
    """Return the validations that the lines of `metrics/validation.jsonl` tell of.

    Raises:
        FileError: a line tells of none, or not of the same environments as the first.
    """
    validations = [Validation.from_row(row) for row in rows]
    for each in validations:
        if each.seed_scores.keys() != validations[0].seed_scores.keys():
            raise FileError(
                f"the validation of round {each.round_index} names other environments than the "
                "first; restore the metrics from a copy"
            )
    return validations


def best_validation(validations: Sequence[Validation]) -> Validation | None:
    """Return the one with the highest score; with several environments, with the best mean rank.

    Returns of different environments have no common scale, so validations are ranked within each
    environment and the ranks averaged. Equals share the mean of their ranks; no score ranks last.
    Of the best, the earliest wins. None: no score at all.
    """
    ranks = mean_ranks(validations)
    scored = [
        (rank, number)
        for number, rank in enumerate(ranks)
        if not all(math.isnan(score) for score in validations[number].scores.values())
    ]
    return validations[min(scored)[1]] if scored else None


def mean_ranks(validations: Sequence[Validation]) -> list[float]:
    """Return each validation's rank among all, 1 the best, averaged over environments."""
    names = validations[0].scores if validations else ()
    columns = [[_comparable(each.scores[name]) for each in validations] for name in names]
    return [
        statistics.fmean(_rank(column[number], column) for column in columns)
        for number in range(len(validations))
    ]


def are_over(validations: Sequence[Validation], patience: int) -> bool:
    """Return whether so many validations have followed the best one; 0: never."""
    best = best_validation(validations)
    since = len(validations) if best is None else len(validations) - 1 - validations.index(best)
    return 0 < patience <= since


def early_end(manifest: Manifest, config: RunConfig) -> str:
    """Return why a run ended before its last round, in one line; "" where it did not."""
    record = manifest.validation
    if record is None or not record.is_over:
        return ""
    better = f"better than that of round {record.best}" if record.best else "with a score"
    return (
        f"ended after round {manifest.rounds} of {config.num_rounds}: none of the last "
        f"{config.validation.patience} validations was {better} (validation.patience)"
    )


def _rank(score: float, column: Sequence[float]) -> float:
    higher = sum(other > score for other in column)
    equal = sum(other == score for other in column)
    return higher + (equal + 1) / 2


def _comparable(score: float) -> float:
    return -math.inf if math.isnan(score) else score


def _scores(values: object) -> tuple[float, ...]:
    if not isinstance(values, list) or not values:
        raise FileError(f"{values!r:.80} are no scores; restore the metrics from a copy")
    return tuple(_score(value) for value in cast("list[object]", values))


def _score(value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _LARGEST_SCORE:
        raise FileError(f"{value!r:.80} is no score; restore the metrics from a copy")
    return float(value)
