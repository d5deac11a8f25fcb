"""One start of all workers: what they share, and what happens whenever all of them rest.

A generation begins at a checkpoint, or at the very beginning, and ends with the run, with a stop or
with the death of a worker; then the next one begins at the newest checkpoint. Knows nothing of
processes: the serial twin uses it just the same.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, final

from torch import Tensor

from mgrl_cli.agents.health import DIVERGED
from mgrl_cli.agents.population import AgentSpec
from mgrl_cli.algorithm.objective_network import ObjectiveShape
from mgrl_cli.config import RunConfig
from mgrl_cli.errors import DivergedError, MgrlError, WorkerError
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.run_dir.build import this_build
from mgrl_cli.run_dir.checkpoints import (
    Checkpoint,
    CheckpointStore,
    best_of,
    newest_manifest,
    write_part,
)
from mgrl_cli.run_dir.file_record import FileRecord, record_of_file
from mgrl_cli.run_dir.layout import RunDirectory, agent_name
from mgrl_cli.run_dir.manifest import EXCHANGE_NAME, OBJECTIVE_NAME, Manifest, ReplayRecord
from mgrl_cli.run_dir.settings import settings_sha256
from mgrl_cli.run_dir.tensor_file import check_tensors, read_tensor_file, tensor_file_bytes
from mgrl_cli.runtime.exchange import Exchange
from mgrl_cli.runtime.messages import Order, Report, Saved
from mgrl_cli.runtime.recorder import Recorder
from mgrl_cli.runtime.stop import StopRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """A run: what it is made of, wherever it stands."""

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
@dataclass(frozen=True, kw_only=True, slots=True)
class _Draft:
    """The coordinator's part of a checkpoint, as it was when the workers were told to save."""

    staging: Path
    rounds: int
    updates: int
    parts: Mapping[str, bytes]
    metrics: dict[str, FileRecord]
    barren_meetings: int


@final
class Generation:
    """Takes the reports of workers at rest, keeps the run directory, gives orders."""

    def __init__(
        self,
        plan: RunPlan,
        start: Checkpoint | None,
        stop: StopRequest,
        quarantined: Mapping[int, str],
        announce: Callable[[str], None],
    ) -> None:
        """Set up what the workers share, as the checkpoint has it, and cut the run back to it.

        Args:
            plan: the run.
            start: where to continue from; None: at the beginning.
            stop: the request to end early.
            quarantined: agents to leave out, and why, besides those that the checkpoint names.
            announce: told what is out of the ordinary, in one line.

        Raises:
            FileError: the run is not what the checkpoint recorded.
            StorageError: the operating system refused.
        """
        config, manifest = plan.config, start.manifest if start is not None else None
        self._plan = plan
        self._stop = stop
        self._announce = announce
        self._store = CheckpointStore(plan.run, keep=config.checkpoints.keep)
        self._started_s = time.monotonic()
        self._elapsed_before_s = manifest.elapsed_s if manifest is not None else 0.0
        self.quarantined = dict(manifest.quarantined) if manifest is not None else {}
        self.quarantined |= {agent_name(agent): why for agent, why in quarantined.items()}
        self.specs = [
            spec for spec in plan.specs if agent_name(spec.agent_id) not in self.quarantined
        ]
        self._left_replay: dict[str, ReplayRecord] = {
            name: record
            for name, record in (manifest.replay.items() if manifest is not None else ())
            if name in self.quarantined
        }
        self.num_workers = min(plan.workers, len(self.specs))
        self.exchange: Exchange | None = None
        if plan.initial_params is not None:
            self.exchange = Exchange(
                plan.initial_params,
                len(plan.specs),
                learning_rate=config.objective.learning_rate,
                num_workers=self.num_workers,
                stop=stop,
            )
            if start is not None:
                _restore_exchange(self.exchange, start)
        self._recorder = Recorder(plan.run, config, plan.shape, plan.specs, start)
        self.rounds = manifest.rounds if manifest is not None else 0
        """Rounds finished by everyone."""
        self.saved = start
        """The newest checkpoint."""
        self.has_saved = False
        """True where this generation has made a checkpoint, so that the run has moved on."""
        self._saved_at_s = self._started_s
        self._draft: _Draft | None = None

    def __enter__(self) -> Self:
        """Start."""
        self._recorder.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Close what is open."""
        self._recorder.__exit__()

    @property
    def elapsed_s(self) -> float:
        """Wall time of the run up to now, interruptions left out."""
        return self._elapsed_before_s + time.monotonic() - self._started_s

    def order(self, reports: Sequence[Report]) -> Order:
        """Take the reports of all workers, all of them at rest, and return what they do next.

        Raises:
            DivergedError: the last agent has diverged.
            WorkerError: the last agent has been taken out for another reason.
            StorageError: the operating system refused.
        """
        rounds = min(report.rounds for report in reports)
        is_interrupted = any(report.is_interrupted for report in reports)
        if rounds > self.rounds:
            self._end_round(rounds, reports)
        elif is_interrupted and self.exchange is not None:
            status = self.exchange.status
            objective = self._recorder.objective(self.exchange.params, status, rounds)
            self._recorder.save_objective(objective, finished_round=None)
        stops = is_interrupted or self._stop.is_requested or rounds == self._plan.config.num_rounds
        updates = max(report.updates for report in reports)
        if self._is_due((rounds, updates), stops):
            self._draft = self._make_draft(rounds, updates)
        staging = self._draft.staging if self._draft is not None else None
        return Order(rounds=rounds, save_to=staging, proceed=not stops)

    def commit(self, saved: Sequence[Saved]) -> None:
        """Complete the checkpoint that all workers have written their agents to.

        Raises:
            StorageError: the operating system refused; earlier checkpoints are untouched.
        """
        draft = self._draft
        if draft is None:
            raise MgrlError("internal error: agents were saved without an order")
        files = {name: write_part(draft.staging, name, part) for name, part in draft.parts.items()}
        evaluations: dict[str, float] = {}
        replay = dict(self._left_replay)
        for each in saved:
            files |= each.files
            replay |= each.replay
            evaluations |= each.evaluations
        manifest = Manifest(
            kind=self._plan.config.kind,
            rounds=draft.rounds,
            updates=draft.updates,
            elapsed_s=self.elapsed_s,
            settings_sha256=settings_sha256(self._plan.config),
            build=this_build(),
            files=files,
            config=record_of_file(self._plan.run.config),
            metrics=draft.metrics,
            replay=replay,
            quarantined=self.quarantined,
            barren_meetings=draft.barren_meetings,
            evaluations=evaluations,
            best="",
        )
        incumbent = self.saved.manifest.best if self.saved is not None else ""
        best = best_of(manifest, self._plan.run, incumbent)
        self.saved = self._store.commit(draft.staging, manifest.model_copy(update={"best": best}))
        self.has_saved = True
        self._saved_at_s = time.monotonic()
        self._draft = None

    def _end_round(self, rounds: int, reports: Sequence[Report]) -> None:
        rows = [row for report in reports for row in report.rows]
        status = self.exchange.status if self.exchange is not None else None
        self._recorder.record_round(rounds, rows, status, self.elapsed_s)
        if self.exchange is not None and status is not None:
            objective = self._recorder.objective(self.exchange.params, status, rounds)
            self._recorder.save_objective(objective, finished_round=rounds)
        self.rounds = rounds
        for report in reports:
            for agent_id, departure in report.departures.items():
                self.quarantined[agent_name(agent_id)] = departure.reason
                self._left_replay[agent_name(agent_id)] = departure.replay
                self._announce(f"{agent_name(agent_id)} left the population: {departure.reason}")
        if len(self.quarantined) == len(self._plan.specs):
            raise nobody_left(self.quarantined, self._plan.run)

    def _is_due(self, position: tuple[int, int], stops: bool) -> bool:
        if self.saved is None:
            return True
        waited_s = time.monotonic() - self._saved_at_s
        is_time = stops or waited_s >= self._plan.config.checkpoints.interval_s
        return is_time and position != self.saved.manifest.position

    def _make_draft(self, rounds: int, updates: int) -> _Draft:
        """Note everything of the coordinator's that changes once the workers go on."""
        parts: dict[str, bytes] = {}
        barren_meetings = 0
        if self.exchange is None:
            parts[OBJECTIVE_NAME] = self._plan.run.objective.read_bytes()
        else:
            status = self.exchange.status
            barren_meetings = status.barren_meetings
            objective = self._recorder.objective(self.exchange.params, status, rounds)
            parts[OBJECTIVE_NAME] = objective.to_bytes()
            parts[EXCHANGE_NAME] = tensor_file_bytes(
                _exchange_tensors(self.exchange), {"format": "mgrl-exchange"}
            )
        return _Draft(
            staging=self._store.stage().resolve(),  # workers have another working directory
            rounds=rounds,
            updates=updates,
            parts=parts,
            metrics=self._recorder.metrics(),
            barren_meetings=barren_meetings,
        )


def nobody_left(quarantined: Mapping[str, str], run: RunDirectory) -> MgrlError:
    """Return the error for a population without agents."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(quarantined.items())[:3])
    if any(reason.startswith(DIVERGED) for reason in quarantined.values()):
        good = newest_manifest(run, lambda manifest: manifest.barren_meetings == 0)
        where = run.checkpoints / good.name if good is not None else None
        named = f"; the last good checkpoint is '{where}'" if where is not None else ""
        return DivergedError(
            f"training diverged, no agent is left ({reasons}){named}; "
            "try a smaller --set objective.learning_rate or meta.inner_step_size"
        )
    return WorkerError(f"no agent is left ({reasons}); see '{run.logs}'")


def _exchange_tensors(exchange: Exchange) -> dict[str, Tensor]:
    """Return what of the exchange is not in the objective's own file."""
    return {name: tensor for name, tensor in exchange.tensors().items() if name != "params"}


def _restore_exchange(exchange: Exchange, start: Checkpoint) -> None:
    what = "exchange of a checkpoint"
    own = _exchange_tensors(exchange)
    path = start.path / EXCHANGE_NAME
    _, tensors = read_tensor_file(path, what=what, max_bytes=2**30)
    check_tensors(
        path,
        tensors,
        {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in own.items()},
        what=what,
    )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])
    exchange.params.copy_(LearnedObjective.load(start.path / OBJECTIVE_NAME).params)
