"""The coordinator: starts generations of workers until the run is over, shows progress, stops.

It never takes part in a meta-step. When a worker is lost, everyone goes back to the newest
checkpoint together, so what comes out is what would have come out without the loss; an agent whose
worker is lost again and again is left out.
"""

import math
import shutil
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, final

from mgrl_cli.agents.population import AgentSpec
from mgrl_cli.errors import Interrupted, StorageError
from mgrl_cli.run_dir.checkpoints import Checkpoint
from mgrl_cli.run_dir.layout import agent_name
from mgrl_cli.run_dir.validations import WORKER_LOST, early_end
from mgrl_cli.runtime.board import StatusBoard
from mgrl_cli.runtime.crew import Crew, WorkerLost
from mgrl_cli.runtime.generation import Generation, nobody_left
from mgrl_cli.runtime.messages import Order, Report, Saved
from mgrl_cli.runtime.plan import RunPlan
from mgrl_cli.runtime.pulse import PulseBoard, Watchdog
from mgrl_cli.runtime.recorder import record_event
from mgrl_cli.runtime.stop import StopRequest
from mgrl_cli.runtime.worker import Worker, WorkerPlan, prepared_torch
from mgrl_cli.stop_signals import stop_signals_heard
from mgrl_cli.telemetry import AgentSnapshot, AgentState, ObjectiveSnapshot, RunSnapshot


class Progress(Protocol):
    """What shows a run while it goes on."""

    def update(self, snapshot: RunSnapshot) -> None:
        """Show a moment."""
        ...

    def announce(self, event: str) -> None:
        """Show one line about something out of the ordinary."""
        ...


@final
class Coordinator:
    """Runs one plan to its end, or to a signal's. The run must be locked."""

    def __init__(self, plan: RunPlan, progress: Progress, start: Checkpoint | None = None) -> None:
        """Prepare to run.

        Args:
            plan: the run.
            progress: what shows it.
            start: the newest checkpoint; None: the run begins.
        """
        self._plan = plan
        self._progress = progress
        self._start = start
        self._stop = StopRequest()
        self._board = StatusBoard(len(plan.specs))
        self._signal: int | None = None
        self._restarts = 0
        self._losses: Counter[int] = Counter()
        """Losses each agent has caused since the last checkpoint."""
        self._quarantined: dict[int, str] = {}
        """Agents left out because of such losses, and why."""

    def execute(self) -> None:
        """Run every round of every agent.

        Raises:
            WorkerError: no agent is left.
            DivergedError: no agent is left that has finite gradients.
            FileError: what is on disk is not what the checkpoint recorded.
            StorageError: the run directory could not be written.
            Interrupted: a signal ended the run; what was finished is saved.
        """
        with stop_signals_heard(self._hear_signal):
            while not self._run_generation():
                pass
        config, rounds, is_final = self._plan.config, 0, False
        if self._start is not None:  # else stopped while its first workers were starting
            manifest = self._start.manifest
            rounds, is_final = manifest.rounds, manifest.is_final(config)
            for name, reason in manifest.quarantined.items():
                self._progress.announce(f"went on without {name}: {reason}")
            if reason := early_end(manifest, config):
                self._announce(reason)
        if self._signal is not None and not is_final:
            raise Interrupted(
                f"{signal.Signals(self._signal).name} ended the run after round {rounds} "
                f"of {config.num_rounds}; {self._how_to_continue()}",
                self._signal,
            )

    def _run_generation(self) -> bool:
        """Run from the newest checkpoint on; return False where a worker was lost on the way."""
        if self._start is None:
            # What an attempt left that died before its first checkpoint.
            shutil.rmtree(self._plan.run.buffer, ignore_errors=True)
        try:
            with Generation(
                self._plan, self._start, self._stop, self._quarantined, self._announce
            ) as generation:
                try:
                    self._run_workers(generation)
                finally:
                    self._start = generation.saved
                    if generation.has_saved:
                        self._losses.clear()
        except WorkerLost as loss:
            self._answer_loss(loss)
            return False
        except StorageError as error:
            raise StorageError(f"{str(error).rstrip('.')}; {self._how_to_continue()}") from error
        return True

    def _run_workers(self, generation: Generation) -> None:
        first_agents = generation.specs[: max(1, generation.num_workers)]  # see `_worker_plan`
        pulses = PulseBoard([spec.agent_id for spec in first_agents])
        if generation.num_workers == 0:
            self._run_here(generation, pulses)
            return
        timeout_s = self._plan.config.supervision.hang_timeout_s
        watchdog = Watchdog(pulses, timeout_s)
        plans = [
            self._worker_plan(generation, pulses, number)
            for number in range(generation.num_workers)
        ]
        Crew(generation, watchdog, self._stop, lambda: self._show(generation)).run(plans)

    def _run_here(self, generation: Generation, pulses: PulseBoard) -> None:
        """Run all agents in this process: the serial twin, with identical results."""

        def ask(report: Report) -> Order:
            order = generation.order([report], lambda: self._show(generation))
            self._show(generation)
            return order

        def hand_in(saved: Saved) -> None:
            generation.commit([saved])

        with prepared_torch():
            Worker(self._worker_plan(generation, pulses, 0)).run(ask, hand_in)
        self._show(generation)

    def _worker_plan(self, generation: Generation, pulses: PulseBoard, number: int) -> WorkerPlan:
        specs = generation.specs[number :: max(1, generation.num_workers)]
        start = self._start
        if start is not None:  # workers have another working directory
            start = replace(start, path=start.path.resolve())
        return WorkerPlan(
            number=number,
            config=self._plan.config,
            run=replace(self._plan.run, path=self._plan.run.path.resolve()),
            specs=tuple(specs),
            shape=self._plan.shape,
            objective_params={
                spec.agent_id: self._plan.objective_params[spec.agent_id]
                for spec in specs
                if generation.exchange is None
            },
            exchange=generation.exchange,
            checkpoint=start,
            board=self._board,
            pulses=pulses,
            stop=self._stop,
        )

    def _answer_loss(self, loss: WorkerLost) -> None:
        """Count the loss; leave its agent out from now on if it was one too many."""
        limit = self._plan.config.supervision.max_restarts
        self._losses[loss.agent_id] += 1
        losses = self._losses[loss.agent_id]
        self._restarts += 1
        where = "the beginning" if self._start is None else self._start.path.name
        if losses <= limit:
            self._announce(f"{loss}; everyone goes on from {where} (restart {losses} of {limit})")
            return
        reason = f"{WORKER_LOST} {losses} times in a row, the last time: {loss}"
        self._quarantined[loss.agent_id] = reason
        self._announce(
            f"{agent_name(loss.agent_id)} is left out: {reason}; the others go on from {where}"
        )
        quarantined = {agent_name(agent): why for agent, why in self._quarantined.items()}
        if self._start is not None:
            quarantined |= self._start.manifest.quarantined
        if len(quarantined) == len(self._plan.specs):
            raise nobody_left(quarantined, self._plan.run)

    def _announce(self, event: str) -> None:
        record_event(self._plan.run, event)
        self._progress.announce(event)

    def _how_to_continue(self) -> str:
        run = self._plan.run
        if self._start is None:
            return f"nothing is saved yet, begin again with: mgrl resume {run.path}"
        return f"saved as {self._start.path.name}, continue with: mgrl resume {run.path}"

    def _show(self, generation: Generation) -> None:
        self._progress.update(self._snapshot(generation))

    def _snapshot(self, generation: Generation) -> RunSnapshot:
        config = self._plan.config
        agents = tuple(self._agent_snapshot(spec, generation) for spec in self._plan.specs)
        elapsed_s = generation.elapsed_s
        steps = sum(agent.env_steps for agent in agents)
        rate = steps / elapsed_s if elapsed_s > 0 else 0.0
        active = [agent for agent in agents if agent.state is not AgentState.QUARANTINED]
        remaining = sum(max(0, config.steps - agent.env_steps) for agent in active)
        saved = generation.saved.manifest.rounds if generation.saved is not None else 0
        return RunSnapshot(
            name=self._plan.run.name,
            kind=config.kind,
            agents=agents,
            objective=_objective_snapshot(generation, agents),
            round_index=generation.rounds,
            num_rounds=config.num_rounds,
            steps_per_agent=config.steps,
            elapsed_s=elapsed_s,
            agent_steps_per_s=rate,
            eta_s=remaining / rate if rate > 0 else math.nan,
            saved_rounds=saved,
            restarts=self._restarts,
            validation=generation.validations.snapshot,
        )

    def _agent_snapshot(self, spec: AgentSpec, generation: Generation) -> AgentSnapshot:
        snapshot = self._board.read(spec)
        if agent_name(spec.agent_id) in generation.quarantined:
            return replace(snapshot, state=AgentState.QUARANTINED)
        return snapshot

    def _hear_signal(self, number: int) -> None:
        """First signal: finish the meta-step, save and leave. Second: leave at once."""
        if self._signal is not None:
            raise Interrupted(f"stopped at once; {self._how_to_continue()}", number)
        self._signal = number
        self._stop.request(number)


def _objective_snapshot(
    generation: Generation, agents: Sequence[AgentSnapshot]
) -> ObjectiveSnapshot | None:
    if generation.exchange is None:
        return None
    status = generation.exchange.status
    gains = [agent.gain for agent in agents if not math.isnan(agent.gain)]
    return ObjectiveSnapshot(
        version=status.version,
        parameter_norm=float(generation.exchange.params.norm()),
        gradient_norm=status.gradient_norm,
        gain=sum(gains) / len(gains) if gains else math.nan,
    )
