"""A study from its plan to the end of its last run, or to a signal: what `matrix` and others share.

Knows nothing of tables, nor of how progress is shown.
"""

import signal
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import final

from envs.preflight import check_environment
from envs.quiet import quiet_libraries
from envs.registry import make
from mgrl_cli.errors import Interrupted, MgrlError, WorkerError
from mgrl_cli.studies.directory import StudyDirectory
from mgrl_cli.studies.jobs import Job
from mgrl_cli.studies.queue import JobState, JobStatus, Queue, failures
from mgrl_cli.studies.stop import stop_signal
from mgrl_cli.telemetry import JobSnapshot, StudySnapshot

_FIRST_SIGNAL_CODE = 128
"""From here on exit codes tell of signals, and nobody sent one to the study."""


@final
class StudyIncomplete(MgrlError):  # noqa: N818 - it names what the study is
    """Some runs of a study failed; carries the exit code of the first that did.

    A run that was killed from outside counts as a worker that was.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def check_environments(names: Iterable[str], say: Callable[[str], None]) -> None:
    """Play every environment for a moment, before the first run.

    Raises:
        EnvironmentSetupError: unknown environment, missing extra or unsupported spaces.
        EnvironmentFailure: it raised.
    """
    with quiet_libraries():
        for name in names:
            for warning in check_environment(partial(make, name)):
                say(warning)


def run_jobs(
    study: StudyDirectory,
    jobs: Sequence[Job],
    show: Callable[[StudySnapshot], None],
    *,
    workers: int | None,
) -> list[JobStatus]:
    """Run what is left to do of a study, and return what became of each job.

    Args:
        study: its directory, opened.
        jobs: in their order.
        show: told how it goes, about twice a second.
        workers: worker processes at the same time; None: one per usable core.

    Raises:
        Interrupted: a signal ended the study; every run that had begun is saved, but for those
            that it names.
        StorageError: the operating system refused.
    """
    queue = Queue(jobs, study.log, workers=workers)
    how = f"continue with: mgrl {study.kind} --resume {study.path}"
    pace = Pace(queue.statuses, time.monotonic())
    with stop_signal(how) as received:
        queue.execute(
            lambda statuses: show(pace.snapshot(study, statuses, time.monotonic())), received
        )
        number = received()
    if number is not None and not queue.is_finished:
        raise interruption(queue.statuses, number, how)
    return queue.statuses


def interruption(statuses: Sequence[JobStatus], number: int, how: str) -> Interrupted:
    """Return what to say of a study that a signal ended.

    Args:
        statuses: of its jobs, all of them at rest.
        number: of the signal.
        how: the study goes on.
    """
    done = sum(status.state is JobState.FINISHED for status in statuses)
    failed = [
        f"{status.job.name} ({status.problem})"
        for status in statuses
        if status.state is JobState.FAILED
    ]
    kept = f"failed: {', '.join(failed)}" if failed else "all that had begun is saved"
    return Interrupted(
        f"{signal.Signals(number).name} ended the study after {done} of {len(statuses)} runs, "
        f"{kept}; {how}",
        number,
    )


def raise_failures(study: StudyDirectory, statuses: Sequence[JobStatus]) -> None:
    """Say that some runs failed, if any did.

    Raises:
        StudyIncomplete: some did.
    """
    lost = failures(statuses)
    codes = [status.exit_code for status in lost.values() if status.state is JobState.FAILED]
    if codes:
        raise StudyIncomplete(
            f"{len(lost)} of {len(statuses)} runs have no result: {', '.join(lost)}; mend what is "
            f"wrong, then try them again with: mgrl {study.kind} --resume {study.path}",
            codes[0] if codes[0] < _FIRST_SIGNAL_CODE else WorkerError.exit_code,
        )


@final
class Pace:
    """How far a study is and how long it will take, by the env steps its runs make."""

    def __init__(self, statuses: Sequence[JobStatus], now_s: float) -> None:
        """Begin to count at `now_s`, on any clock that only goes forward."""
        self._started_s = now_s
        self._before = _work_done(statuses)

    def snapshot(
        self, study: StudyDirectory, statuses: Sequence[JobStatus], now_s: float
    ) -> StudySnapshot:
        """Return the study as it is to be shown.

        The time left takes all env steps to be equally dear, and what has failed to cost nothing.
        """
        elapsed_s = now_s - self._started_s
        done = _work_done(statuses)
        lost = failures(statuses)
        left = sum(
            status.job.agent_steps * (1.0 - status.fraction)
            for status in statuses
            if status.job.name not in lost
        )
        made = done - self._before
        total = sum(status.job.agent_steps for status in statuses)
        return StudySnapshot(
            name=study.path.name,
            kind=study.kind,
            jobs=tuple(
                JobSnapshot(
                    name=status.job.name,
                    state=status.state.value,
                    fraction=status.fraction,
                    problem=status.problem,
                )
                for status in statuses
            ),
            fraction=done / total if total else 1.0,
            elapsed_s=elapsed_s,
            eta_s=left * elapsed_s / made if made > 0 else float("nan"),
        )


def _work_done(statuses: Sequence[JobStatus]) -> float:
    return sum(status.job.agent_steps * status.fraction for status in statuses)
