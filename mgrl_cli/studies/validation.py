"""Tests of an objective in the middle of its training, as a meta-training's `Validator`.

Each environment is an ordinary meta-test in a run of its own below the training's. What is
finished is found again, what has begun is continued: see `queue`. Knows nothing of when tests are
due or what their scores decide.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence

from mgrl_cli.config import RunConfig
from mgrl_cli.errors import (
    DivergedError,
    FileError,
    MgrlError,
    RunLockedError,
    StorageError,
    UsageError,
    WorkerError,
)
from mgrl_cli.run_dir.atomic import explain_os_error
from mgrl_cli.run_dir.checkpoints import newest_manifest
from mgrl_cli.run_dir.layout import RunDirectory, agent_name
from mgrl_cli.run_dir.manifest import OBJECTIVE_NAME
from mgrl_cli.run_dir.metrics import read_evaluations
from mgrl_cli.run_dir.scores import seed_scores
from mgrl_cli.run_dir.settings import read_settings
from mgrl_cli.run_dir.validations import WORKER_LOST
from mgrl_cli.studies.directory import slug
from mgrl_cli.studies.jobs import Job
from mgrl_cli.studies.queue import JobStatus, Queue, failures

_SEED_OFFSET = 1_000_000
"""Between the seeds of training and tests, so that a later meta-test of the chosen objective with
the training's seed, which is the default's, is not one that it was chosen by. Unlike that of
`settings.TEST_SEED_OFFSET`, so that neither are the tests of a study."""
_FINAL: Sequence[type[MgrlError]] = (
    UsageError,
    RunLockedError,
    FileError,
    WorkerError,
    StorageError,
)
"""Failures of a test that tell nothing of the objective, and that another try cannot mend."""


def validate(
    run: RunDirectory,
    round_index: int,
    stop_signal: Callable[[], int | None],
    show: Callable[[float], None],
    *,
    workers: int | None = None,
) -> Mapping[str, Sequence[float]] | None:
    """Test an objective on fresh agents; see `runtime.validation.Validator`.

    Args:
        run: the meta-training.
        round_index: at whose end the objective stood as it is there.
        stop_signal: asked a few times a second.
        show: told how much is done.
        workers: processes at the same time, which the training's own leave free meanwhile; None or
            0: one per usable core.

    Raises:
        WorkerError: tests, or their workers, were killed again and again.
        StorageError: the operating system refused.
        MgrlError: the tests cannot be made.
    """
    config = read_settings(run)
    jobs = validation_jobs(run, config, round_index)
    for job in jobs.values():
        forget_decimated(RunDirectory(job.run))

    def queue_of(left: Sequence[Job]) -> Queue:
        return validation_queue(run, round_index, left, workers)

    tries = 1 + config.supervision.max_restarts
    lost = _lost_jobs(queue_of, list(jobs.values()), tries, stop_signal, show)
    if lost is None:
        return None
    num_seeds = config.validation.seeds
    return {
        env: [math.nan] * num_seeds
        if job.name in lost
        else _final_scores(RunDirectory(job.run), num_seeds)
        for env, job in jobs.items()
    }


def validation_queue(
    run: RunDirectory, round_index: int, jobs: Sequence[Job], workers: int | None
) -> Queue:
    """Return what executes the tests of a validation; arguments as in `validate`.

    Raises:
        StorageError: the operating system refused to tell what is finished.
    """
    log_dir = run.validation_at(round_index) / "log"
    return Queue(jobs, log_dir, workers=workers or None, is_warm=True)  # as this process is


def _lost_jobs(
    queue_of: Callable[[Sequence[Job]], Queue],
    jobs: Sequence[Job],
    tries: int,
    stop_signal: Callable[[], int | None],
    show: Callable[[float], None],
) -> set[str] | None:
    """Run the tests, again where they die; return those in which no agent was left.

    None: stopped before the end.

    Raises:
        MgrlError: a test failed for a reason that says nothing of the objective.
    """
    lost: set[str] = set()
    for number in range(tries):
        queue = queue_of([job for job in jobs if job.name not in lost])
        queue.execute(lambda statuses: show(_fraction(statuses, len(jobs))), stop_signal)
        if stop_signal() is not None and not queue.is_finished:
            return None
        died: list[JobStatus] = []
        for name, status in failures(queue.statuses).items():
            if is_score(status):
                lost.add(name)
            else:
                died.append(status)
        for status in died:
            refuse_hopeless(status, is_last_try=number == tries - 1)
        if not died:
            break
    for job in jobs:
        refuse_decimated(job)
    return lost


def is_score(status: JobStatus) -> bool:
    """Return whether a test failed for what the objective made of its agents, or its environment.

    Then it would fail again. A machine that ran out of memory, say, is another matter.
    """
    if status.exit_code == WorkerError.exit_code:
        return WORKER_LOST not in status.problem and not _lost_workers(RunDirectory(status.job.run))
    return status.exit_code == DivergedError.exit_code


def validation_jobs(run: RunDirectory, config: RunConfig, round_index: int) -> dict[str, Job]:
    """Return environment → its test, of the objective that lies in the validation's directory."""
    directory, wanted, taken = run.validation_at(round_index), config.validation, {"log"}
    jobs: dict[str, Job] = {}
    for env in wanted.envs:
        name = slug(env, taken)
        words = {
            "--env": env,
            "--objective": directory / OBJECTIVE_NAME,
            "--config": run.config,
            "--preset": config.preset,
            "--seeds": wanted.seeds,
            "--steps": wanted.steps,
            "--seed": (config.seed + _SEED_OFFSET) % 2**63,
        }
        jobs[env] = Job(
            name=name,
            run=directory / name,
            arguments=("meta-test", *(str(word) for pair in words.items() for word in pair)),
            agents=wanted.seeds,
            agent_steps=wanted.seeds * wanted.steps,
            num_rounds=-(-wanted.steps // config.schedule.round_steps),
        )
    return jobs


def _final_scores(test: RunDirectory, num_seeds: int) -> list[float]:
    """Return the final score of every seed; NaN for an agent that did not come to its end."""
    newest = newest_manifest(test)
    lost = newest.quarantined if newest is not None else {}
    scores = {score.seed: score.score for score in seed_scores(read_evaluations(test))}
    return [
        math.nan if agent_name(seed) in lost else scores.get(seed, math.nan)
        for seed in range(num_seeds)
    ]


def _fraction(statuses: Sequence[JobStatus], num_jobs: int) -> float:
    """Return how much of the validation is done; jobs that are not in the queue are over."""
    made = math.fsum(status.fraction for status in statuses)
    return (made + num_jobs - len(statuses)) / num_jobs


def _lost_workers(test: RunDirectory) -> str:
    """Return why a test left out an agent whose worker was lost; "": it did not."""
    newest = newest_manifest(test)
    reasons = newest.quarantined.values() if newest is not None else ()
    return next((reason for reason in reasons if reason.startswith(WORKER_LOST)), "")


def forget_decimated(test: RunDirectory) -> None:
    """Remove a test that goes on without an agent though only the machine was to blame.

    Raises:
        StorageError: the operating system refused.
    """
    if _lost_workers(test):
        try:
            shutil.rmtree(test.path)
        except OSError as error:
            raise StorageError(explain_os_error(error, f"remove '{test.path}'")) from error


def refuse_decimated(job: Job) -> None:
    """Refuse a test that has come to its end without such an agent; it is made anew on resume.

    Raises:
        WorkerError: it has.
    """
    reason = _lost_workers(RunDirectory(job.run))
    if reason:
        raise WorkerError(_explain(job, f"an agent was left out: {reason}"))


def refuse_hopeless(status: JobStatus, *, is_last_try: bool) -> None:
    """Raise for a failure that another try cannot mend: all but sudden deaths.

    Raises:
        MgrlError: with the test's own exit code.
        WorkerError: a sudden death, and there is no try left.
    """
    kind = next((it for it in _FINAL if it.exit_code == status.exit_code), None)
    if kind is not None or is_last_try:
        raise (kind or WorkerError)(_explain(status.job, status.problem))


def _explain(job: Job, problem: str) -> str:
    return (
        f"the validation in '{job.run.parent}' failed ({job.name}: {problem}); mend that and "
        "continue with mgrl resume, or leave it out with another run"
    )
