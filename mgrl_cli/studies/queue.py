"""Executes the jobs of a study: a few at a time, in order, each once, stopping in good order.

Every job is a process of its own that keeps its run safe itself, so the queue keeps nothing: what
is finished on disk is skipped, what has been saved is resumed. Knows nothing of what jobs are for.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import final

from mgrl_cli.cores import usable_cores
from mgrl_cli.errors import StorageError
from mgrl_cli.run_dir.atomic import create_directory, explain_os_error
from mgrl_cli.studies.child import Child
from mgrl_cli.studies.jobs import (
    Job,
    command_of,
    forget_unsaved,
    fraction_of,
    has_settings,
    is_finished,
)

_LOOK_INTERVAL_S = 0.1
_SHOW_INTERVAL_S = 0.5


class JobState(StrEnum):
    """What has become of a job; the words are shown."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    """Its run was saved and can be continued."""
    FAILED = "failed"
    BLOCKED = "blocked"
    """A job it needs has failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobStatus:
    """A job at one moment."""

    job: Job
    state: JobState
    fraction: float
    """How much of it is made, in [0, 1]."""
    was_finished: bool
    """True where there was nothing to do."""
    exit_code: int = 0
    """Of a job that failed."""
    problem: str = ""
    """Why it failed or is blocked, on one line."""


Show = Callable[[Sequence[JobStatus]], None]
"""Told of all jobs, in their order, about twice a second and whenever one changes its state."""


@final
class Queue:
    """The jobs of one study."""

    def __init__(
        self,
        jobs: Sequence[Job],
        log_dir: Path,
        *,
        workers: int | None = None,
        is_warm: bool = False,
    ) -> None:
        """Look at what is finished; start nothing.

        Args:
            jobs: in the order in which they are to run; none needs one that comes after it.
            log_dir: made if need be; what a job prints goes to NAME.log in it.
            workers: worker processes at the same time, over all jobs; None: one per usable core.
            is_warm: True where kernels are known to be compiled, so that nobody waits for a first.

        Raises:
            StorageError: the operating system refused to tell.
        """
        self._jobs = {job.name: job for job in jobs}
        self._log_dir = log_dir
        self.workers = usable_cores() if workers is None else workers
        """Worker processes at the same time."""
        self._children: dict[str, Child] = {}
        self._taken: dict[str, int] = {}
        """Workers that each running job has."""
        self._sent: int | None = None
        done = {job.name for job in jobs if is_finished(job)}
        self._is_warm = is_warm or bool(done)
        """True once a job has come past loading and compiling, which others then need not do."""
        self._statuses = {
            job.name: JobStatus(
                job=job,
                state=JobState.FINISHED if job.name in done else JobState.WAITING,
                fraction=1.0 if job.name in done else fraction_of(job),
                was_finished=job.name in done,
            )
            for job in jobs
        }

    @property
    def statuses(self) -> list[JobStatus]:
        """All jobs as they are now, in their order."""
        return list(self._statuses.values())

    @property
    def is_finished(self) -> bool:
        """True where every job has finished."""
        return all(status.state is JobState.FINISHED for status in self.statuses)

    def execute(self, show: Show, stop_signal: Callable[[], int | None]) -> None:
        """Run until every job has finished, failed or is blocked, or until a signal asks to stop.

        A failed job does not stop others. When asked to stop, passes the signal on, once, starts
        nothing more and waits until every job has saved its run and ended. Should anything be
        raised here, such as by a second signal's handler, all jobs are killed before it goes on.

        Args:
            show: told how it goes.
            stop_signal: None as long as nobody asks to stop, then the number of the signal.

        Raises:
            StorageError: the operating system starts no process.
        """
        shown_at_s = -_SHOW_INTERVAL_S
        try:
            while True:
                stopping = stop_signal()
                has_changed = self._reap(stopping)
                if stopping is None:
                    has_changed |= self._start_ready()
                elif self._sent is None:
                    self._sent = stopping
                    for child in self._children.values():
                        child.send(stopping)
                if has_changed or time.monotonic() - shown_at_s >= _SHOW_INTERVAL_S:
                    self._look()
                    show(self.statuses)
                    shown_at_s = time.monotonic()
                if not self._children:
                    return
                time.sleep(_LOOK_INTERVAL_S)
        finally:
            for child in self._children.values():
                child.kill()

    def _start_ready(self) -> bool:
        """Start what may start; block what never will. Return whether anything changed."""
        before = self._statuses.copy()
        for job in self._jobs.values():
            if self._statuses[job.name].state is JobState.WAITING:
                self._block_if_hopeless(job)
        ready = [job for job in self._jobs.values() if self._is_ready(job)]
        for index, job in enumerate(ready):
            free = self.workers - sum(self._taken.values())
            if free <= 0 or not self._may_start():
                break
            # Cores that no other job could use go to this one.
            self._start(job, max(1, min(job.agents, free // (len(ready) - index))))
        return self._statuses != before

    def _may_start(self) -> bool:
        """The first job starts alone: it compiles, on a new machine, what all will load."""
        if not self._is_warm and self._children:
            self._is_warm = any(has_settings(self._jobs[name]) for name in self._children)
        return self._is_warm or not self._children

    def _is_ready(self, job: Job) -> bool:
        return self._statuses[job.name].state is JobState.WAITING and all(
            self._statuses[need].state is JobState.FINISHED for need in job.needs
        )

    def _block_if_hopeless(self, job: Job) -> None:
        for need in job.needs:
            if self._statuses[need].state in (JobState.FAILED, JobState.BLOCKED):
                self._set(job, JobState.BLOCKED, problem=f"needs {need}, which has not finished")

    def _start(self, job: Job, workers: int) -> None:
        try:
            create_directory(self._log_dir)
            create_directory(job.run.parent)
        except OSError as error:
            raise StorageError(explain_os_error(error, f"begin '{job.run}'")) from error
        forget_unsaved(job)
        log = self._log_dir / f"{job.name}.log"
        self._children[job.name] = Child(command_of(job, workers), log)
        self._taken[job.name] = workers
        self._set(job, JobState.RUNNING)

    def _reap(self, stopping: int | None) -> bool:
        """Take note of jobs that have ended; return whether any has."""
        ended = {
            name: code
            for name, child in self._children.items()
            if (code := child.poll()) is not None
        }
        for name, code in ended.items():
            child, job = self._children.pop(name), self._jobs[name]
            del self._taken[name]
            self._is_warm = True
            if code == 0:
                self._set(job, JobState.FINISHED)
            elif stopping is not None and code == 128 + stopping:
                # Or it was on its way out when the signal came.
                self._set(job, JobState.FINISHED if is_finished(job) else JobState.STOPPED)
            else:
                said = child.last_words() or "it said nothing"
                problem = f"exit code {code}: {said} (log: {child.log})"
                self._set(job, JobState.FAILED, exit_code=code, problem=problem)
        return bool(ended)

    def _look(self) -> None:
        for name in self._children:
            self._set(self._jobs[name], JobState.RUNNING)

    def _set(self, job: Job, state: JobState, *, exit_code: int = 0, problem: str = "") -> None:
        self._statuses[job.name] = JobStatus(
            job=job,
            state=state,
            fraction=1.0 if state is JobState.FINISHED else fraction_of(job),
            was_finished=False,
            exit_code=exit_code,
            problem=problem,
        )


def failures(statuses: Sequence[JobStatus]) -> Mapping[str, JobStatus]:
    """Return the jobs that failed or are blocked, by name, in their order."""
    lost = (JobState.FAILED, JobState.BLOCKED)
    return {status.job.name: status for status in statuses if status.state in lost}
