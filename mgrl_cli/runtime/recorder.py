"""Keeps what a run in progress shows of itself: metrics, objectives, event files, events.

All of it can be cut back to a checkpoint. The only writer of these files.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, cast, final

from torch import Tensor

from mgrl_cli.agents.population import AgentSpec
from mgrl_cli.algorithm.objective_network import ObjectiveShape
from mgrl_cli.config import RunConfig
from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.objective_file import INPUTS, LearnedObjective, ObjectiveMetadata
from mgrl_cli.run_dir.atomic import explain_os_error, write_atomically
from mgrl_cli.run_dir.checkpoints import Checkpoint
from mgrl_cli.run_dir.file_record import FileRecord
from mgrl_cli.run_dir.layout import HISTORY_ROUNDS, RunDirectory
from mgrl_cli.run_dir.manifest import OBJECTIVE_NAME
from mgrl_cli.run_dir.metrics_file import MetricsFile
from mgrl_cli.run_dir.settings import package_versions
from mgrl_cli.run_dir.tensorboard_log import TensorBoardLog
from mgrl_cli.runtime.exchange import ExchangeStatus
from mgrl_cli.runtime.messages import MetricsRow

_HISTORY_NAME = re.compile(r"round-([0-9]+)\.safetensors")


@final
class Recorder:
    """Writes what the workers report."""

    def __init__(
        self,
        run: RunDirectory,
        config: RunConfig,
        shape: ObjectiveShape,
        specs: Sequence[AgentSpec],
        start: Checkpoint | None,
    ) -> None:
        """Begin to record, or cut back what is there to a checkpoint.

        Raises:
            FileError: what is there does not begin with what the checkpoint recorded.
            StorageError: the operating system refused.
        """
        self._run = run
        self._config = config
        self._shape = shape
        self._environments = tuple(dict.fromkeys(spec.env.id for spec in specs))
        rounds = start.manifest.rounds if start is not None else 0
        paths = [run.population_metrics, *(run.agent_metrics(spec.agent_id) for spec in specs)]
        if config.kind == "meta-train" and config.validation.envs:
            paths.append(run.validation_metrics)
        self._files = {path.name: _metrics_file(path, start) for path in paths}
        self._event_log = TensorBoardLog(
            run.tensorboard, purge_from=rounds * config.schedule.round_steps + 1
        )
        if start is not None:
            _cut_back_objectives(run, start)

    def __enter__(self) -> Self:
        """Start recording."""
        return self

    def __exit__(self, *_: object) -> None:
        """Flush and close the event files."""
        self._event_log.close()

    def record_round(
        self,
        round_index: int,
        rows: Sequence[MetricsRow],
        status: ExchangeStatus | None,
        elapsed_s: float,
    ) -> None:
        """Append a round that every agent has finished.

        Args:
            round_index: from 1.
            rows: one per agent.
            status: of the exchange, where there is one.
            elapsed_s: the one column that is not reproducible.

        Raises:
            StorageError: the operating system refused.
        """
        step = round_index * self._config.schedule.round_steps
        rows = sorted(rows, key=lambda row: int(str(row["agent_id"])))
        for row in rows:
            path = self._run.agent_metrics(int(str(row["agent_id"])))
            self._files[path.name].append({**row, "elapsed_s": elapsed_s})
            self._event_log.add(path.stem, row, step)
        population = _population_row(round_index, rows, status)
        self._files[self._run.population_metrics.name].append(population)
        self._event_log.add("population", population, step)

    def record_validation(self, row: Mapping[str, object], *, ends_run: bool) -> None:
        """Append a validation.

        Args:
            row: "round", "scores" by environment, and what else there is to say.
            ends_run: keep a copy of the objective as it is now: there is no later one.

        Raises:
            StorageError: the operating system refused.
        """
        self._files[self._run.validation_metrics.name].append(row)
        scores = cast("Mapping[str, object]", row["scores"])
        rounds = int(str(row["round"]))
        self._event_log.add("validation", scores, rounds * self._config.schedule.round_steps)
        if ends_run:
            _copy(self._run.objective, self._run.objective_at(rounds))

    def metrics(self) -> dict[str, FileRecord]:
        """Return the record of every metrics file, all of it on disk.

        Raises:
            StorageError: the operating system refused.
        """
        for file in self._files.values():
            file.sync()
        return {name: file.record for name, file in self._files.items()}

    def objective(self, params: Tensor, status: ExchangeStatus, rounds: int) -> LearnedObjective:
        """Return the objective as a file describes it.

        Args:
            params: α; copied.
            status: of the exchange.
            rounds: finished by everyone.
        """
        config = self._config
        metadata = ObjectiveMetadata(
            width=self._shape.width,
            signal_features=self._shape.signal_features,
            bound=self._shape.bound,
            terminal_value=self._shape.terminal_value,
            padding_first=self._shape.padding_first,
            inputs=tuple(name for name in INPUTS if name not in self._shape.without),
            normalisation="batch" if self._shape.normalise else "none",
            window_steps=config.windows.steps,
            window_batch=config.windows.batch,
            inner_step=config.meta.inner_step,
            inner_step_size=config.meta.inner_step_size,
            environments=self._environments,
            steps_per_agent=min(rounds * config.schedule.round_steps, config.steps),
            agents=config.agents,
            meta_steps=status.version,
            seed=config.seed,
            packages=package_versions(),
        )
        return LearnedObjective(params.clone(), metadata)

    def save_objective(self, objective: LearnedObjective, *, finished_round: int | None) -> None:
        """Replace the current objective; keep a copy every 10 rounds and at the last one.

        A validation that ends the run before keeps one too: see `record_validation`.

        Args:
            objective: as it is now.
            finished_round: the round that has just ended; None in the middle of one.

        Raises:
            StorageError: the operating system refused.
        """
        objective.save(self._run.objective)
        if finished_round is None:
            return
        if finished_round % HISTORY_ROUNDS == 0 or finished_round == self._config.num_rounds:
            objective.save(self._run.objective_at(finished_round))


def record_event(run: RunDirectory, event: str) -> None:
    """Append what happened to the run, with the time, to `logs/events.jsonl`.

    Raises:
        StorageError: the operating system refused.
    """
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event})
    try:
        with run.events.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise StorageError(explain_os_error(error, f"append to '{run.events}'")) from error


def _metrics_file(path: Path, start: Checkpoint | None) -> MetricsFile:
    if start is None:
        return MetricsFile(path)
    record = start.manifest.metrics.get(path.name)
    if record is None:
        raise FileError(f"'{start.path}' does not record {path.name}; resume from another")
    return MetricsFile.cut_back(path, record)


def _cut_back_objectives(run: RunDirectory, start: Checkpoint) -> None:
    """Give the run the checkpoint's objective, and drop the history of what came after it."""
    if OBJECTIVE_NAME not in start.manifest.files:
        return  # a run of baselines
    try:
        content = (start.path / OBJECTIVE_NAME).read_bytes()
        for path in run.objectives.glob("round-*.safetensors"):
            match = _HISTORY_NAME.fullmatch(path.name)
            if match is not None and int(match[1]) > start.manifest.rounds:
                path.unlink()
    except OSError as error:
        raise StorageError(explain_os_error(error, f"cut back '{run.path}'")) from error
    write_atomically(run.objective, content)


def _copy(source: Path, target: Path) -> None:
    try:
        content = source.read_bytes()
    except OSError as error:
        raise StorageError(explain_os_error(error, f"read '{source}'")) from error
    write_atomically(target, content)


def _population_row(
    round_index: int, rows: Sequence[MetricsRow], status: ExchangeStatus | None
) -> MetricsRow:
    row: MetricsRow = {
        "round": round_index,
        "env_steps": sum(int(str(row["env_steps"])) for row in rows),
        "agents": len(rows),
    }
    # Returns of different environments have no common scale, so they get no common mean.
    for name in ("gain", "cosine", "action_slack"):
        row[name] = _mean(rows, name)
    if status is not None:
        row |= {
            "objective_version": status.version,
            "meta_gradient_norm": status.gradient_norm,
            "skipped_gradients": status.skipped_gradients,
        }
    return row


def _mean(rows: Sequence[MetricsRow], name: str) -> float | None:
    values = [float(value) for row in rows if (value := row[name]) is not None]
    return sum(values) / len(values) if values else None
