"""What runs agents: the loop of rounds, the same in a worker process and in the serial twin.

A round is play, then updates in lock-step, then evaluation and a commit of the replay. At its end,
or where a stop was asked for, the worker rests: it reports and does what it is told.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray

from mgrl_cli.agents.agent import Agent
from mgrl_cli.agents.kernels import load_kernels
from mgrl_cli.agents.kinds import make_agent
from mgrl_cli.agents.off_policy import OffPolicyAgent
from mgrl_cli.agents.population import AgentSpec
from mgrl_cli.agents.saved_agent import SavedAgent, save_agent
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork, ObjectiveShape
from mgrl_cli.config import RunConfig
from mgrl_cli.replay.digest import ReplayPosition, ReplayTail
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.run_dir.build import THREADS
from mgrl_cli.run_dir.checkpoints import Checkpoint
from mgrl_cli.run_dir.layout import RunDirectory, agent_name
from mgrl_cli.runtime.agent_files import (
    create_log,
    part_name,
    replay_record,
    restore_from,
    write_agent,
)
from mgrl_cli.runtime.board import StatusBoard
from mgrl_cli.runtime.exchange import Exchange
from mgrl_cli.runtime.messages import Departure, Order, Report, Saved
from mgrl_cli.runtime.pulse import Pulse, PulseBoard
from mgrl_cli.runtime.stop import StopRequest

_UPDATES_PER_POST = 50
"""Updates between two looks of the live view at an agent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerPlan:
    """Everything a worker needs; sent to its process once, shared tensors included."""

    number: int
    config: RunConfig
    run: RunDirectory
    specs: tuple[AgentSpec, ...]
    shape: ObjectiveShape
    objective_params: Mapping[int, NDArray[np.float32]]
    """Of each agent, where there is no exchange, whose α they all follow. Arrays travel by value:
    of tensors, each takes an open file, of which a forked process gets 250 at most."""
    exchange: Exchange | None
    """None where the objective is frozen and agents are independent."""
    checkpoint: Checkpoint | None
    """Where to continue from; None: at the beginning."""
    board: StatusBoard
    pulses: PulseBoard
    stop: StopRequest


class _Moment(NamedTuple):
    """An agent and its replay log as they were."""

    agent: SavedAgent
    replay: ReplayPosition
    tail: ReplayTail


@final
class Worker:
    """Runs a list of agents, round by round."""

    def __init__(self, plan: WorkerPlan) -> None:
        """Make the agents and their replay logs, fresh or as a checkpoint has them.

        Raises:
            EnvironmentSetupError: an environment cannot be made.
            EnvironmentFailure: an environment's constructor raised.
            FileError: the checkpoint or the replay is not what it should be.
            StorageError: the operating system refused.
        """
        self._plan = plan
        self._config = plan.config
        self._rounds = plan.checkpoint.manifest.rounds if plan.checkpoint is not None else 0
        self._pulse = Pulse(plan.pulses, plan.number)
        self._agents: list[Agent] = []
        self._logs: dict[int, ReplayLog] = {}
        network = ObjectiveNetwork(plan.shape, compiled=plan.config.compiled)
        load_kernels(plan.config)  # seconds without a beat, which are expected only here
        for spec in plan.specs:
            self._enter(spec, network)
        self._round_start: list[_Moment] = []
        """What the agents were before the round in progress, should its play be discarded."""
        self._is_play_discarded = False

    def _enter(self, spec: AgentSpec, network: ObjectiveNetwork) -> None:
        plan = self._plan
        self._pulse.work_on(spec.agent_id)
        if plan.exchange is None:
            params = torch.from_numpy(plan.objective_params[spec.agent_id])
        else:
            params = plan.exchange.params
        agent = make_agent(spec, plan.config, network, params, self._pulse.beat)
        if plan.checkpoint is None:
            self._logs[spec.agent_id] = create_log(plan.run, agent)
        else:
            self._logs[spec.agent_id] = restore_from(plan.checkpoint, plan.run, agent)
        self._agents.append(agent)
        plan.board.post(agent)

    def run(self, ask: Callable[[Report], Order], hand_in: Callable[[Saved], None]) -> None:
        """Run rounds for as long as the coordinator orders it.

        Args:
            ask: takes the report of a worker at rest, returns what to do.
            hand_in: takes what was saved.

        Raises:
            StorageError: the replay or a checkpoint could not be written.
        """
        try:
            report = self._report(is_interrupted=False)
            while True:
                order = ask(report)
                if order.save_to is not None:
                    hand_in(self._save(order.save_to, self._moments(order)))
                if not order.proceed:
                    return
                report = self._report(is_interrupted=False) if order.rests else self._round()
        finally:
            for agent in self._agents:
                agent.close()

    def _round(self) -> Report:
        self._round_start = [self._moment(agent) for agent in self._agents]
        first = self._rounds * self._config.schedule.round_steps
        last = min(first + self._config.schedule.round_steps, self._config.steps)
        if not (self._play(last) and self._update(first, last)):
            return self._report(is_interrupted=True)
        return self._finish()

    def _report(self, *, is_interrupted: bool) -> Report:
        """Return the report of a worker that has not just ended a round."""
        made = max((agent.counters.round_updates for agent in self._agents), default=0)
        return Report(rounds=self._rounds, updates=made, is_interrupted=is_interrupted)

    def _moment(self, agent: Agent) -> _Moment:
        log = self._logs[agent.spec.agent_id]
        return _Moment(save_agent(agent), log.position, log.tail)

    def _play(self, last: int) -> bool:
        """Let everyone play up to an env step; return False where a stop was asked for."""
        exchange = self._plan.exchange
        version = exchange.status.version if exchange is not None else 0
        playing = [agent for agent in self._agents if not agent.counters.has_played]
        for agent in playing:
            self._pulse.work_on(agent.spec.agent_id)
            agent.begin_round()
            agent.play(last, version, partial(self._go_on, agent))
        self._arrive()
        if self._leave():
            self._is_play_discarded = True
            return False
        for agent in playing:
            agent.counters.has_played = True
        return True

    def _go_on(self, agent: Agent) -> bool:
        self._plan.board.post(agent)
        return not self._plan.stop.is_requested

    def _update(self, first: int, last: int) -> bool:
        """Make the round's updates; return False where a stop was agreed on the way."""
        if self._plan.exchange is not None:
            return self._update_group(self._agents, first, last)
        return all(self._update_group([agent], first, last) for agent in self._agents)

    def _update_group(self, group: Sequence[Agent], first: int, last: int) -> bool:
        """Make the updates of agents that go in lock-step."""
        made = max((agent.counters.round_updates for agent in group), default=0)
        # The others learn as they play.
        learners = [agent for agent in group if isinstance(agent, OffPolicyAgent)]
        interval = self._config.schedule.policy_interval
        for j in range(first + made, last):
            is_meta_step = j % interval == 0
            # Not before: what critics learn between two meta-steps has nothing to do with α.
            if is_meta_step and self._leave():
                return False
            for agent in learners:
                if agent.is_learning:
                    self._pulse.work_on(agent.spec.agent_id)
                    agent.learn(j)
            if is_meta_step:
                self._contribute(learners, j // interval)
                self._arrive()
            for agent in group:
                agent.counters.round_updates = j + 1 - first
            if j % _UPDATES_PER_POST == 0:
                for agent in group:
                    self._plan.board.post(agent)
        return not self._leave()

    def _contribute(self, learners: Sequence[OffPolicyAgent], meta_step: int) -> None:
        exchange = self._plan.exchange
        if exchange is None:
            return
        for agent in learners:
            if agent.is_learning:
                self._pulse.work_on(agent.spec.agent_id)
                gradient = agent.meta_gradient(meta_step)
                agent.count_meta_gradient(exchange.contribute(agent.spec.agent_id, gradient))

    def _arrive(self) -> None:
        """Tell the others, where there are any, that this worker has come to a meeting."""
        if self._plan.exchange is not None:
            self._plan.exchange.arrive()

    def _leave(self) -> bool:
        """Wait for the others, if this worker has arrived; return whether to stop."""
        if self._plan.exchange is None:
            return self._plan.stop.is_requested
        self._pulse.wait()
        return self._plan.exchange.leave()

    def _finish(self) -> Report:
        """End the round: evaluate, commit, and part with agents in quarantine."""
        rows: list[dict[str, float | int | str | None]] = []
        departures: dict[int, Departure] = {}
        for agent in self._agents:
            self._pulse.work_on(agent.spec.agent_id)
            agent.evaluate_if_due()
            agent.end_round()
            self._commit(agent)
            rows.append(agent.metrics_row())
            self._plan.board.post(agent)
            if agent.health.quarantine:
                departures[agent.spec.agent_id] = self._depart(agent)
        self._agents = [agent for agent in self._agents if not agent.health.quarantine]
        self._rounds += 1
        return Report(rounds=self._rounds, rows=rows, departures=departures)

    def _depart(self, agent: Agent) -> Departure:
        log = self._logs[agent.spec.agent_id]
        log.sync()
        agent.close()
        return Departure(agent.health.quarantine, replay_record(log.position))

    def _commit(self, agent: Agent) -> None:
        log = self._logs[agent.spec.agent_id]
        for episode in agent.new_episodes:
            log.append(episode)
        agent.new_episodes.clear()
        log.commit()

    def _moments(self, order: Order) -> list[_Moment]:
        """Return what is to be saved of the agents: what they are, or were at the round's start."""
        if self._is_play_discarded or self._rounds > order.rounds:
            return self._round_start
        for agent in self._agents:
            self._commit(agent)
        return [self._moment(agent) for agent in self._agents]

    def _save(self, staging: Path, moments: Sequence[_Moment]) -> Saved:
        """Write every agent into the staging directory, its replay log first."""
        saved = Saved({}, {}, {})
        for moment in moments:
            agent_id = moment.agent.record.agent_id
            self._pulse.work_on(agent_id)
            self._logs[agent_id].sync()
            name = agent_name(agent_id)
            saved.replay[name] = replay_record(moment.replay)
            saved.files[part_name(agent_id)] = write_agent(staging, moment.agent, moment.tail)
            evaluation = moment.agent.record.counters.last_evaluation
            if evaluation is not None:
                saved.evaluations[name] = evaluation
        return saved


@contextmanager
def prepared_torch() -> Generator[None]:
    """Make torch's results independent of the machine's idle cores, and denormals cheap.

    Afterwards this process is as it was: the serial twin runs inside somebody else's.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
