"""The kind of agent that stable-baselines3 drives: the rule "ppo".

The library collects and learns in a loop of its own and saves itself by pickling only, so two
things are done differently here. Its global random generators are the agent's own while it plays.
And a resumed agent plays again from its beginning up to where it stood, which gives the same bits:
the networks that were saved are what proves it.

Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347, as in
https://stable-baselines3.readthedocs.io
"""

from collections.abc import Callable, Mapping
from typing import final

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from torch import Tensor

from mgrl_cli.agents.agent import Agent
from mgrl_cli.agents.counters import Counters
from mgrl_cli.agents.global_generators import GlobalGenerators
from mgrl_cli.agents.player_environment import GaveUpError, PlayerEnvironment
from mgrl_cli.agents.population import AgentSpec
from mgrl_cli.agents.streams import draw_seed
from mgrl_cli.config import RunConfig


@final
class PpoAgent(Agent):
    """PPO with a multilayer perceptron at the library's settings; keeps no replay."""

    def __init__(
        self, spec: AgentSpec, config: RunConfig, on_step: Callable[[], None] = lambda: None
    ) -> None:
        """Make a fresh agent; errors as of `Agent`."""
        super().__init__(spec, config, on_step, capacity=1)
        environment = PlayerEnvironment(
            self.player, lambda: draw_seed(self.streams.environment), self._end_episode
        )
        self._generators = GlobalGenerators()
        with self._generators.swapped_in():
            self._model = PPO(
                "MlpPolicy",
                environment,
                n_steps=config.ppo.rollout_steps,
                seed=draw_seed(self.streams.networks),
                device="cpu",
            )
        self._model.set_logger(Logger(None, []))  # the library's own makes a directory in /tmp

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Return the mean of π(s), clipped."""
        action, _ = self._model.predict(obs, deterministic=True)
        return action

    def tensors(self) -> dict[str, Tensor]:
        """Return the networks; the optimiser comes back by playing again."""
        return {f"ppo.{name}": part for name, part in self._model.policy.state_dict().items()}

    def restore_tensors(self, tensors: Mapping[str, Tensor], counters: Counters) -> None:
        """Play again what had been played, and compare.

        Raises:
            ValueError: it leads elsewhere.
        """
        rollout_steps = self._config.ppo.rollout_steps
        is_possible = counters.env_steps < self._config.steps + rollout_steps
        if not is_possible or counters.env_steps % rollout_steps:
            raise ValueError(
                f"'counters.env_steps': got {counters.env_steps}, expected whole rollouts of "
                f"{rollout_steps} up to {self._config.steps}"
            )
        while self.counters.env_steps < counters.env_steps and not self.health.quarantine:
            self._collect(0)
        for name, tensor in self.tensors().items():
            if tensor.numpy().tobytes() != tensors[name].numpy().tobytes():  # NaN equals itself
                raise ValueError(
                    f"played again from its beginning, '{name}' is not what was saved; ppo can be "
                    "resumed only where packages, processor and environment are as they were"
                )

    def _collect(self, objective_version: int) -> None:
        """Play one rollout, across the ends of episodes, and learn from it."""
        with self._generators.swapped_in():
            try:
                self._model.learn(self._config.ppo.rollout_steps, reset_num_timesteps=False)
            except GaveUpError:
                return
        self.counters.env_steps = self._model.num_timesteps
        self.counters.updates += 1

    def _end_episode(self, episode_return: float, failure: str) -> bool:
        """Count an episode; return whether another is wanted."""
        self._count_episode(failure)
        if not failure:
            self.counters.end_episode(episode_return)
            self.statistics.add("mean_return", episode_return)
        return not self.health.quarantine
