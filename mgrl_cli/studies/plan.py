"""From what a matrix is made of to its jobs, and to what each of its cells is called.

Knows nothing of processes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.studies.directory import StudyDirectory, slug
from mgrl_cli.studies.jobs import Job
from mgrl_cli.studies.matrix import (
    Column,
    Matrix,
    Training,
    chosen_objective,
    is_same_environment,
    objective_copies,
)
from mgrl_cli.studies.settings import TEST_SEED_OFFSET, RunSettings, job_of, section_of

LEARNED = "learned"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One test, and where its results belong."""

    job: Job
    settings: RunSettings
    """Of the job's run."""
    copy: Path | None
    """The study's copy of the objective; None where the study makes it, or the rule needs none."""
    row: str
    """Label of the row."""
    training: str
    """Which training the objective came from, with "(best)" where it is the best by the training's
    validations and not the last; "" for a rule that needs none."""
    meta_seed: int | None
    """Seed of that training; None where there is none, or where it is not the study's."""
    train_env_steps: int
    """Env steps each agent of the training was to make; 0 without one."""
    environment: str
    is_seen: bool
    """True where the objective was trained on the environment."""
    stuck_below: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a study runs."""

    jobs: tuple[Job, ...]
    """In the order in which they are to run."""
    cells: tuple[Cell, ...]
    """In the order of rows and columns."""
    environments: tuple[str, ...]
    """Every environment that a job needs, once."""


@dataclass(frozen=True, slots=True)
class _Objective:
    """One learned objective of a row."""

    path: Path
    seed: int
    """That of the training, or of the study; its tests have theirs `TEST_SEED_OFFSET` away."""
    is_best: bool
    """By the training's validations, not the last."""
    meta_seed: int | None
    env_steps: int
    job: Job | None
    """That makes it."""


def plan_matrix(matrix: Matrix, study: StudyDirectory) -> Plan:
    """Return the jobs and cells of a matrix whose rows are all named.

    Trainings come first, then what tests them; hand-written rules fill the gaps.

    Raises:
        UsageError: a setting of some run is invalid; names the run.
    """
    taken: set[str] = set()
    objectives = {row.name: _objectives(matrix, row, study, taken) for row in matrix.train}
    cells: list[Cell] = []
    for rule in matrix.objectives:
        if rule == LEARNED:
            cells += [
                _learned_cell(matrix, (row, column), objective, study, taken)
                for row in matrix.train
                for column in matrix.test
                for objective in objectives[row.name]
            ]
        else:
            cells += [_baseline_cell(matrix, rule, it, study, taken) for it in matrix.test]
    trainings = [made.job for found in objectives.values() for made in found if made.job]
    tests = [cell.job for cell in sorted(cells, key=lambda cell: not cell.training)]
    trained_on = [env for row in matrix.train if not row.run for env in row.environments]
    environments = dict.fromkeys([*trained_on, *(it.env for it in matrix.test)])
    return Plan((*trainings, *tests), tuple(cells), tuple(environments))


def baseline_job(rule: str, settings: RunSettings, study: StudyDirectory, taken: set[str]) -> Job:
    """Return the job of a rule that needs no objective.

    Raises:
        UsageError: a setting is invalid.
    """
    name = slug(f"{rule}.{settings.envs[0]}", taken)
    return job_of(f"test-{name}", study.test / name, ("baseline", rule), settings)


def _objectives(
    matrix: Matrix, row: Training, study: StudyDirectory, taken: set[str]
) -> list[_Objective]:
    if row.run:
        path = objective_copies(matrix, study)[row.name]
        return [_Objective(path, matrix.seed, row.is_best, None, row.steps, None)]
    found: list[_Objective] = []
    for meta_seed in range(matrix.seed, matrix.seed + matrix.meta_seeds):
        name = slug(f"{row.name}.seed-{meta_seed}", taken)
        settings = RunSettings(
            kind="meta-train",
            envs=tuple(row.envs),
            preset=matrix.preset,
            seed=meta_seed,
            steps=matrix.train_steps,
            set=(*matrix.set, *row.set),
        )
        job = job_of(f"train-{name}", study.train / name, ("meta-train",), settings)
        config = settings.resolved(job.name)
        path = chosen_objective(RunDirectory(job.run), config)
        is_best = bool(config.validation.envs)
        found.append(_Objective(path, meta_seed, is_best, meta_seed, config.steps, job))
    return found


def _learned_cell(
    matrix: Matrix,
    where: tuple[Training, Column],
    objective: _Objective,
    study: StudyDirectory,
    taken: set[str],
) -> Cell:
    row, column = where
    seed = "" if objective.meta_seed is None else f".seed-{objective.meta_seed}"
    name = slug(f"{row.name}{seed}.{column.env}", taken)
    settings = _test_settings(matrix, column, LEARNED, objective.seed, row.test_set)
    job = job_of(
        f"test-{name}",
        study.test / name,
        ("meta-test", "--objective", str(objective.path)),
        settings,
        needs=() if objective.job is None else (objective.job.name,),
    )
    training = f"{row.name} (best)" if objective.is_best else row.name
    return Cell(
        job=job,
        settings=settings,
        copy=objective.path if objective.job is None else None,
        row=f"{LEARNED}: {training}",
        training=training,
        meta_seed=objective.meta_seed,
        train_env_steps=objective.env_steps,
        environment=column.env,
        is_seen=is_seen(column.env, row.environments),
        stuck_below=column.stuck_below,
    )


def is_seen(environment: str, trained_on: Iterable[str]) -> bool:
    """Return whether an environment is among those of a training."""
    return any(is_same_environment(environment, trained) for trained in trained_on)


def _baseline_cell(
    matrix: Matrix, rule: str, column: Column, study: StudyDirectory, taken: set[str]
) -> Cell:
    settings = _test_settings(matrix, column, rule, matrix.seed, ())
    return Cell(
        job=baseline_job(rule, settings, study, taken),
        settings=settings,
        copy=None,
        row=rule,
        training="",
        meta_seed=None,
        train_env_steps=0,
        environment=column.env,
        is_seen=False,
        stuck_below=column.stuck_below,
    )


def _test_settings(
    matrix: Matrix, column: Column, rule: str, seed: int, more: Sequence[str]
) -> RunSettings:
    shared = [it for it in matrix.set if section_of(it) != "validation"]  # of trainings only
    return RunSettings(
        kind="meta-test",
        envs=(column.env,),
        preset=matrix.preset,
        seed=seed + TEST_SEED_OFFSET,
        steps=matrix.steps,
        set=(*shared, *column.set, *more),
        rule=rule,
        seeds=matrix.seeds,
    )
