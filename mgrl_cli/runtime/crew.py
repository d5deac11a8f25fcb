"""All worker processes of one generation: started together, heard, watched, ended together."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import wait
from typing import final

from mgrl_cli.errors import FileError, MgrlError, StorageError, UsageError, WorkerError
from mgrl_cli.fork_server import start_fork_server, stop_signals_blocked_if_spawned
from mgrl_cli.runtime.channel import WorkerHandle
from mgrl_cli.runtime.generation import Generation
from mgrl_cli.runtime.messages import Report, Saved, WorkerFailure
from mgrl_cli.runtime.pulse import Watchdog
from mgrl_cli.runtime.stop import StopRequest
from mgrl_cli.runtime.worker import WorkerPlan

_POLL_S = 1.0
_FATAL: Sequence[type[MgrlError]] = (UsageError, FileError, WorkerError, StorageError)
"""What a worker reports that no restart can mend."""


class WorkerLost(Exception):  # noqa: N818 - an event to be answered by a restart
    """A worker died, hung or gave up."""

    def __init__(self, cause: str, agent_id: int) -> None:
        """Say how, and for which agent it was working."""
        super().__init__(cause)
        self.agent_id = agent_id


@final
class Crew:
    """Workers that go in lock-step from round end to round end."""

    def __init__(
        self,
        generation: Generation,
        watchdog: Watchdog,
        stop: StopRequest,
        on_tick: Callable[[], None],
    ) -> None:
        """Prepare; `run` starts the processes.

        Args:
            generation: takes the reports.
            watchdog: of these workers.
            stop: the request to end early.
            on_tick: called a few times a second, and whenever all workers rest.
        """
        self._generation = generation
        self._watchdog = watchdog
        self._stop = stop
        self._on_tick = on_tick
        self._handles: list[WorkerHandle] = []
        self._reports: dict[int, Report] = {}
        self._saved: list[Saved] = []
        self._finished: set[int] = set()
        self._has_begun = False
        """True once all workers have been ready, so that there is something to lose."""

    def run(self, plans: Sequence[WorkerPlan]) -> None:
        """Start a process per plan and stay until all have ended, or kill them all.

        Where a stop is asked for while they start, they are not waited for: nothing is lost.

        Args:
            plans: one per worker, numbered from 0.

        Raises:
            WorkerLost: a worker died, hung or gave up.
            MgrlError: what no restart can mend.
        """
        with _refusals_named("the workers' fork server"):
            start_fork_server()
        with ExitStack() as stack:
            for plan in plans:
                if self._stop.is_requested:
                    return
                with stop_signals_blocked_if_spawned(), _refusals_named(f"worker {plan.number}"):
                    handle = _start(plan)
                    self._handles.append(handle)
                    stack.callback(handle.kill)
            looked_s = time.monotonic()
            while len(self._finished) < len(self._handles):
                if self._stop.is_requested and not self._has_begun:
                    return
                self._serve()
                now_s = time.monotonic()
                self._look_for_hanging(now_s - looked_s)
                looked_s = now_s
                self._on_tick()

    def _serve(self) -> None:
        """Handle what workers have said within the next moment."""
        waiting = [handle for handle in self._handles if handle.number not in self._finished]
        ready = wait(
            [*(each.connection for each in waiting), *(each.sentinel for each in waiting)],
            timeout=_POLL_S,
        )
        for handle in waiting:
            if handle.connection in ready:
                self._receive(handle)
            elif handle.sentinel in ready:
                # The worker ended; what it said just before may have arrived since `wait`.
                if not handle.connection.poll():
                    raise self._lost(handle, handle.epitaph())
                self._receive(handle)

    def _receive(self, handle: WorkerHandle) -> None:
        try:
            message = handle.connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost(handle, handle.epitaph()) from error
        match message:
            case None:
                self._finished.add(handle.number)
            case WorkerFailure():
                raise self._failure(handle, message)
            case Saved():
                self._saved.append(message)
                if len(self._saved) == len(self._handles):
                    self._generation.commit(self._saved)
                    self._saved = []
            case _:
                self._watchdog.note_report(handle.number)
                self._reports[handle.number] = message
                if len(self._reports) == len(self._handles):
                    self._give_order()

    def _give_order(self) -> None:
        """Answer the reports of all workers."""
        self._has_begun = True
        reports = [self._reports[each.number] for each in self._handles]
        order = self._generation.order(reports, self._on_tick)
        self._reports.clear()
        self._on_tick()  # of the round's end: nobody plays on yet
        for handle in self._handles:
            handle.reply(order)

    def _look_for_hanging(self, passed_s: float) -> None:
        number = self._watchdog.look(passed_s, self._reports.keys() | self._finished)
        if number is not None:
            handle = self._handles[number]
            raise self._lost(handle, f"{handle.name} hung; its log: {handle.log}")

    def _failure(self, handle: WorkerHandle, failure: WorkerFailure) -> Exception:
        """Return what a worker's failure means here, traceback attached for --debug."""
        for kind in _FATAL:
            if kind.exit_code == failure.exit_code:
                error: Exception = kind(f"{failure.message}; worker log: {handle.log}")
                break
        else:
            error = self._lost(handle, f"{handle.name} failed: {failure.message}")
        error.add_note(failure.details)
        return error

    def _lost(self, handle: WorkerHandle, cause: str) -> WorkerLost:
        return WorkerLost(cause, self._watchdog.agent_of(handle.number))


def _start(plan: WorkerPlan) -> WorkerHandle:
    try:
        return WorkerHandle(plan)
    except (EOFError, ConnectionError) as error:
        cause = f"the fork server died before worker {plan.number} had started"
        raise WorkerLost(cause, plan.specs[0].agent_id) from error


@contextmanager
def _refusals_named(process: str) -> Generator[None]:
    """Say which process the system would not start, and what can be done."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot start {process}: {error.strerror or error}; use fewer --workers or raise the "
            "limit of 'ulimit -n' (open files) or 'ulimit -u' (processes)"
        ) from error
