"""Tests of an objective in the middle of its training, as a meta-training's `Validator`.

Each environment is an ordinary meta-test in a run of its own below the training's. What is
finished is found again, what has begun is continued: see `queue`. Knows nothing of when tests are
due or what their scores decide.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence

from mgrl_cli.config import RunConfig
from mgrl_cli.errors import DivergedError, StorageError, WorkerError
from mgrl_cli.run_dir.atomic import explain_os_error
from mgrl_cli.run_dir.checkpoints import newest_manifest
from mgrl_cli.run_dir.layout import RunDirectory, agent_name, is_run_directory
from mgrl_cli.run_dir.manifest import OBJECTIVE_NAME
from mgrl_cli.run_dir.metrics import read_evaluations
from mgrl_cli.run_dir.scores import seed_scores
from mgrl_cli.run_dir.settings import read_settings
from mgrl_cli.studies.directory import slug
from mgrl_cli.studies.jobs import Job
from mgrl_cli.studies.queue import JobStatus, Queue, failures

_SEED_OFFSET = 1_000_000
"""Between the seeds of training and tests, so that a later meta-test of the chosen objective with
the training's seed, which is the default's, is not one that it was chosen by."""
_NO_AGENT_LEFT = (WorkerError.exit_code, DivergedError.exit_code)


def validate(
    run: RunDirectory,
    round_index: int,
    stop_signal: Callable[[], int | None],
    show: Callable[[float], None],
) -> Mapping[str, Sequence[float]] | None:
    """Test an objective on fresh agents; see `runtime.validation.Validator`.

    Raises:
        WorkerError: tests were killed again and again.
        StorageError: the operating system refused.
        MgrlError: the tests cannot be made.
    """
    config = read_settings(run)
    jobs = validation_jobs(run, config, round_index)
    lost = _lost_jobs(run, round_index, list(jobs.values()), stop_signal, show)
    if lost is None:
        return None
    num_seeds = config.validation.seeds
    return {
        env: [math.nan] * num_seeds
        if job.name in lost
        else _final_scores(RunDirectory(job.run), num_seeds)
        for env, job in jobs.items()
    }


def _lost_jobs(
    run: RunDirectory,
    round_index: int,
    jobs: Sequence[Job],
    stop_signal: Callable[[], int | None],
    show: Callable[[float], None],
) -> set[str] | None:
    """Run the tests, again where they die; return those in which no agent was left.

    None: stopped before the end.
    """
    log_dir = run.validation_at(round_index) / "log"
    lost: set[str] = set()
    tries = 1 + read_settings(run).supervision.max_restarts
    while True:
        left = [job for job in jobs if job.name not in lost]
        for job in left:
            _forget_unsaved(RunDirectory(job.run))
        queue = Queue(left, log_dir, is_warm=True)  # this process has compiled already
        queue.execute(lambda statuses: show(_fraction(statuses, len(jobs))), stop_signal)
        if stop_signal() is not None and not queue.is_finished:
            return None
        died: list[JobStatus] = []
        for name, status in failures(queue.statuses).items():
            if status.exit_code in _NO_AGENT_LEFT:
                lost.add(name)
            else:
                died.append(status)
        if not died:
            return lost
        tries -= 1
        for status in died:
            _refuse_hopeless(status, round_index, is_last_try=tries == 0)


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


def _forget_unsaved(test: RunDirectory) -> None:
    """Remove a test that was killed before it had saved anything: it would begin anew anyway.

    It may not even have its objective yet, and then it could not be resumed.
    """
    if is_run_directory(test.path) and newest_manifest(test) is None:
        try:
            shutil.rmtree(test.path)
        except OSError as error:
            raise StorageError(explain_os_error(error, f"remove '{test.path}'")) from error


def _refuse_hopeless(status: JobStatus, round_index: int, *, is_last_try: bool) -> None:
    """Raise for a failure that another try cannot mend: all but sudden deaths."""
    if status.exit_code == StorageError.exit_code:
        raise StorageError(_explain(status, round_index))
    if is_last_try or 1 < status.exit_code < 128:
        raise WorkerError(_explain(status, round_index))


def _explain(status: JobStatus, round_index: int) -> str:
    return (
        f"the validation after round {round_index} failed ({status.job.name}: {status.problem}); "
        "mend that and continue with mgrl resume, or leave it out with another run"
    )
