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

from mgrl_cli.agents.health import DIVERGED
from mgrl_cli.errors import DivergedError, MgrlError, WorkerError
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
from mgrl_cli.run_dir.manifest import (
    EXCHANGE_NAME,
    OBJECTIVE_NAME,
    Manifest,
    Position,
    ReplayRecord,
    ValidationRecord,
    position_at,
)
from mgrl_cli.run_dir.settings import settings_sha256
from mgrl_cli.runtime.exchange import Exchange
from mgrl_cli.runtime.exchange_files import exchange_bytes, restore_exchange
from mgrl_cli.runtime.messages import Order, Report, Saved
from mgrl_cli.runtime.plan import RunPlan
from mgrl_cli.runtime.recorder import Recorder
from mgrl_cli.runtime.stop import StopRequest
from mgrl_cli.runtime.validation import Validations


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
    validation: ValidationRecord | None


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
                compiled=config.compiled,
            )
            if start is not None:
                restore_exchange(self.exchange, start)
        self._recorder = Recorder(plan.run, config, plan.shape, plan.specs, start)
        self.validations = Validations(config, plan.run, plan.validator, manifest)
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

    def order(self, reports: Sequence[Report], show: Callable[[], None]) -> Order:
        """Take the reports of all workers, all of them at rest, and return what they do next.

        Args:
            reports: one per worker.
            show: called a few times a second where this takes long, as a validation does.

        Raises:
            DivergedError: the last agent has diverged.
            WorkerError: the last agent has been taken out for another reason.
            StorageError: the operating system refused.
            MgrlError: a validation cannot be made.
        """
        rounds = min(report.rounds for report in reports)
        updates = max(report.updates for report in reports)
        is_interrupted = any(report.is_interrupted for report in reports)
        if rounds > self.rounds:
            self._end_round(rounds, reports)
        elif is_interrupted and self.exchange is not None:
            status = self.exchange.status
            objective = self._recorder.objective(self.exchange.params, status, rounds)
            self._recorder.save_objective(objective, finished_round=None)
        is_stopped = is_interrupted or self._stop.is_requested
        if not is_stopped and self.validations.are_due(rounds):
            if self.saved is None or self.saved.manifest.position != (rounds, updates):
                # It takes minutes, so what is tested is saved first.
                self._draft = self._make_draft(rounds, updates)
                return Order(rounds=rounds, save_to=self._draft.staging, proceed=True, rests=True)
            self._validate(rounds, show)
        is_last = rounds == self._plan.config.num_rounds or self.validations.are_over
        stops = is_stopped or self._stop.is_requested or is_last
        if self._is_due(position_at(rounds, updates, self.validations.record), stops):
            self._draft = self._make_draft(rounds, updates)
        staging = self._draft.staging if self._draft is not None else None
        return Order(rounds=rounds, save_to=staging, proceed=not stops)

    def _validate(self, rounds: int, show: Callable[[], None]) -> None:
        """Test the objective, unless a stop is asked for before the end."""
        if self.exchange is None:
            raise MgrlError("internal error: there is no objective to validate")
        status = self.exchange.status
        objective = self._recorder.objective(self.exchange.params, status, rounds).to_bytes()
        row = self.validations.hold(rounds, objective, lambda: self._stop.signal_number, show)
        if row is not None:
            self._recorder.record_validation(row, ends_run=self.validations.are_over)
            self._announce(self.validations.announcement)

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
            validation=draft.validation,
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

    def _is_due(self, position: Position, stops: bool) -> bool:
        if self.saved is None:
            return True
        waited_s = time.monotonic() - self._saved_at_s
        is_validated = len(position) > 2
        is_time = stops or is_validated or waited_s >= self._plan.config.checkpoints.interval_s
        return is_time and position != self.saved.manifest.position

    def _make_draft(self, rounds: int, updates: int) -> _Draft:
        """Note everything of the coordinator's that changes once the workers go on."""
        parts: dict[str, bytes] = {}
        barren_meetings = 0
        if self.exchange is None:
            if self._plan.config.needs_objective:
                parts[OBJECTIVE_NAME] = self._plan.run.objective.read_bytes()
        else:
            status = self.exchange.status
            barren_meetings = status.barren_meetings
            objective = self._recorder.objective(self.exchange.params, status, rounds)
            parts[OBJECTIVE_NAME] = objective.to_bytes()
            parts[EXCHANGE_NAME] = exchange_bytes(self.exchange)
        return _Draft(
            staging=self._store.stage().resolve(),  # workers have another working directory
            rounds=rounds,
            updates=updates,
            parts=parts,
            metrics=self._recorder.metrics(),
            barren_meetings=barren_meetings,
            validation=self.validations.record,
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
