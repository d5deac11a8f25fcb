"""An agent's environment as Gymnasium has it, for a library that steps it by itself.

Such a library expects that stepping never fails. A failure ends the episode here instead; who
counts it and loses patience is the agent.
"""

from collections.abc import Callable
from typing import Any, final

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.errors import EnvironmentFailure, EnvironmentSetupError
from mgrl_cli.agents.episodes import take_step
from mgrl_cli.agents.player import Player

_Array = NDArray[np.float32]


class GaveUpError(Exception):
    """The agent wants no further episode. It catches this itself; no user meets it."""


@final
class PlayerEnvironment(gymnasium.Env[_Array, _Array]):
    """A player's environment of training: actions in [-1, 1], episode after episode."""

    def __init__(
        self,
        player: Player,
        draw_seed: Callable[[], int],
        end_episode: Callable[[float, str], bool],
    ) -> None:
        """Step a player's environment.

        Args:
            player: whose; it makes the environment anew where it failed.
            draw_seed: returns a seed for an environment made anew.
            end_episode: told the return of every episode and why it failed ("": it did not);
                returns whether to go on.
        """
        self._player = player
        self._draw_seed = draw_seed
        self._end_episode = end_episode
        self._obs = np.zeros(player.obs_size, dtype=np.float32)
        self._return = 0.0
        self._is_unseeded = False
        """True where the environment was made anew and has no random state yet."""
        self.observation_space = spaces.Box(-np.inf, np.inf, (player.obs_size,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (player.act_size,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[_Array, dict[str, Any]]:
        """Start an episode; without a seed the random stream continues.

        Raises:
            GaveUpError: environments kept failing.
        """
        self._return = 0.0
        while True:
            if self._is_unseeded:
                seed = self._draw_seed()
            try:
                self._obs = self._player.training().reset(seed=seed)
            except (EnvironmentFailure, EnvironmentSetupError) as error:
                self._fail(error)
            else:
                self._is_unseeded = False
                return self._obs, {}

    def step(self, action: _Array) -> tuple[_Array, float, bool, bool, dict[str, Any]]:
        """Take one step; a failure is an episode cut short where it stood, without reward.

        Raises:
            GaveUpError: environments kept failing.
        """
        self._player.on_step()
        try:
            self._obs, reward, terminated, truncated = take_step(self._player.training(), action)
        except EnvironmentFailure as error:
            self._fail(error)
            return self._obs, 0.0, False, True, {}
        self._return += reward
        if (terminated or truncated) and not self._end_episode(self._return, ""):
            raise GaveUpError
        return self._obs, reward, terminated, truncated, {}

    def _fail(self, error: Exception) -> None:
        self._player.drop_training(error)
        self._is_unseeded = True
        if not self._end_episode(self._return, self._player.last_failure):
            raise GaveUpError from error
