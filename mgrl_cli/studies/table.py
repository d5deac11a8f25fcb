"""The final scores of a study, cell by cell: what its runs scored, and what that allows to say.

A cell is a row of the study on one test environment. Knows nothing of how a table looks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mgrl_cli.run_dir.metrics import EvaluationRow
from mgrl_cli.run_dir.scores import seed_scores
from mgrl_cli.statistics import Estimate, mean_and_deviation, seed_remark, stuck_runs
from mgrl_cli.studies.intervals import improvement_over, interquartile_mean_of
from mgrl_cli.studies.plan import Cell
from mgrl_cli.studies.rows import RunState, StudyRow

_RESAMPLES = 10_000
_RESAMPLING_SEED = 0
"""Of every cell alike, so that a table depends on its rows alone."""

Place = tuple[str, str]
"""A cell by its row and its environment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedCell:
    """What a cell is to hold, whatever becomes of its runs."""

    row: str
    training: str
    environment: str
    runs: int
    """Test seeds of all its objectives together."""
    meta_seeds: tuple[int | None, ...]
    """One per objective; (None,) where there is one and the study did not train it."""

    @property
    def place(self) -> Place:
        """Which cell it is."""
        return self.row, self.environment

    @property
    def objectives(self) -> int:
        """Learned objectives; 0 for a hand-written rule."""
        return len(self.meta_seeds) if self.training else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class RunScore:
    """One fresh agent's final score, and how its run ended."""

    meta_seed: int | None
    """Of the objective; None where the study did not train it."""
    seed: int
    """Test seed."""
    state: RunState
    env_steps: int
    """Env steps at its last evaluation."""
    score: float
    training_return: float
    """Mean training return beside the score; NaN: not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellScore:
    """One cell: all fresh agents of all its objectives together."""

    planned: PlannedCell
    is_seen: bool
    train_env_steps: int
    planned_env_steps: int
    """Env steps that each run was to make."""
    runs: tuple[RunScore, ...]
    """Those that were evaluated, by objective and then by seed."""
    mean: float
    """Of all runs, those that ended early included: they count with the score they ended with."""
    deviation: float
    """Sample standard deviation; NaN for a single run."""
    middle: Estimate
    """Interquartile mean with its 95 % interval."""
    stuck: int | None
    """Runs below the environment's threshold; None: there is no threshold."""
    reference: str = ""
    """Row that `improvement` compares with; "" where there is none."""
    improvement: Estimate | None = None
    """How likely a run beats one of the reference; None for the reference itself."""

    @property
    def row(self) -> str:
        """Label of the row."""
        return self.planned.row

    @property
    def environment(self) -> str:
        """Label of the column."""
        return self.planned.environment

    @property
    def scores(self) -> tuple[float, ...]:
        """Final score of each run."""
        return tuple(run.score for run in self.runs)

    @property
    def objectives(self) -> int:
        """Learned objectives of which there is a run; 0 for a hand-written rule."""
        return len({run.meta_seed for run in self.runs}) if self.planned.training else 0

    @property
    def training_return(self) -> float:
        """Mean over runs of the training return beside the final score; NaN: not known."""
        known = [run.training_return for run in self.runs if not np.isnan(run.training_return)]
        return float(np.mean(known)) if known else float("nan")

    @property
    def has_lost_runs(self) -> bool:
        """True where planned runs have no score at all."""
        return len(self.runs) < self.planned.runs

    @property
    def has_early_ends(self) -> bool:
        """True where runs are scored before their planned end."""
        return any(run.state != "finished" for run in self.runs)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What must be said beside the figures so that they are not taken for more."""
        parts = [*self._shortfall(), *self._early_ends("quarantined")]
        parts += self._early_ends("unfinished")
        if self.stuck:
            parts.append(f"{self.stuck} of {len(self.runs)} runs stuck")
        about_interval = seed_remark(self.middle, "objective" if self.objectives > 1 else "seed")
        if about_interval:
            has_width = self.middle.low < self.middle.high
            parts.append(f"95 % interval {about_interval}" if has_width else about_interval)
        return tuple(parts)

    def _shortfall(self) -> list[str]:
        if not self.has_lost_runs:
            return []
        text = f"only {len(self.runs)} of {self.planned.runs} runs have a score"
        found = {run.meta_seed for run in self.runs}
        lost = [f"{seed}" for seed in self.planned.meta_seeds if seed not in found]
        seeds = f", none of meta-seed{'s' if len(lost) > 1 else ''} {', '.join(lost)}"
        return [text + seeds if lost else text]

    def _early_ends(self, state: RunState) -> list[str]:
        ends = [run.env_steps for run in self.runs if run.state == state]
        if not ends:
            return []
        steps = f"{min(ends)}" if min(ends) == max(ends) else f"{min(ends)}–{max(ends)}"
        return [
            f"{len(ends)} of {len(self.runs)} runs {state}, scored where they ended: at {steps} of "
            f"{self.planned_env_steps} env steps"
        ]


def planned_cells(cells: Iterable[Cell]) -> list[PlannedCell]:
    """Return what is to be measured, in the order in which rows and columns first come."""
    found: dict[Place, PlannedCell] = {}
    for cell in cells:
        place = cell.row, cell.environment
        before = found.get(place)
        found[place] = PlannedCell(
            row=cell.row,
            training=cell.training,
            environment=cell.environment,
            runs=cell.job.agents + (before.runs if before else 0),
            meta_seeds=(*(before.meta_seeds if before else ()), cell.meta_seed),
        )
    return list(found.values())


def cell_scores(rows: Sequence[StudyRow], planned: Sequence[PlannedCell]) -> list[CellScore]:
    """Return the planned cells that have an evaluation, in their order.

    A run's final score is the mean return of its last three evaluations (`run_dir.scores`), also
    where it ended early. Cells are compared with the first hand-written rule of the plan, each with
    the one on its own environment.
    """
    by_place: dict[Place, list[StudyRow]] = {}
    for row in rows:
        by_place.setdefault((row.row, row.environment), []).append(row)
    cells = [_cell(by_place[it.place], it) for it in planned if it.place in by_place]
    first_rule = next((it.row for it in planned if not it.training), "")
    references = {cell.environment: cell for cell in cells if cell.row == first_rule}
    return [_compared(cell, references.get(cell.environment)) for cell in cells]


def _cell(rows: Sequence[StudyRow], planned: PlannedCell) -> CellScore:
    first, runs = rows[0], _run_scores(rows)
    scores = [run.score for run in runs]
    spread = mean_and_deviation(scores)
    rng = np.random.default_rng(_RESAMPLING_SEED)
    return CellScore(
        planned=planned,
        is_seen=first.is_seen,
        train_env_steps=first.train_env_steps,
        planned_env_steps=first.planned_env_steps,
        runs=runs,
        mean=spread.mean,
        deviation=spread.deviation,
        middle=interquartile_mean_of(_by_objective(runs), rng, _RESAMPLES),
        stuck=None if first.stuck_below is None else stuck_runs(scores, first.stuck_below),
    )


def _compared(cell: CellScore, reference: CellScore | None) -> CellScore:
    if reference is None or reference is cell:
        return cell
    rng = np.random.default_rng(_RESAMPLING_SEED)
    own, other = _by_objective(cell.runs), _by_objective(reference.runs)
    better = improvement_over(own, other, rng, _RESAMPLES)
    return replace(cell, reference=reference.row, improvement=better)


def _by_objective(runs: Sequence[RunScore]) -> list[list[float]]:
    groups: dict[int | None, list[float]] = {}
    for run in runs:
        groups.setdefault(run.meta_seed, []).append(run.score)
    return list(groups.values())


def _run_scores(rows: Sequence[StudyRow]) -> tuple[RunScore, ...]:
    """Return the final score of every run of one cell, by objective and then by seed."""
    last = {(row.meta_seed, row.evaluation.seed): row for row in rows}
    return tuple(
        RunScore(
            meta_seed=meta_seed,
            seed=seed,
            state=row.state,
            env_steps=final.env_steps,
            score=final.score,
            training_return=final.training_return,
        )
        for ((meta_seed, seed), row), final in zip(
            last.items(), seed_scores(labelled_rows(rows)), strict=True
        )
    )


def labelled_rows(rows: Sequence[StudyRow]) -> list[EvaluationRow]:
    """Return the evaluations with the study's rows in the place of rules.

    Runs of different objectives may have the same seed: within a cell they are numbered through.
    """
    runs: dict[Place, dict[tuple[int | None, int], int]] = {}
    found: list[EvaluationRow] = []
    for row in rows:
        numbers = runs.setdefault((row.row, row.environment), {})
        number = numbers.setdefault((row.meta_seed, row.evaluation.seed), len(numbers))
        found.append(replace(row.evaluation.row, rule=row.row, seed=number))
    return found


def missing_cells(cells: Sequence[CellScore], planned: Iterable[PlannedCell]) -> list[PlannedCell]:
    """Return the planned cells that have no score."""
    found = {cell.planned.place for cell in cells}
    return [it for it in planned if it.place not in found]
