"""`rows.csv`: every evaluation of every test of a study, from which alone its tables follow.

Each line is a line of the test's own `evaluations.csv` behind what the study knows of it. Knows
nothing of how the tests were made.
"""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from mgrl_cli.errors import FileError
from mgrl_cli.run_dir.atomic import write_atomically
from mgrl_cli.run_dir.evaluations import (
    COLUMNS,
    Evaluation,
    evaluation_cells,
    evaluations_of,
    parse_evaluation,
)
from mgrl_cli.run_dir.layout import RunDirectory, is_run_directory
from mgrl_cli.studies.plan import Cell

_OWN_COLUMNS = ("row", "training", "meta_seed", "train_env_steps", "seen", "stuck_below")
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
    """Env steps each agent of the training had made; 0 without one."""
    is_seen: bool
    """True where the objective was trained on the environment."""
    stuck_below: float | None
    """A run whose final score is less counts as stuck."""
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
    return [
        StudyRow(
            row=cell.row,
            training=cell.training,
            meta_seed=cell.meta_seed,
            train_env_steps=cell.train_env_steps,
            is_seen=cell.is_seen,
            stuck_below=cell.stuck_below,
            evaluation=evaluation,
        )
        for cell in cells
        if _has_metrics(cell.job.run)
        for evaluation in evaluations_of(RunDirectory(cell.job.run))
    ]


def _has_metrics(path: Path) -> bool:
    return is_run_directory(path) and any(RunDirectory(path).metrics.glob("agent-*.jsonl"))


def write_rows(rows: Iterable[StudyRow], path: Path) -> None:
    """Write the table; figures read back exactly.

    Raises:
        StorageError: the operating system refused; what was there before stays.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_OWN_COLUMNS, *COLUMNS])
    for row in rows:
        own = (
            *(row.row, row.training, "" if row.meta_seed is None else row.meta_seed),
            *(row.train_env_steps, "yes" if row.is_seen else "no"),
            "" if row.stuck_below is None else row.stuck_below,
        )
        writer.writerow([*own, *evaluation_cells(row.evaluation)])
    write_atomically(path, text.getvalue().encode())


def read_rows(path: Path) -> list[StudyRow]:
    """Return what `write_rows` wrote.

    Raises:
        FileError: no such file, or one that is not such a table; names the line.
    """
    try:
        text = path.read_bytes().decode()
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read '{path}': {error}; give a rows.csv of a study") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    expected = [*_OWN_COLUMNS, *COLUMNS]
    try:
        header = next(reader, [])
        if header != expected:
            raise FileError(
                f"'{path}' has the columns {','.join(header)!r:.80}, expected those of a study's "
                "rows.csv of this version; write it anew by continuing the study"
            )
        return [_row(cells, len(expected), f"'{path}', line {reader.line_num}") for cells in reader]
    except csv.Error as error:
        raise FileError(
            f"'{path}', line {reader.line_num}: {error}, expected CSV; restore it from a copy"
        ) from error


def _row(cells: Sequence[str], expected: int, where: str) -> StudyRow:
    if len(cells) != expected:
        raise FileError(
            f"{where}: got {len(cells)} cells, expected {expected}; the table is damaged"
        )
    own = dict(zip(_OWN_COLUMNS, cells[: len(_OWN_COLUMNS)], strict=True))
    if own["seen"] not in _SEEN:
        raise FileError(f"{where}, seen: got {own['seen']!r:.40}, expected yes or no")
    return StudyRow(
        row=own["row"],
        training=own["training"],
        meta_seed=_count(own["meta_seed"], where) if own["meta_seed"] else None,
        train_env_steps=_count(own["train_env_steps"], where),
        is_seen=_SEEN[own["seen"]],
        stuck_below=_figure(own["stuck_below"], where) if own["stuck_below"] else None,
        evaluation=parse_evaluation(cells[len(_OWN_COLUMNS) :], where),
    )


def _count(text: str, where: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(2**63))):
        raise FileError(f"{where}: got {text!r:.40}, expected a whole number; the table is damaged")
    return int(text)


def _figure(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise FileError(f"{where}: got {text!r:.40}, expected a number; the table is damaged")
    return value
