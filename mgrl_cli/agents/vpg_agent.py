"""The kind of agent that learns from its newest episodes alone: the rule "vpg".

Its replay holds the epoch in progress: an agent that is resumed gets it back from the log.
"""

from collections.abc import Callable
from typing import final

import numpy as np
from torch import Tensor

from mgrl_cli.agents.agent import Agent
from mgrl_cli.agents.episodes import Exploration
from mgrl_cli.agents.health import patience_per_epoch
from mgrl_cli.agents.population import AgentSpec
from mgrl_cli.agents.vpg_learner import VpgLearner
from mgrl_cli.config import RunConfig


@final
class VpgAgent(Agent):
    """Plays whole episodes with its own Gaussian; learns once an epoch is full."""

    def __init__(
        self, spec: AgentSpec, config: RunConfig, on_step: Callable[[], None] = lambda: None
    ) -> None:
        """Make a fresh agent; errors as of `Agent`."""
        super().__init__(
            spec,
            config,
            on_step,
            # The last episode of an epoch overshoots; none is longer than the run's replay.
            capacity=config.vpg.epoch_steps + config.replay.capacity,
            keeps_raw_actions=True,
        )
        self._limits = patience_per_epoch(config.supervision)
        self.learner = VpgLearner(
            config.vpg, self.player.obs_size, self.player.act_size, self.streams.networks
        )

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Return the mean of π(s)."""
        return self.learner.act(obs)

    def tensors(self) -> dict[str, Tensor]:
        """Return networks and optimisers."""
        return self.learner.tensors()

    def _collect(self, objective_version: int) -> None:
        """Play one episode; learn if it ends an epoch."""
        exploration = Exploration(
            self.streams.exploration, random_steps=0, noise=self.learner.deviation
        )
        self._play_one_episode(exploration, objective_version)
        if self.replay.num_steps >= self._config.vpg.epoch_steps:
            self._learn()
            self.replay.clear()

    def _learn(self) -> None:
        epoch = self.learner.epoch_of(self.replay.read_all())
        update = self.learner.learn(epoch, self.player.on_step)
        self.counters.updates += 1
        self.statistics.add("policy_loss", update.policy_loss)
        self.statistics.add("critic_loss", update.value_loss)
        for applied in (update.policy_applied, update.value_applied):
            self.statistics.count("skipped_updates", not applied)
        self.health.count_policy_update(update.policy_applied, self._limits)
        self.health.count_critic_update(update.value_applied, self._limits)
