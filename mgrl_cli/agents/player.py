"""An agent's hands: its two environments, made anew whenever they fail.

An episode that fails while it is played here is dropped whole, so nothing of it can enter the
replay; whoever steps the environment by itself decides that for itself. Knows nothing of learning;
who counts failures and loses patience is the agent.
"""

from collections.abc import Callable, Sequence
from typing import final

from envs.control import ControlEnvironment
from envs.errors import EnvironmentFailure, EnvironmentSetupError
from envs.registry import make
from mgrl_cli.agents.episodes import Act, Exploration, play_episode, play_noise_free
from mgrl_cli.config import EnvConfig
from mgrl_cli.replay.schema import Episode


@final
class Player:
    """Plays episodes with exploration in one environment, and noise-free in another."""

    def __init__(self, env: EnvConfig, on_step: Callable[[], None]) -> None:
        """Make the environments.

        Args:
            env: which.
            on_step: called before every env step, as a sign of life.

        Raises:
            EnvironmentSetupError: the environment cannot be made.
            EnvironmentFailure: its constructor raised.
        """
        self._env = env
        self.on_step = on_step
        """Called before every env step, as a sign of life."""
        self._training: ControlEnvironment | None = self._make()
        self._evaluation: ControlEnvironment | None = self._make()
        self.environment_id = self._training.id
        self.obs_size = self._training.obs_size
        self.act_size = self._training.act_size
        self.action_low = self._training.action_low
        self.action_high = self._training.action_high
        self.last_failure = ""
        """What the environment said when it last failed."""

    def play(self, act: Act, exploration: Exploration, seed: int) -> Episode | None:
        """Return one episode with exploration, or None where the environment failed."""
        try:
            return play_episode(self.training(), act, exploration, seed, self.on_step)
        except (EnvironmentFailure, EnvironmentSetupError) as error:
            self.drop_training(error)
            return None

    def training(self) -> ControlEnvironment:
        """Return the environment of training, made anew where it failed.

        Raises:
            EnvironmentSetupError: it cannot be made any more.
            EnvironmentFailure: its constructor raised.
        """
        self._training = self._training or self._make()
        return self._training

    def drop_training(self, error: Exception) -> None:
        """Let go of the environment of training, which failed."""
        self.last_failure = str(error)
        _close(self._training)
        self._training = None

    def evaluate(self, act: Act, seeds: Sequence[int]) -> list[float]:
        """Return the noise-free return of one episode per seed, without those that failed."""
        returns: list[float] = []
        for seed in seeds:
            try:
                self._evaluation = self._evaluation or self._make()
                returns.append(play_noise_free(self._evaluation, act, seed, self.on_step))
            except (EnvironmentFailure, EnvironmentSetupError) as error:
                self.last_failure = str(error)
                _close(self._evaluation)
                self._evaluation = None
        return returns

    def close(self) -> None:
        """Release both environments."""
        _close(self._training)
        _close(self._evaluation)

    def _make(self) -> ControlEnvironment:
        return make(self._env.id, self._env.kwargs, self._env.randomise)


def _close(environment: ControlEnvironment | None) -> None:
    if environment is not None:
        environment.close()
