"""One Gymnasium environment behind a plain NumPy interface that trusts nothing it returns.

Agents see float32 arrays, actions in [-1, 1] and a time limit, whatever the environment is like.
This module must not know names, aliases or how an environment is made.
"""

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, final

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from envs.errors import (
    BrokenContractError,
    EnvironmentFailure,
    NotFiniteError,
    UnsupportedSpacesError,
)
from envs.physics import Physics, Ranges, drawn

DEFAULT_TIME_LIMIT_STEPS = 1000
"""Episodes are cut here where the environment has no limit of its own."""

_SAFE_SQUARE_SUM = 1e30
"""Below it every entry is finite and fits into float32."""
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)

_PROMISED_VALUES = {
    "reset": ("obs", "info"),
    "step": ("obs", "reward", "terminated", "truncated", "info"),
}


class StepResult(NamedTuple):
    """What one step returned.

    Attributes:
        obs: float32 [obs_size], owned by the caller.
        reward: finite, also as float32.
        terminated: True where the task ended; nothing may be bootstrapped from `obs`.
        truncated: True where only the time ran out. Both can be True.
    """

    obs: NDArray[np.float32]
    reward: float
    terminated: bool
    truncated: bool


class RandomPhysics(NamedTuple):
    """Physics to draw before every reset, and where to put it."""

    physics: Physics
    ranges: Ranges


@final
class ControlEnvironment:
    """An environment with box observations and actions in [-1, 1].

    Attributes:
        id: Gymnasium id.
        obs_size: number of observation entries.
        act_size: number of action dimensions.
        max_episode_steps: an episode is truncated after so many steps.
        action_low: the environment's own lower action bounds, float64 [act_size].
        action_high: its upper bounds.
        declared_low: lower bounds that the environment declares for its observations, float64
            [obs_size], infinite where there are none. Nothing enforces them.
        declared_high: the upper bounds.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], env_id: str, random_physics: RandomPhysics | None
    ) -> None:
        """Check the spaces and add a time limit where none is set.

        Raises:
            UnsupportedSpacesError: see `require_control_spaces`.
        """
        observation_box, action_box = require_control_spaces(env, env_id)
        limit = env.spec.max_episode_steps if env.spec is not None else None
        if limit is None or limit <= 0:
            limit = DEFAULT_TIME_LIMIT_STEPS
        elif isinstance(env, TimeLimit):
            # Steps are counted here; the wrapper would unpack what has not been checked yet.
            env = env.env
        self.id = env_id
        self.obs_size = int(observation_box.shape[0])
        self.act_size = int(action_box.shape[0])
        self.max_episode_steps = limit
        self._env = env
        self._random_physics = random_physics
        self._episode_step = 0
        self._low = action_box.low
        self._high = action_box.high
        self.action_low = self._low.astype(np.float64)
        self.action_high = self._high.astype(np.float64)
        self.declared_low = observation_box.low.astype(np.float64)
        self.declared_high = observation_box.high.astype(np.float64)
        self._middle = 0.5 * (self.action_low + self.action_high)
        self._half_width = 0.5 * (self.action_high - self.action_low)
        self._action_dtype = action_box.dtype

    def reset(self, seed: int | None = None) -> NDArray[np.float32]:
        """Start an episode; without a seed the random stream continues.

        Returns:
            The first observation, float32 [obs_size].

        Raises:
            EnvironmentFailure: the environment raised.
            BrokenContractError: it did not return a pair with an observation of the right shape.
            NotFiniteError: the observation is not finite.
        """
        self._episode_step = 0
        if self._random_physics is not None:
            # Physics comes first, because some environments build their world during reset.
            if seed is not None:
                self._env.unwrapped.np_random = seeding.np_random(seed)[0]
                seed = None
            values = drawn(self._random_physics.ranges, self._env.unwrapped.np_random)
            self._random_physics.physics.apply(values)
        obs, _ = self._called("reset", lambda: self._env.reset(seed=seed))
        return self._checked_obs(obs, "reset")

    def step(self, action: NDArray[np.float32]) -> StepResult:
        """Take one step.

        Args:
            action: float32 [act_size] in [-1, 1], where -1 and 1 are the environment's own bounds
                of that dimension; what lies outside is clipped.

        Raises:
            EnvironmentFailure: the environment raised.
            BrokenContractError: it returned a value of the wrong kind or shape.
            NotFiniteError: the observation or the reward is not finite.
            ValueError: the action is not finite or not of shape [act_size].
        """
        own_action = self._own_action(action)
        self._episode_step += 1
        obs, reward, terminated, truncated, _ = self._called(
            "step", lambda: self._env.step(own_action)
        )
        checked_obs = self._checked_obs(obs, "step")
        checked_reward = self._checked_reward(reward)
        is_terminated = self._checked_flag(terminated, "terminated")
        is_truncated = self._checked_flag(truncated, "truncated")
        is_truncated = is_truncated or self._episode_step >= self.max_episode_steps
        return StepResult(checked_obs, checked_reward, is_terminated, is_truncated)

    def close(self) -> None:
        """Free what the environment holds; calling it again does nothing. Never raises.

        An environment is closed where it failed, and that failure is the one to be heard.
        """
        with contextlib.suppress(Exception, SystemExit):
            self._env.close()

    def get_random_state(self) -> dict[str, Any]:
        """Return the state of the environment's generator, made of str and int only.

        Between two episodes it is all the state there is: an environment restored from it runs
        the following episodes bit for bit.
        """
        return dict(self._env.unwrapped.np_random.bit_generator.state)

    def set_random_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of `get_random_state`; the next call must be `reset()`.

        Raises:
            ValueError: the state is not one of this kind of generator.
        """
        try:
            self._env.unwrapped.np_random.bit_generator.state = dict(state)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.id}: not a random state of this environment: {error}"
            ) from error

    def _own_action(self, action: NDArray[np.float32]) -> NDArray[Any]:
        if action.shape != (self.act_size,) or not math.isfinite(np.dot(action, action)):
            raise ValueError(
                f"{self.id}: got action {action!r}, expected {self.act_size} finite numbers"
            )
        own = (self._middle + self._half_width * action).astype(self._action_dtype)
        return np.minimum(np.maximum(own, self._low), self._high)

    def _called(self, method: str, call: Callable[[], object]) -> tuple[Any, ...]:
        """Return a call's tuple, with every failure turned into one line that says where."""
        try:
            result = call()
        except (Exception, SystemExit) as error:
            reason = " ".join(str(error).split())
            problem = f"{method}() raised {type(error).__name__}: {reason}"
            raise EnvironmentFailure(self._located(problem)) from error
        promised = _PROMISED_VALUES[method]
        if not isinstance(result, tuple) or len(result) != len(promised):
            got = f"tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
            expected = f"tuple of {len(promised)} ({', '.join(promised)})"
            raise self._broken(f"{method}() returned {got}, expected {expected}")
        return result

    def _checked_obs(self, obs: object, method: str) -> NDArray[np.float32]:
        """Return an own float32 copy of an observation that is finite and of the right shape."""
        try:
            array = np.asarray(obs)
        except Exception as error:  # a foreign object converts itself and can raise anything
            raise self._broken(f"{method}() obs is not an array of numbers") from error
        if array.shape != (self.obs_size,) or array.dtype.kind not in "fiu":
            raise self._broken(
                f"{method}() obs has shape {array.shape} of {array.dtype}, "
                f"expected ({self.obs_size},) of float"
            )
        # One dot product is the cheap test; a NaN makes the comparison False.
        if not np.dot(array, array) < _SAFE_SQUARE_SUM:
            self._require_float32_entries(array, method)
        return array.astype(np.float32)

    def _require_float32_entries(self, array: NDArray[Any], method: str) -> None:
        is_usable = np.abs(array.astype(np.float64)) <= _LARGEST_FLOAT32
        if not is_usable.all():
            index = int(np.argmin(is_usable))
            problem = f"{method}() obs[{index}] is {array[index]}, expected a finite float32"
            raise NotFiniteError(self._located(problem))

    def _checked_reward(self, reward: object) -> float:
        value = float(reward) if isinstance(reward, float) else _single_number(reward, "fiub")
        if value is None:
            raise self._broken(f"step() reward is {_on_one_line(reward)}, expected a number")
        if not abs(value) <= _LARGEST_FLOAT32:
            problem = f"step() reward is {value}, expected a finite float32"
            raise NotFiniteError(self._located(problem))
        return value

    def _checked_flag(self, flag: object, name: str) -> bool:
        value = flag if isinstance(flag, bool) else _single_number(flag, "biu")
        if value not in (0, 1):  # None too: a step that forgot to say so must not go on for ever
            raise self._broken(f"step() {name} is {_on_one_line(flag)}, expected True or False")
        return bool(value)

    def _broken(self, problem: str) -> BrokenContractError:
        return BrokenContractError(self._located(problem))

    def _located(self, problem: str) -> str:
        return f"{self.id}: {problem} (episode step {self._episode_step})"


def _single_number(value: object, kinds: str) -> float | None:
    """Return a number or the entry of an array of one, of NumPy's `kinds`; else None."""
    try:
        array = np.asarray(value)
    except Exception:  # a foreign object converts itself and can raise anything
        return None
    return float(array.item()) if array.size == 1 and array.dtype.kind in kinds else None


def require_control_spaces(
    env: gymnasium.Env[Any, Any], env_id: str
) -> tuple[spaces.Box, spaces.Box]:
    """Return the observation and action boxes.

    Raises:
        UnsupportedSpacesError: a space is not a one-dimensional float box with at least one entry,
            or an action bound is infinite.
    """
    observation_box = _require_float_box(env.observation_space, env_id, "observation")
    action_box = _require_float_box(env.action_space, env_id, "action")
    is_finite = np.isfinite(action_box.low) & np.isfinite(action_box.high)
    if not is_finite.all():
        raise UnsupportedSpacesError(
            f"{env_id}: got action space {_on_one_line(action_box)}, expected finite bounds"
        )
    return observation_box, action_box


def _require_float_box(space: spaces.Space[Any], env_id: str, kind: str) -> spaces.Box:
    if isinstance(space, spaces.Box):
        is_float = np.issubdtype(space.dtype, np.floating)
        if is_float and len(space.shape) == 1 and space.shape[0] > 0:
            return space
    raise UnsupportedSpacesError(
        f"{env_id}: got {kind} space {_on_one_line(space)}, "
        "expected a one-dimensional Box of floats such as Box(-1, 1, (3,), float32)"
    )


def _on_one_line(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else f"{text[:117]}..."
