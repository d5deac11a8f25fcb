"""`evaluations.csv`: every evaluation of a meta-test, one line each, readable without the run.

Tables of several runs can be joined line by line and rebuilt from the lines alone: each says which
rule, objective, environment and versions it came from. Knows nothing of scores, tables or figures.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import final

from envs.registry import ALIASES
from mgrl_cli.errors import FileError
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.run_dir.atomic import write_atomically
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.metrics import EvaluationRow, read_evaluations
from mgrl_cli.run_dir.settings import read_settings, read_versions

VERSIONS = (
    *("mgrl", "python", "torch", "numpy", "numba", "gymnasium", "mujoco", "box2d"),
    "stable-baselines3",
)
"""What the last columns give the versions of, as the run's settings recorded them at its start."""

_OBJECTIVE_RULE = "learned"
_LARGEST_FIGURE = 1e100
"""As in `metrics`: no run measures more."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """One evaluation of one fresh agent, and all that is needed to compare it with others."""

    run: str
    rule: str
    objective: str
    """SHA-256 of the objective's tensors, as its file gives it; "" where the rule needs no file."""
    objective_environments: str
    """What the objective was trained on, parted by spaces; "" where there is none."""
    environment: str
    """As named in the run."""
    environment_id: str
    """Gymnasium id, with the version of the task."""
    seed: int
    """Test seed: the agent's index in the run's random streams."""
    env_steps: int
    """Env steps the agent had made."""
    evaluation_return: float
    """Mean noise-free return over the evaluation's episodes, in reward units."""
    evaluation_episodes: int
    training_return: float
    """Mean return of the training episodes of the same round, noise included; NaN: not known."""
    versions: Mapping[str, str]
    """One of `VERSIONS` → its version; "" where it was not installed."""

    @property
    def row(self) -> EvaluationRow:
        """The evaluation as metrics give it: for `scores` and `plots`."""
        return EvaluationRow(
            rule=self.rule,
            environment=self.environment,
            seed=self.seed,
            env_steps=self.env_steps,
            evaluation_return=self.evaluation_return,
            training_return=self.training_return,
        )


_FIGURES = tuple(field.name for field in fields(Evaluation) if field.name != "versions")
COLUMNS = (*_FIGURES, *VERSIONS)
"""Header of the table."""


def evaluations_of(run: RunDirectory) -> list[Evaluation]:
    """Return every evaluation of a meta-test so far, by agent and then by env steps.

    Raises:
        FileError: settings, metrics or objective are missing or damaged.
        UsageError: a setting is invalid.
        StorageError: the system refuses to read.
    """
    config = read_settings(run)
    installed = read_versions(run)
    versions = {name: _plain(installed.get(name, "")) for name in VERSIONS}
    objective, trained_on = "", ""
    if _OBJECTIVE_RULE in config.rules:
        metadata = LearnedObjective.load(run.objective).metadata
        objective = metadata.sha256
        trained_on = " ".join(map(_plain, metadata.environments))
    return [
        Evaluation(
            run=_plain(run.name),
            rule=_plain(row.rule),
            objective=objective if row.rule == _OBJECTIVE_RULE else "",
            objective_environments=trained_on if row.rule == _OBJECTIVE_RULE else "",
            environment=_plain(row.environment),
            environment_id=_plain(ALIASES.get(row.environment, row.environment)),
            seed=row.seed,
            env_steps=row.env_steps,
            evaluation_return=row.evaluation_return,
            evaluation_episodes=config.evaluation.episodes,
            training_return=row.training_return,
            versions=versions,
        )
        for row in read_evaluations(run)
    ]


def write_evaluations(evaluations: Iterable[Evaluation], path: Path) -> None:
    """Write the table; figures read back exactly, NaN is an empty cell.

    Raises:
        StorageError: the operating system refused; what was there before stays.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(evaluation_cells(evaluation) for evaluation in evaluations)
    write_atomically(path, text.getvalue().encode())


def read_evaluation_table(path: Path) -> list[Evaluation]:
    """Return the evaluations of a table by `write_evaluations`, or of several under one header.

    Raises:
        FileError: no such file, or one that is not such a table; names the line.
    """
    try:
        text = path.read_bytes().decode()
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read '{path}': {error}; give an evaluations.csv") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if tuple(header) != COLUMNS:
            raise FileError(
                f"'{path}' has the columns {','.join(header)!r:.80}, expected those of an "
                "evaluations.csv of this version; write it anew with mgrl resume RUN"
            )
        return [parse_evaluation(cells, f"'{path}', line {reader.line_num}") for cells in reader]
    except csv.Error as error:
        raise FileError(
            f"'{path}', line {reader.line_num}: {error}, expected CSV; restore it from a copy"
        ) from error


def evaluation_cells(evaluation: Evaluation) -> list[object]:
    """Return one line of the table, in the order of `COLUMNS`; NaN is an empty cell."""
    figures: list[object] = [getattr(evaluation, name) for name in _FIGURES]
    cells = ["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in figures]
    return [*cells, *(evaluation.versions.get(name, "") for name in VERSIONS)]


def parse_evaluation(cells: Sequence[str], where: str) -> Evaluation:
    """Return the evaluation in one line of the table.

    Args:
        cells: in the order of `COLUMNS`.
        where: the line, for messages.

    Raises:
        FileError: too few or too many cells, or figures that are none.
    """
    if len(cells) != len(COLUMNS):
        raise FileError(
            f"{where}: got {len(cells)} cells, expected {len(COLUMNS)}; the table is damaged"
        )
    cell = dict(zip(COLUMNS, cells, strict=True))
    return Evaluation(
        run=cell["run"],
        rule=cell["rule"],
        objective=cell["objective"],
        objective_environments=cell["objective_environments"],
        environment=cell["environment"],
        environment_id=cell["environment_id"],
        seed=_count(cell["seed"], f"{where}, seed"),
        env_steps=_count(cell["env_steps"], f"{where}, env_steps"),
        evaluation_return=_figure(cell["evaluation_return"], f"{where}, evaluation_return"),
        evaluation_episodes=_count(cell["evaluation_episodes"], f"{where}, evaluation_episodes"),
        training_return=(
            _figure(cell["training_return"], f"{where}, training_return")
            if cell["training_return"]
            else math.nan
        ),
        versions={name: cell[name] for name in VERSIONS},
    )


def _count(text: str, where: str) -> int:
    # Not int(): it would take "1_000", " 7 " and digits of other scripts.
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(2**63))):
        raise FileError(f"{where}: got {text!r:.40}, expected a whole number; the table is damaged")
    return int(text)


def _figure(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not abs(value) <= _LARGEST_FIGURE:  # nor for NaN
        raise FileError(f"{where}: got {text!r:.40}, expected a number; the table is damaged")
    return value


def _plain(text: str) -> str:
    r"""Return `text` with what is not printable as "\x1b": names in a run may be anything."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
