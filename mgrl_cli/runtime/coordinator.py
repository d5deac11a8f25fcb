"""The coordinator: spawns workers, watches them, keeps the run directory, shows progress.

It never takes part in a meta-step. Workers report at round ends; for a population in lock-step the
coordinator then has the objective to itself, saves it, and lets everyone go on.
"""

import math
import os
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from types import FrameType
from typing import Protocol, final

from torch import Tensor

from mgrl_cli.agents.population import AgentSpec
from mgrl_cli.algorithm.objective_network import ObjectiveShape
from mgrl_cli.config import RunConfig
from mgrl_cli.errors import DivergedError, Interrupted, MgrlError, WorkerError
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.runtime.board import StatusBoard
from mgrl_cli.runtime.channel import (
    STOP_SIGNALS,
    WorkerFailure,
    WorkerHandle,
    start_resource_tracker,
    stop_signals_held_back,
)
from mgrl_cli.runtime.exchange import Exchange
from mgrl_cli.runtime.recorder import Recorder
from mgrl_cli.runtime.stop import StopRequest
from mgrl_cli.runtime.worker import RoundReport, Worker, WorkerPlan, prepare_torch
from mgrl_cli.telemetry import ObjectiveSnapshot, RunSnapshot

_POLL_S = 0.25
_BARREN_MEETINGS_TO_DIVERGE = 200
"""Meta-steps in a row without one finite gradient after which a run has diverged."""


class Progress(Protocol):
    """What shows a run while it goes on."""

    def update(self, snapshot: RunSnapshot) -> None:
        """Show a moment."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """A run about to start."""

    config: RunConfig
    run: RunDirectory
    specs: Sequence[AgentSpec]
    shape: ObjectiveShape
    objective_params: Mapping[int, Tensor]
    """Frozen parameters of each agent; empty where α is meta-learned from `initial_params`."""
    initial_params: Tensor | None
    """α to start meta-training from; None where the objective is frozen."""
    workers: int
    """Processes; 0 runs everything in this one."""


@final
class Coordinator:
    """Runs one plan to its end, or to a signal's."""

    def __init__(self, plan: RunPlan, progress: Progress) -> None:
        """Allocate what the workers share."""
        self._plan = plan
        self._progress = progress
        self._num_workers = min(plan.workers, len(plan.specs))
        if self._num_workers > 0:
            start_resource_tracker()
        self._stop = StopRequest()
        self._board = StatusBoard(len(plan.specs))
        self._exchange: Exchange | None = None
        if plan.initial_params is not None:
            self._exchange = Exchange(
                plan.initial_params,
                len(plan.specs),
                learning_rate=plan.config.objective.learning_rate,
                num_workers=self._num_workers,
                stop=self._stop,
            )
        self._recorder = Recorder(plan.run, plan.config, plan.shape, plan.specs)
        self._started_s = time.monotonic()
        self._signal: int | None = None
        self._handles: list[WorkerHandle] = []

    def execute(self) -> None:
        """Run every round of every agent.

        Raises:
            WorkerError: an environment or worker failed.
            DivergedError: no finite meta-gradient any more.
            StorageError: the run directory could not be written.
            Interrupted: a signal ended the run; what was finished is saved.
        """
        with self._signals_ask_to_stop(), self._recorder:
            if self._exchange is not None:
                self._recorder.save_objective(self._exchange.params, self._exchange.status)
            if self._num_workers == 0:
                self._run_here()
            else:
                self._run_in_processes()
            self._progress.update(self._snapshot())
        is_complete = self._recorder.finished_rounds == self._plan.config.num_rounds
        if self._signal is not None and not is_complete:
            raise Interrupted(
                f"{signal.Signals(self._signal).name} ended the run after round "
                f"{self._recorder.finished_rounds} of {self._plan.config.num_rounds}; "
                f"objective, replay and metrics are in '{self._plan.run.path}'",
                self._signal,
            )

    def _worker_plan(self, specs: Sequence[AgentSpec]) -> WorkerPlan:
        params = self._plan.objective_params
        if self._exchange is not None:
            params = {spec.agent_id: self._exchange.params for spec in specs}
        return WorkerPlan(
            config=self._plan.config,
            run=replace(self._plan.run, path=self._plan.run.path.resolve()),
            specs=tuple(specs),
            shape=self._plan.shape,
            objective_params={spec.agent_id: params[spec.agent_id] for spec in specs},
            exchange=self._exchange,
            board=self._board,
            stop=self._stop,
        )

    def _run_here(self) -> None:
        """Run all agents in this process: the serial twin, with identical results."""
        prepare_torch()

        def end_round(report: RoundReport) -> bool:
            self._record(report)
            self._progress.update(self._snapshot())
            return not self._stop.is_requested

        Worker(self._worker_plan(self._plan.specs)).run(end_round)

    def _run_in_processes(self) -> None:
        # Workers are single-threaded; set before they import torch, whose pools read it once.
        os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
        with ExitStack() as stack:
            for number in range(self._num_workers):
                specs = self._plan.specs[number :: self._num_workers]
                with stop_signals_held_back():
                    handle = WorkerHandle(number, self._worker_plan(specs))
                    self._handles.append(handle)
                    stack.callback(handle.kill)
            while not all(handle.is_finished for handle in self._handles):
                self._serve()
                self._progress.update(self._snapshot())

    def _serve(self) -> None:
        """Handle what workers have said within the next moment."""
        waiting = [handle for handle in self._handles if not handle.is_finished]
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
                    raise WorkerError(handle.epitaph())
                self._receive(handle)

    def _receive(self, handle: WorkerHandle) -> None:
        try:
            message = handle.connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerError(handle.epitaph()) from error
        if message is None:
            handle.is_finished = True
        elif isinstance(message, WorkerFailure):
            raise _as_error(message, handle)
        else:
            self._answer(handle, message)

    def _answer(self, handle: WorkerHandle, report: RoundReport) -> None:
        """Reply to a report; a population in lock-step waits for its slowest member."""
        is_round_complete = self._record(report)
        proceed = not self._stop.is_requested
        if self._exchange is None:
            handle.reply(proceed)
        elif is_round_complete:
            self._progress.update(self._snapshot())  # of the round's end: nobody plays on yet
            for each in self._handles:
                each.reply(proceed)

    def _record(self, report: RoundReport) -> bool:
        """Record a report, and the round if it was the last one missing; return whether it was."""
        self._recorder.record(report, elapsed_s=time.monotonic() - self._started_s)
        if not self._recorder.is_complete(report.round_index):
            return False
        status = self._exchange.status if self._exchange is not None else None
        self._recorder.finish_round(report.round_index, status)
        if self._exchange is not None and status is not None:
            self._recorder.save_objective(self._exchange.params, status)
            if status.barren_meetings >= _BARREN_MEETINGS_TO_DIVERGE:
                raise DivergedError(
                    f"no agent has had a finite meta-gradient for {status.barren_meetings} "
                    f"meta-steps; the last objective is '{self._plan.run.objective}', "
                    "try a smaller --set objective.learning_rate or meta.inner_step_size"
                )
        return True

    def _snapshot(self) -> RunSnapshot:
        config = self._plan.config
        agents = tuple(self._board.read(spec) for spec in self._plan.specs)
        elapsed_s = time.monotonic() - self._started_s
        steps = sum(agent.env_steps for agent in agents)
        rate = steps / elapsed_s if elapsed_s > 0 else 0.0
        remaining = max(0, config.steps * len(agents) - steps)
        objective = None
        if self._exchange is not None:
            status = self._exchange.status
            gains = [agent.gain for agent in agents if not math.isnan(agent.gain)]
            objective = ObjectiveSnapshot(
                version=status.version,
                parameter_norm=float(self._exchange.params.norm()),
                gradient_norm=status.gradient_norm,
                gain=sum(gains) / len(gains) if gains else math.nan,
            )
        return RunSnapshot(
            name=self._plan.run.name,
            kind=config.kind,
            agents=agents,
            objective=objective,
            round_index=self._recorder.finished_rounds,
            num_rounds=config.num_rounds,
            steps_per_agent=config.steps,
            elapsed_s=elapsed_s,
            agent_steps_per_s=rate,
            eta_s=remaining / rate if rate > 0 else math.nan,
            saved_rounds=self._recorder.finished_rounds,
        )

    @contextmanager
    def _signals_ask_to_stop(self) -> Generator[None]:
        """First signal: finish the meta-step, save and leave. Second: leave at once."""

        def handle(number: int, _frame: FrameType | None) -> None:
            if self._signal is not None:
                raise Interrupted("stopped at once; the round in progress is not saved", number)
            self._signal = number
            self._stop.request()

        numbers = set(STOP_SIGNALS)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup: to outlive the terminal
            numbers.remove(signal.SIGHUP)
        previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {
            number: signal.signal(number, handle) for number in numbers
        }
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _as_error(failure: WorkerFailure, handle: WorkerHandle) -> MgrlError:
    """Return a worker's failure as the coordinator's own, traceback attached for --debug."""
    kinds = {kind.exit_code: kind for kind in MgrlError.__subclasses__() if kind is not Interrupted}
    kind = kinds.get(failure.exit_code, MgrlError)
    error = kind(f"{failure.message}; worker log: {handle.log}")
    error.add_note(failure.details)
    return error
