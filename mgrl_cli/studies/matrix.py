"""What a matrix is made of: trainings as rows, test environments as columns, rules in the cells.

Read from options or a TOML file, checked and completed here, kept as `matrix.toml`. Knows nothing
of how its runs are executed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from envs.registry import ALIASES
from mgrl_cli.config import Rule, RunConfig
from mgrl_cli.errors import FileError, UsageError
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.presets import parse_toml
from mgrl_cli.run_dir.checkpoints import newest_manifest
from mgrl_cli.run_dir.layout import RunDirectory, find_run, is_run_directory
from mgrl_cli.run_dir.settings import read_settings
from mgrl_cli.studies.directory import (
    Specification,
    StudyDirectory,
    check_copy,
    import_file,
    sha256_of,
    slug,
)
from mgrl_cli.studies.settings import (
    LONGEST_NAME,
    Name,
    RowName,
    RunPath,
    check_rule_names,
    explain,
    population,
)

_Seeds = Annotated[int, Field(ge=1, le=1000)]
_Steps = Annotated[int, Field(ge=1, le=10**9)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Training(_Section):
    """One row of learned objectives: a training to be made, or a run that is there already."""

    name: RowName = ""
    """What the row is called; by default what it trains on, or the run's name."""
    envs: list[Name] = []
    """Training environments, with numbers of agents as "lunar:3" if any."""
    run: RunPath = ""
    """Name or path of a finished meta-training, in place of `envs`."""
    set: list[str] = []
    """Settings of the training, as --set takes them; win over the matrix's own."""
    test_set: list[str] = []
    """Settings of this row's tests; win over the matrix's and the column's own."""
    sha256: str = ""
    """Of the run's objective file; found out when the matrix begins, as is all that follows."""
    steps: int = 0
    """Env steps that each agent of the run had made for it."""
    is_best: bool = False
    """True where the objective is the best by the run's validations, not the last."""

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
        return [str(env["id"]) for env in population(self.envs, "envs")]


class Column(_Section):
    """One test environment."""

    env: Name
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
    check_rule_names(rules if isinstance(rules, list) else [], "objectives")
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


def training_of(text: str, runs_dir: Path, begun: Matrix | None) -> dict[str, Any]:
    """Return the row that `--train` means: the name of a run, or environments.

    A name that both have is the environment's: name the run by its path.

    Args:
        text: what was given.
        runs_dir: where runs are kept.
        begun: the matrix as it was begun; its runs may be gone meanwhile.
    """
    items = [item.strip() for item in text.split(",")]
    candidates = (Path(text), runs_dir / text)
    is_known = begun is not None and any(row.run == text for row in begun.train)
    if text not in ALIASES and (is_known or any(map(is_run_directory, candidates))):
        return {"run": text}
    return {"envs": items}


def completed(matrix: Matrix, runs_dir: Path, begun: Matrix | None) -> Matrix:
    """Return the matrix with all rows named and what is known of runs written down.

    Args:
        matrix: as somebody gave it.
        runs_dir: where runs are kept.
        begun: the matrix as it was begun, with copies of what it needs of runs; None: it is new.

    Raises:
        FileError: a run is missing or damaged.
        UsageError: a run is no finished meta-training, two rows bear one name, or what is to be
            found out of a run was given.
    """
    known = () if begun is None else begun.train
    rows = [_completed_row(row, runs_dir, known) for row in matrix.train]
    return parse_matrix(
        {**matrix.document, "train": [row.model_dump() for row in rows]}, source="matrix"
    )


def _completed_row(row: Training, runs_dir: Path, known: Sequence[Training]) -> Training:
    if row.sha256 or row.steps or row.is_best:
        raise UsageError(
            f"row '{row.name or row.run or row.envs[0]}' got sha256, steps or is_best, which are "
            "found out; leave them out, or continue a matrix with --resume"
        )
    if not row.run:
        return row.model_copy(update={"name": row.name or _name_of(row.envs)})
    begun = next((it for it in known if it.run == row.run and row.name in ("", it.name)), None)
    if begun is not None:
        found = ("name", "envs", "sha256", "steps", "is_best")
        return row.model_copy(update={name: getattr(begun, name) for name in found})
    run = finished_training(row.run, runs_dir)
    config = read_settings(run)
    objective = chosen_objective(run, config)
    return row.model_copy(
        update={
            "name": row.name or run.path.resolve().name,
            "envs": [env.id for env in config.envs],
            "sha256": sha256_of(objective),
            "steps": LearnedObjective.load(objective).metadata.steps_per_agent,
            "is_best": bool(config.validation.envs),
        }
    )


def _name_of(envs: Sequence[str]) -> str:
    name = ",".join(envs)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def chosen_objective(run: RunDirectory, config: RunConfig) -> Path:
    """Return the objective that a training is tested by: the best where it has validations."""
    return run.best_objective if config.validation.envs else run.objective


def finished_training(name: str, runs_dir: Path) -> RunDirectory:
    """Return a finished meta-training.

    Raises:
        FileError: there is no such run, or it is damaged.
        UsageError: it is none, not finished, or has no best objective.
    """
    run = find_run(name, runs_dir)
    config, newest = read_settings(run), newest_manifest(run)
    if config.kind != "meta-train":
        raise UsageError(f"run '{run.path}' is a {config.kind}, expected a meta-training")
    if newest is None or not newest.is_final(config) or not run.objective.is_file():
        raise UsageError(
            f"run '{run.path}' has not finished; finish it first with: mgrl resume {run.path}"
        )
    if not chosen_objective(run, config).is_file():
        raise UsageError(
            f"run '{run.path}' has no {run.best_objective.name}: none of its validations had a "
            f"score; test its last one with: mgrl meta-test --objective {run.objective}"
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
    """Copy the objectives of rows that are runs into a new study.

    Raises:
        FileError: one is missing.
        StorageError: the operating system refused.
    """
    copies = objective_copies(matrix, study)
    for row in matrix.train:
        if row.run:
            run = find_run(row.run, runs_dir)
            import_file(chosen_objective(run, read_settings(run)), copies[row.name])


def check_copies(matrix: Matrix, study: StudyDirectory) -> None:
    """Check that the study's copies of objectives are those that it was begun with.

    Raises:
        FileError: one is missing or another.
        StorageError: the operating system refused.
    """
    for row in matrix.train:
        if row.run:
            check_copy(objective_copies(matrix, study)[row.name], row.sha256)
