"""What runs agents: the loop of rounds, the same in a worker process and in the serial twin.

A round is play, then updates in lock-step, then evaluation and a commit of the replay. At its end
the coordinator is told and decides whether to go on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from envs.errors import EnvironmentFailure
from mgrl_cli.agents.agent import Agent
from mgrl_cli.agents.population import AgentSpec
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork, ObjectiveShape
from mgrl_cli.config import RunConfig
from mgrl_cli.errors import WorkerError
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.settings import package_versions
from mgrl_cli.runtime.board import StatusBoard
from mgrl_cli.runtime.exchange import Exchange
from mgrl_cli.runtime.stop import StopRequest

_MEETING_TIMEOUT_S = 1200.0
"""Longest wait for the slowest worker; far above any round of play and evaluation."""
_UPDATES_PER_POST = 50
"""Updates between two looks of the live view at an agent."""

MetricsRow = dict[str, float | int | str | None]


@dataclass(frozen=True, slots=True)
class RoundReport:
    """What the agents of one lock-step group did in a round."""

    round_index: int
    rows: list[MetricsRow]
    interrupted: bool
    """True where a stop was agreed before the round's updates were complete."""


EndRound = Callable[[RoundReport], bool]
"""Tells the coordinator that a round has ended; returns whether to go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerPlan:
    """Everything a worker needs; sent to its process once, shared tensors included."""

    config: RunConfig
    run: RunDirectory
    specs: tuple[AgentSpec, ...]
    shape: ObjectiveShape
    objective_params: Mapping[int, Tensor]
    """Objective parameters of each agent; with an exchange, the shared α for all of them."""
    exchange: Exchange | None
    """None where the objective is frozen and agents are independent."""
    board: StatusBoard
    stop: StopRequest


@final
class Worker:
    """Runs a list of agents, round by round."""

    def __init__(self, plan: WorkerPlan) -> None:
        """Make the agents and their replay logs.

        Raises:
            EnvironmentSetupError: an environment cannot be made.
        """
        self._plan = plan
        self._config = plan.config
        network = ObjectiveNetwork(plan.shape, compiled=plan.config.objective.compiled)
        self._agents = [
            Agent(spec, plan.config, network, plan.objective_params[spec.agent_id])
            for spec in plan.specs
        ]
        self._logs = {
            agent.spec.agent_id: _create_log(plan.run.agent_buffer(agent.spec.agent_id), agent)
            for agent in self._agents
        }

    def run(self, end_round: EndRound) -> None:
        """Run all rounds, or as many as the coordinator wants.

        Agents that share an objective go in lock-step; independent ones round by round in turn.

        Raises:
            WorkerError: an environment failed, or another worker did not keep up.
            StorageError: the replay could not be written.
        """
        is_lock_step = self._plan.exchange is not None
        groups = [self._agents] if is_lock_step else [[agent] for agent in self._agents]
        try:
            for index in range(1, self._config.num_rounds + 1):
                for group in groups:
                    if not end_round(self._round(index, group)):
                        return
        finally:
            for agent in self._agents:
                agent.close()

    def _round(self, index: int, group: Sequence[Agent]) -> RoundReport:
        round_steps = self._config.schedule.round_steps
        first = (index - 1) * round_steps
        last = min(index * round_steps, self._config.steps)
        for agent in group:
            agent.begin_round(index)
            self._play(agent, last)
        interrupted = self._update(range(first, last), group)
        for agent in group:
            if not interrupted:
                self._guarded(agent, agent.evaluate_if_due)
            self._commit(agent)
            self._plan.board.post(agent)
        return RoundReport(index, [agent.metrics_row() for agent in group], interrupted)

    def _play(self, agent: Agent, target_env_steps: int) -> None:
        exchange = self._plan.exchange
        version = exchange.status.version if exchange is not None else 0

        def go_on() -> bool:
            self._plan.board.post(agent)
            return not self._plan.stop.is_requested

        self._guarded(agent, lambda: agent.play(target_env_steps, version, go_on))

    def _update(self, update_indices: range, group: Sequence[Agent]) -> bool:
        """Make the round's updates; return True where a stop was agreed on the way."""
        learning = [agent for agent in group if agent.is_learning]
        for j in update_indices:
            for agent in learning:
                agent.learn(j)
            if j % self._config.schedule.policy_interval == 0 and self._meet(learning, j):
                return True
            if j % _UPDATES_PER_POST == 0:
                for agent in group:
                    self._plan.board.post(agent)
        return False

    def _meet(self, learning: Sequence[Agent], update_index: int) -> bool:
        """Contribute to the objective and wait for the others; return whether to stop."""
        exchange = self._plan.exchange
        if exchange is None:
            return self._plan.stop.is_requested
        meta_step = update_index // self._config.schedule.policy_interval
        for agent in learning:
            is_finite = exchange.contribute(agent.spec.agent_id, agent.meta_gradient(meta_step))
            agent.statistics.count("skipped_gradients", not is_finite)
        return exchange.meet(_MEETING_TIMEOUT_S)

    def _commit(self, agent: Agent) -> None:
        log = self._logs[agent.spec.agent_id]
        for episode in agent.new_episodes:
            log.append(episode)
        agent.new_episodes.clear()
        log.commit()

    def _guarded(self, agent: Agent, action: Callable[[], None]) -> None:
        """Name the agent in an environment's failure."""
        try:
            action()
        except EnvironmentFailure as error:
            raise WorkerError(f"agent {agent.spec.agent_id}: {error}") from error


def _create_log(path: Path, agent: Agent) -> ReplayLog:
    env = agent.spec.env
    return ReplayLog.create(
        path,
        obs_size=agent.environment.obs_size,
        act_size=agent.environment.act_size,
        attributes={
            "environment": agent.environment.id,
            "environment_kwargs": env.kwargs,
            "environment_randomise": {name: list(bounds) for name, bounds in env.randomise.items()},
            "action_low": agent.environment.action_low.tolist(),
            "action_high": agent.environment.action_high.tolist(),
            "agent_id": agent.spec.agent_id,
            "rule": agent.spec.rule,
            "packages": package_versions(),
        },
    )


def prepare_torch() -> None:
    """Make torch's results independent of the machine's idle cores, and denormals cheap."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
