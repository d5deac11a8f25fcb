"""`rows.csv`: every evaluation of every test of a study, which is all that its tables count.

Each line is a line of the test's own `evaluations.csv` behind what the study knows of it. Knows
nothing of how the tests were made.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final, get_args

from mgrl_cli.errors import FileError
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.run_dir.checkpoints import newest_manifest
from mgrl_cli.run_dir.csv_table import (
    parse_count,
    parse_figure,
    read_csv_table,
    write_csv_table,
)
from mgrl_cli.run_dir.evaluations import (
    COLUMNS,
    Evaluation,
    evaluation_cells,
    evaluations_of,
    parse_evaluation,
)
from mgrl_cli.run_dir.layout import RunDirectory, agent_name, is_run_directory
from mgrl_cli.run_dir.settings import read_settings
from mgrl_cli.studies.plan import Cell

RunState = Literal["finished", "quarantined", "unfinished"]
"""How a run ended: at its planned end; left out of its population; or not saved at its end yet, be
it that it failed or that its study has not come so far."""

_STATES: tuple[RunState, ...] = get_args(RunState)
_OWN_COLUMNS = (
    *("row", "training", "meta_seed", "train_env_steps", "seen", "stuck_below"),
    *("planned_env_steps", "state"),
)
_ALL_COLUMNS = (*_OWN_COLUMNS, *COLUMNS)
_SEEN = {"yes": True, "no": False}


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRow:
    """One evaluation of one fresh agent, with the cell of the study it belongs to."""

    row: str
    """Label of the cell's row."""
    training: str
    """Which training the objective came from; "" for a rule that needs none."""
    meta_seed: int | None
    """Seed of that training; None where there is none, or where it is not the study's."""
    train_env_steps: int
    """Env steps each agent of the training had made when it gave the objective; 0 without one."""
    is_seen: bool
    """True where the objective was trained on the environment."""
    stuck_below: float | None
    """A run whose final score is less counts as stuck."""
    planned_env_steps: int
    """Env steps that the agent was to make."""
    state: RunState
    """How the agent's run ended."""
    evaluation: Evaluation

    @property
    def environment(self) -> str:
        """Label of the cell's column."""
        return self.evaluation.environment


def rows_of(cells: Iterable[Cell]) -> list[StudyRow]:
    """Return all evaluations of all cells so far, in their order.

    Raises:
        FileError: a run is damaged.
        StorageError: the operating system refused to read.
    """
    return [row for cell in cells if _has_metrics(cell.job.run) for row in _rows_of(cell)]


def _rows_of(cell: Cell) -> list[StudyRow]:
    run = RunDirectory(cell.job.run)
    evaluations = evaluations_of(run)
    # As the objective's own file has it: a training may have ended before its planned steps.
    train_env_steps = (
        LearnedObjective.load(run.objective).metadata.steps_per_agent if cell.training else 0
    )
    states = _states(run, {evaluation.seed for evaluation in evaluations})
    return [
        StudyRow(
            row=cell.row,
            training=cell.training,
            meta_seed=cell.meta_seed,
            train_env_steps=train_env_steps,
            is_seen=cell.is_seen,
            stuck_below=cell.stuck_below,
            planned_env_steps=cell.job.agent_steps // cell.job.agents,
            state=states[evaluation.seed],
            evaluation=evaluation,
        )
        for evaluation in evaluations
    ]


def _states(run: RunDirectory, seeds: Iterable[int]) -> dict[int, RunState]:
    """Return test seed → how its run ended; a test of a study has one rule, so seeds are agents."""
    newest = newest_manifest(run)
    if newest is None:
        return dict.fromkeys(seeds, "unfinished")
    rest: RunState = "finished" if newest.is_final(read_settings(run)) else "unfinished"
    return {
        seed: "quarantined" if agent_name(seed) in newest.quarantined else rest for seed in seeds
    }


def _has_metrics(path: Path) -> bool:
    return is_run_directory(path) and any(RunDirectory(path).metrics.glob("agent-*.jsonl"))


def write_rows(rows: Iterable[StudyRow], path: Path) -> None:
    """Write the table; figures read back exactly.

    Raises:
        StorageError: the operating system refused; what was there before stays.
    """
    write_csv_table(_ALL_COLUMNS, map(_cells, rows), path)


def read_rows(path: Path) -> list[StudyRow]:
    """Return what `write_rows` wrote.

    Raises:
        FileError: no such file, or one that is not such a table; names the line.
    """
    return read_csv_table(path, _ALL_COLUMNS, _row, "write it anew by continuing the study")


def _cells(row: StudyRow) -> list[object]:
    own = (
        *(row.row, row.training, "" if row.meta_seed is None else row.meta_seed),
        *(row.train_env_steps, "yes" if row.is_seen else "no"),
        *("" if row.stuck_below is None else row.stuck_below, row.planned_env_steps, row.state),
    )
    return [*own, *evaluation_cells(row.evaluation)]


def _row(cells: Sequence[str], where: str) -> StudyRow:
    own = dict(zip(_OWN_COLUMNS, cells[: len(_OWN_COLUMNS)], strict=True))
    if own["seen"] not in _SEEN:
        raise FileError(f"{where}, seen: got {own['seen']!r:.40}, expected yes or no")
    if own["state"] not in _STATES:
        expected = ", ".join(_STATES)
        raise FileError(f"{where}, state: got {own['state']!r:.40}, expected one of {expected}")
    return StudyRow(
        row=own["row"],
        training=own["training"],
        meta_seed=parse_count(own["meta_seed"], where) if own["meta_seed"] else None,
        train_env_steps=parse_count(own["train_env_steps"], where),
        is_seen=_SEEN[own["seen"]],
        stuck_below=parse_figure(own["stuck_below"], where) if own["stuck_below"] else None,
        planned_env_steps=parse_count(own["planned_env_steps"], where),
        state=own["state"],
        evaluation=parse_evaluation(cells[len(_OWN_COLUMNS) :], where),
    )
