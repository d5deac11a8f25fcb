"""`evaluations.csv`: every evaluation of a meta-test, one line each, readable without the run.

Tables of several runs can be joined line by line and rebuilt from the lines alone: each says which
rule, objective, environment and versions it came from. Knows nothing of scores, tables or figures.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import final

from envs.registry import ALIASES
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.run_dir.csv_table import (
    parse_count,
    parse_figure,
    read_csv_table,
    write_csv_table,
)
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.metrics import EvaluationRow, read_evaluations
from mgrl_cli.run_dir.settings import read_settings, read_versions

VERSIONS = (
    *("mgrl", "python", "torch", "numpy", "numba", "gymnasium", "mujoco", "box2d"),
    "stable-baselines3",
)
"""What the last columns give the versions of, as the run's settings recorded them at its start."""

_OBJECTIVE_RULE = "learned"


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
    write_csv_table(COLUMNS, map(evaluation_cells, evaluations), path)


def read_evaluation_table(path: Path) -> list[Evaluation]:
    """Return the evaluations of a table by `write_evaluations`, or of several under one header.

    Raises:
        FileError: no such file, or one that is not such a table; names the line.
    """
    return read_csv_table(path, COLUMNS, parse_evaluation, "write it anew with mgrl resume RUN")


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
        FileError: figures that are none.
    """
    cell = dict(zip(COLUMNS, cells, strict=True))

    def count(name: str) -> int:
        return parse_count(cell[name], f"{where}, {name}")

    def figure(name: str) -> float:
        return parse_figure(cell[name], f"{where}, {name}")

    return Evaluation(
        run=cell["run"],
        rule=cell["rule"],
        objective=cell["objective"],
        objective_environments=cell["objective_environments"],
        environment=cell["environment"],
        environment_id=cell["environment_id"],
        seed=count("seed"),
        env_steps=count("env_steps"),
        evaluation_return=figure("evaluation_return"),
        evaluation_episodes=count("evaluation_episodes"),
        training_return=figure("training_return") if cell["training_return"] else math.nan,
        versions={name: cell[name] for name in VERSIONS},
    )


def _plain(text: str) -> str:
    r"""Return `text` with what is not printable as "\x1b": names in a run may be anything."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
