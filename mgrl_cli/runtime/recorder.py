"""Keeps the run directory of a run in progress: metrics, objective and its history, event files."""

from collections.abc import Sequence
from typing import Self, final

from torch import Tensor

from mgrl_cli.agents.population import AgentSpec
from mgrl_cli.algorithm.objective_network import ObjectiveShape
from mgrl_cli.config import RunConfig
from mgrl_cli.objective_file import LearnedObjective, ObjectiveMetadata
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.metrics import append_row
from mgrl_cli.run_dir.settings import package_versions
from mgrl_cli.run_dir.tensorboard_log import TensorBoardLog
from mgrl_cli.runtime.exchange import ExchangeStatus
from mgrl_cli.runtime.worker import MetricsRow, RoundReport

_HISTORY_ROUNDS = 10
"""Rounds between two objectives kept for testing along the way."""


@final
class Recorder:
    """Writes what the workers report. The only writer of metrics and objective files."""

    def __init__(
        self,
        run: RunDirectory,
        config: RunConfig,
        shape: ObjectiveShape,
        specs: Sequence[AgentSpec],
    ) -> None:
        """Prepare to record; nothing is written yet."""
        self._run = run
        self._config = config
        self._shape = shape
        self._environments = tuple(dict.fromkeys(spec.env.id for spec in specs))
        self._num_agents = len(specs)
        self._pending: dict[int, list[MetricsRow]] = {}
        self._event_log = TensorBoardLog(run.tensorboard)
        self._is_interrupted = False
        self.finished_rounds = 0
        """Rounds that every agent has completed, updates included."""

    def __enter__(self) -> Self:
        """Start recording."""
        return self

    def __exit__(self, *_: object) -> None:
        """Flush and close the event files."""
        self._event_log.close()

    def record(self, report: RoundReport, *, elapsed_s: float) -> None:
        """Append each agent's row; `elapsed_s` is the one column that is not reproducible."""
        for row in report.rows:
            agent_id = int(str(row["agent_id"]))
            append_row(self._run.agent_metrics(agent_id), {**row, "elapsed_s": elapsed_s})
            self._event_log.add(f"agent-{agent_id:03d}", row)
        self._pending.setdefault(report.round_index, []).extend(report.rows)
        self._is_interrupted |= report.interrupted

    def is_complete(self, round_index: int) -> bool:
        """Return whether every agent has reported the round."""
        return len(self._pending.get(round_index, ())) == self._num_agents

    def finish_round(self, round_index: int, status: ExchangeStatus | None) -> None:
        """Append the population's row of a round that every agent has reported."""
        rows = sorted(self._pending.pop(round_index), key=lambda row: int(str(row["agent_id"])))
        if not self._is_interrupted:
            self.finished_rounds = max(self.finished_rounds, round_index)
        population: MetricsRow = {
            "round": round_index,
            "env_steps": sum(int(str(row["env_steps"])) for row in rows),
        }
        # Returns of different environments have no common scale, so they get no common mean.
        for name in ("gain", "cosine", "action_slack"):
            population[name] = _mean(rows, name)
        if status is not None:
            population |= {
                "objective_version": status.version,
                "meta_gradient_norm": status.gradient_norm,
                "skipped_gradients": status.skipped_gradients,
            }
        append_row(self._run.population_metrics, population)
        self._event_log.add("population", population)

    def save_objective(self, params: Tensor, status: ExchangeStatus) -> None:
        """Replace the current objective, and keep a copy every 10 rounds and at the last one."""
        config, rounds = self._config, self.finished_rounds
        metadata = ObjectiveMetadata(
            width=self._shape.width,
            signal_features=self._shape.signal_features,
            bound=self._shape.bound,
            terminal_value=self._shape.terminal_value,
            padding_first=self._shape.padding_first,
            window_steps=config.windows.steps,
            window_batch=config.windows.batch,
            inner_step=config.meta.inner_step,
            inner_step_size=config.meta.inner_step_size,
            environments=self._environments,
            steps_per_agent=min(rounds * config.schedule.round_steps, config.steps),
            agents=self._num_agents,
            meta_steps=status.version,
            seed=config.seed,
            packages=package_versions(),
        )
        objective = LearnedObjective(params.clone(), metadata)
        objective.save(self._run.objective)
        is_kept = rounds % _HISTORY_ROUNDS == 0 or rounds == config.num_rounds
        if is_kept and not self._is_interrupted:
            objective.save(self._run.objective_at(rounds))


def _mean(rows: Sequence[MetricsRow], name: str) -> float | None:
    values = [float(value) for row in rows if (value := row[name]) is not None]
    return sum(values) / len(values) if values else None
