"""The final scores of a study, cell by cell: what its runs scored, and what that allows to say.

A cell is a row of the study on one test environment. Knows nothing of how a table looks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mgrl_cli.run_dir.metrics import EvaluationRow
from mgrl_cli.run_dir.scores import SeedScore, seed_scores
from mgrl_cli.statistics import (
    Estimate,
    bootstrap,
    interquartile_mean,
    mean_and_deviation,
    seed_remark,
    stuck_runs,
)
from mgrl_cli.studies.rows import StudyRow

_RESAMPLES = 10_000
_RESAMPLING_SEED = 0
"""Of every cell alike, so that a table depends on its rows alone."""
_SHORT_BELOW = 0.8
"""A run whose last evaluation came this early, compared with the longest of its environment, was
left out of its population or has not finished."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellScore:
    """One cell: all fresh agents of all its objectives together."""

    row: str
    training: str
    environment: str
    is_seen: bool
    train_env_steps: int
    scores: tuple[float, ...]
    """Final score of each run, by objective and then by seed."""
    objectives: int
    """Objectives the runs were driven by, from as many meta-seeds; 0 for a hand-written rule."""
    mean: float
    deviation: float
    """Sample standard deviation; NaN for a single run."""
    middle: Estimate
    """Interquartile mean with its 95 % interval."""
    stuck: int | None
    """Runs below the environment's threshold; None: there is no threshold."""
    cut_short: int
    """Runs that ended early; they are scored where they ended."""
    training_return: float
    """Mean over runs of the training return beside the final score; NaN: not known."""

    @property
    def remark(self) -> str:
        """What must be said beside the figures so that they are not taken for more, or ""."""
        parts = [seed_remark(self.middle)]
        if self.objectives > 1:
            parts.append(
                f"{self.objectives} objectives: runs of one are more alike than the interval takes "
                "them to be"
            )
        if self.stuck:
            parts.append(f"{self.stuck} of {len(self.scores)} runs stuck")
        if self.cut_short:
            parts.append(f"{self.cut_short} of {len(self.scores)} runs ended early")
        return "; ".join(part for part in parts if part)


def cell_scores(rows: Sequence[StudyRow]) -> list[CellScore]:
    """Return the cells that have an evaluation, in the order in which they first come.

    A run's final score is the mean return of its last three evaluations (`run_dir.scores`).
    """
    by_cell: dict[tuple[str, str], list[StudyRow]] = {}
    longest: dict[str, int] = {}
    for row in rows:
        by_cell.setdefault((row.row, row.environment), []).append(row)
        steps = max(longest.get(row.environment, 0), row.evaluation.env_steps)
        longest[row.environment] = steps
    return [_cell(found, longest[environment]) for (_, environment), found in by_cell.items()]


def _cell(rows: Sequence[StudyRow], longest: int) -> CellScore:
    first = rows[0]
    runs = run_scores(rows)
    scores = tuple(run.score for run in runs)
    spread = mean_and_deviation(scores)
    returns = [run.training_return for run in runs if not np.isnan(run.training_return)]
    middle = bootstrap(
        {first.environment: scores},
        interquartile_mean,
        np.random.default_rng(_RESAMPLING_SEED),
        _RESAMPLES,
    )
    return CellScore(
        row=first.row,
        training=first.training,
        environment=first.environment,
        is_seen=first.is_seen,
        train_env_steps=first.train_env_steps,
        scores=scores,
        objectives=len({row.meta_seed for row in rows}) if first.training else 0,
        mean=spread.mean,
        deviation=spread.deviation,
        middle=middle,
        stuck=None if first.stuck_below is None else stuck_runs(scores, first.stuck_below),
        cut_short=sum(run.env_steps < _SHORT_BELOW * longest for run in runs),
        training_return=float(np.mean(returns)) if returns else float("nan"),
    )


def run_scores(rows: Sequence[StudyRow]) -> list[SeedScore]:
    """Return the final score of every run of one cell, by objective and then by seed."""
    return seed_scores(labelled_rows(rows))


def labelled_rows(rows: Sequence[StudyRow]) -> list[EvaluationRow]:
    """Return the evaluations with the study's rows in the place of rules.

    Runs of different objectives may have the same seed: within a cell they are numbered through.
    """
    runs: dict[tuple[str, str], dict[tuple[int | None, int], int]] = {}
    found: list[EvaluationRow] = []
    for row in rows:
        numbers = runs.setdefault((row.row, row.environment), {})
        number = numbers.setdefault((row.meta_seed, row.evaluation.seed), len(numbers))
        found.append(replace(row.evaluation.row, rule=row.row, seed=number))
    return found


def missing_places(
    cells: Sequence[CellScore], planned: Iterable[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Return the planned cells, as (row, environment), that have no score."""
    found = {(cell.row, cell.environment) for cell in cells}
    return [place for place in dict.fromkeys(planned) if place not in found]
