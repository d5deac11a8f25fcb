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
from mgrl_cli.agents.health import patience_per_epoch
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
        self._limits = patience_per_epoch(config.supervision)
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
        """Return the mean of π(s), clipped; NaN where the networks overflow."""
        try:
            action, _ = self._model.predict(obs, deterministic=True)
        except ValueError:  # torch makes no Gaussian of it; whoever steps with NaN is told
            return np.full(self.player.act_size, np.nan, dtype=np.float32)
        return action

    def tensors(self) -> dict[str, Tensor]:
        """Return the networks; the optimiser comes back by playing again."""
        return {f"ppo.{name}": part for name, part in self._model.policy.state_dict().items()}

    def restore_tensors(self, tensors: Mapping[str, Tensor], counters: Counters) -> str:
        """Play again what had been played, and compare; return a reason if it leads elsewhere.

        Raises:
            ValueError: no agent can have played so much.
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
                return (
                    f"played again from its beginning, '{name}' is not what was saved; ppo can be "
                    "resumed only where packages, processor and environment are as they were"
                )
        return ""

    def _collect(self, objective_version: int) -> None:
        """Play one rollout, across the ends of episodes, and learn from it.

        What broke off amid its play counts as not begun: the networks are as before.
        """
        rollout_steps = self._config.ppo.rollout_steps
        before = {name: part.clone() for name, part in self.tensors().items()}
        try:
            # What overflows is looked for below.
            with self._generators.swapped_in(), np.errstate(over="ignore", invalid="ignore"):
                self._model.learn(rollout_steps, reset_num_timesteps=False)
        except GaveUpError:
            return
        except ValueError as error:  # torch makes no Gaussian of what is not finite
            self.health.count_divergence(f"ppo broke off: {str(error).splitlines()[0]:.120}")
        if self._model.num_timesteps == self.counters.env_steps + rollout_steps:
            self.counters.env_steps += rollout_steps
            self.counters.updates += 1
            # The library clips a gradient of infinite norm to nothing.
            has_learned = any(not part.equal(before[name]) for name, part in self.tensors().items())
            self.statistics.count("skipped_updates", not has_learned)
            self.health.count_policy_update(has_learned, self._limits)
        if not all(bool(part.isfinite().all()) for part in self.tensors().values()):
            self.health.count_divergence("ppo's networks are not finite")

    def _end_episode(self, episode_return: float, failure: str) -> bool:
        """Count an episode; return whether another is wanted."""
        self._count_episode(failure)
        if not failure:
            self.counters.end_episode(episode_return)
            self.statistics.add("mean_return", episode_return)
        return not self.health.quarantine
