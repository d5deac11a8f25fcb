"""What a matrix is made of: trainings as rows, test environments as columns, rules in the cells.

Read from options or a TOML file, checked and completed here, kept as `matrix.toml`. Knows nothing
of how its runs are executed.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from envs.registry import ALIASES
from mgrl_cli.config import Rule
from mgrl_cli.errors import FileError, StorageError, UsageError
from mgrl_cli.presets import parse_toml
from mgrl_cli.run_dir.atomic import explain_os_error
from mgrl_cli.run_dir.checkpoints import newest_manifest
from mgrl_cli.run_dir.layout import RunDirectory, find_run, is_run_directory
from mgrl_cli.run_dir.settings import read_settings
from mgrl_cli.studies.directory import (
    Specification,
    StudyDirectory,
    import_file,
    slug,
)
from mgrl_cli.studies.settings import check_rules, explain, population

_MOST_SEEDS = 1000
_Seeds = Annotated[int, Field(ge=1, le=_MOST_SEEDS)]
_Steps = Annotated[int, Field(ge=1, le=10**9)]
_Name = Annotated[str, Field(min_length=1, max_length=100)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Training(_Section):
    """One row of learned objectives: a training to be made, or a run that is there already."""

    name: str = ""
    """What the row is called; by default what it trains on, or the run's name."""
    envs: list[_Name] = []
    """Training environments, with numbers of agents as "lunar:3" if any."""
    run: str = ""
    """Name or path of a finished meta-training, in place of `envs`."""
    set: list[str] = []
    """Settings of the training, as --set takes them; win over the matrix's own."""
    test_set: list[str] = []
    """Settings of this row's tests; win over the matrix's and the column's own."""
    sha256: str = ""
    """Of the run's objective file; found out when the matrix begins."""
    steps: int = 0
    """Env steps per agent that the run has made; found out likewise."""

    @model_validator(mode="after")
    def _has_one_source(self) -> "Training":
        # Of a run the environments are written down too, once they are known.
        if not self.run and not self.envs:
            raise ValueError("a row needs envs or the name of a run")
        if self.run and self.envs and not self.sha256:
            raise ValueError(f"a row takes envs or a run, got envs {self.envs} and '{self.run}'")
        if self.run and self.set:
            raise ValueError(f"'{self.run}' is trained already: its settings cannot be set")
        return self

    @property
    def environments(self) -> list[str]:
        """Names of the training environments, without numbers of agents."""
        return [str(env["id"]) for env in population(self.envs)]


class Column(_Section):
    """One test environment."""

    env: _Name
    set: list[str] = []
    """Settings of its tests; win over the matrix's own."""
    stuck_below: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """A run whose final score is less counts as stuck; None: nobody counts."""


class Matrix(_Section):
    """Everything that decides what a matrix shows."""

    train: list[Training] = []
    test: Annotated[list[Column], Field(min_length=1)]
    objectives: Annotated[list[Rule], Field(min_length=1)] = ["learned"]
    """What drives fresh agents: "learned" is a row per training, each other rule one row."""
    seeds: _Seeds = 3
    """Fresh agents per cell and objective."""
    meta_seeds: _Seeds = 1
    """Objectives per training set, from as many seeds."""
    seed: Annotated[int, Field(ge=0, le=2**62)] = 0
    """First meta-seed, and root of the tests' randomness."""
    preset: Literal["smoke", "laptop", "paper"] = "laptop"
    steps: _Steps | None = None
    """Env steps of each fresh agent; None: the preset's."""
    train_steps: _Steps | None = None
    """Env steps per agent of a training; None: the preset's."""
    set: list[str] = []
    """Settings of all runs."""

    @model_validator(mode="after")
    def _consistent(self) -> "Matrix":
        named: dict[str, list[str]] = {
            "objectives": [*self.objectives],
            "rows": [row.name for row in self.train if row.name],
            "test environments": [column.env for column in self.test],
        }
        for what, names in named.items():
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"two {what} are called '{twice}', expected each once")
        is_learned = "learned" in self.objectives
        if is_learned and not self.train:
            raise ValueError("learned objectives need a --train; or leave 'learned' out")
        if self.train and not is_learned:
            raise ValueError("no cell would use the --train; add 'learned' to --objectives")
        return self

    @property
    def document(self) -> Specification:
        """The matrix as TOML values."""
        return self.model_dump(mode="json", exclude_none=True)


def parse_matrix(settings: Mapping[str, Any], *, source: str) -> Matrix:
    """Return a matrix as it was given.

    Raises:
        UsageError: unknown key, wrong type, or it makes no sense; names `source`.
    """
    rules = settings.get("objectives", [])
    check_rules(rules if isinstance(rules, list) else [], "objectives")
    try:
        return Matrix.model_validate(dict(settings))
    except ValidationError as error:
        raise UsageError(f"invalid {source}: {explain(error)}") from error


def read_matrix(path: Path) -> dict[str, Any]:
    """Return the settings in a TOML file.

    Raises:
        FileError: it cannot be read.
        UsageError: it is not TOML.
    """
    try:
        return parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read '{path}': {error}; check --config") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"'{path}' is not TOML: {error}") from error


def training_of(text: str, runs_dir: Path) -> dict[str, Any]:
    """Return the row that `--train` means: the name of a run, or environments.

    A name that both have is the environment's: name the run by its path.
    """
    items = [item.strip() for item in text.split(",")]
    candidates = (Path(text), runs_dir / text)
    if text not in ALIASES and any(is_run_directory(candidate) for candidate in candidates):
        return {"run": text}
    return {"envs": items}


def completed(matrix: Matrix, runs_dir: Path) -> Matrix:
    """Return the matrix with all rows named and what is known of runs written down.

    Raises:
        FileError: a run is missing or damaged.
        UsageError: a run is no finished meta-training, or two rows bear one name.
    """
    rows = [_completed_row(row, runs_dir) for row in matrix.train]
    return parse_matrix(
        {**matrix.document, "train": [row.model_dump() for row in rows]}, source="matrix"
    )


def _completed_row(row: Training, runs_dir: Path) -> Training:
    if not row.run:
        return row.model_copy(update={"name": row.name or ",".join(row.envs)})
    if row.sha256:  # read back from the matrix's own directory
        return row
    run = finished_training(row.run, runs_dir)
    config = read_settings(run)
    try:
        content = run.objective.read_bytes()
    except OSError as error:
        raise StorageError(explain_os_error(error, f"read '{run.objective}'")) from error
    known = {
        "name": row.name or run.path.resolve().name,
        "envs": [env.id for env in config.envs],
        "sha256": hashlib.sha256(content).hexdigest(),
        "steps": config.steps,
    }
    return row.model_copy(update=known)


def finished_training(name: str, runs_dir: Path) -> RunDirectory:
    """Return a finished meta-training.

    Raises:
        FileError: there is no such run, or it is damaged.
        UsageError: it is none, or not finished.
    """
    run = find_run(name, runs_dir)
    config, newest = read_settings(run), newest_manifest(run)
    if config.kind != "meta-train":
        raise UsageError(f"run '{run.path}' is a {config.kind}, expected a meta-training")
    if newest is None or not newest.is_final(config) or not run.objective.is_file():
        raise UsageError(
            f"run '{run.path}' has not finished; finish it first with: mgrl resume {run.path}"
        )
    return run


def is_same_environment(name: str, other: str) -> bool:
    """Return whether two names, aliases or Gymnasium ids, mean one environment."""
    return ALIASES.get(name, name) == ALIASES.get(other, other)


def objective_copies(matrix: Matrix, study: StudyDirectory) -> dict[str, Path]:
    """Return where the objective of each row that is a run is kept: name of the row → path."""
    taken: set[str] = set()
    names = {row.name: slug(row.name, taken) for row in matrix.train if row.run}
    return {name: study.objectives / f"{short}.safetensors" for name, short in names.items()}


def import_runs(matrix: Matrix, study: StudyDirectory, runs_dir: Path) -> None:
    """Copy the objectives of rows that are runs into the study; those that are there stay.

    Raises:
        FileError: one is missing.
        StorageError: the operating system refused.
    """
    copies = objective_copies(matrix, study)
    for row in matrix.train:
        if row.run:
            import_file(find_run(row.run, runs_dir).objective, copies[row.name])
