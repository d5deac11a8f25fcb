"""What the NumPy tasks share: validated parameters, random physics, seeding and one step shape.

A task keeps its state as a tuple of Python floats, because arithmetic on a few numbers is faster
in plain Python than in arrays. This module must not know any task.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.errors import InvalidEnvironmentError, did_you_mean
from envs.physics import Ranges, checked_ranges, drawn, require_within

FloatArray = NDArray[np.float32]
State = tuple[float, ...]


def parameter(default: float, low: float, high: float) -> float:
    """Return a dataclass field with a default and the range that is physically sensible."""
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True)
class TaskParameters:
    """Physical parameters of a task; every field is made by `parameter` and ends in its unit."""

    def __post_init__(self) -> None:
        """Refuse a value that is outside its range.

        Raises:
            InvalidEnvironmentError: a value is not a number or not in its range.
        """
        for name, allowed in self.ranges().items():
            require_within(type(self).__name__, name, getattr(self, name), allowed)

    @classmethod
    def ranges(cls) -> Ranges:
        """Return the allowed range of every parameter, in the order of the fields."""
        return {item.name: item.metadata["range"] for item in fields(cls)}

    @classmethod
    def given(cls, values: Mapping[str, float]) -> Self:
        """Return the defaults with `values` in place.

        Raises:
            InvalidEnvironmentError: a name is unknown or a value is not in its range.
        """
        supported = cls.ranges()
        for name in values:
            if name not in supported:
                raise InvalidEnvironmentError(
                    f"{cls.__name__} has no parameter '{name}'."
                    f"{did_you_mean(name, supported)} Supported: {', '.join(supported)}"
                )
        return cls(**values)


ParametersT = TypeVar("ParametersT", bound=TaskParameters)


class ControlTask(gymnasium.Env[FloatArray, FloatArray], Generic[ParametersT]):
    """A control task with a few state variables.

    A task defines `_initial_state`, `_advance` and `_observe`. Actions are in [-1, 1]; what lies
    outside is clipped.

    Attributes:
        parameters: the physics of this episode.
        state: the state variables, in the order that the task documents.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # pyright: ignore[reportIncompatibleVariableOverride]  # Gymnasium declares it mutable

    def __init__(
        self,
        nominal: ParametersT,
        observation_limits: tuple[float, ...],
        act_size: int,
        randomise: Ranges | None,
    ) -> None:
        """Build the spaces.

        Args:
            nominal: the parameters that hold where nothing is randomised.
            observation_limits: highest absolute value of each observation entry.
            act_size: number of action dimensions.
            randomise: ranges that parameters are drawn from at every reset.
        """
        high = np.array(observation_limits, dtype=np.float32)
        self.observation_space = spaces.Box(-high, high, dtype=np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (act_size,), dtype=np.float32)
        self.parameters = nominal
        self.state: State = ()
        self._nominal = nominal
        self._ranges: Ranges = {}
        self.randomise(randomise or {})

    def randomise(self, ranges: Ranges) -> None:
        """Draw these parameters at every later reset; {} stops it.

        Raises:
            InvalidEnvironmentError: a parameter is unknown or a range is not sensible.
        """
        self._ranges = checked_ranges(type(self).__name__, ranges, self._nominal.ranges())

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Draw the physics, then the start state, both from `np_random`; no options exist."""
        super().reset(seed=seed)
        self.parameters = replace(self._nominal, **drawn(self._ranges, self.np_random))
        self.state = self._initial_state()
        return np.array(self._observe(), dtype=np.float32), {}

    def step(self, action: FloatArray) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Advance by one control step; the time limit is a wrapper's business."""
        controls = [clipped(value, 1.0) for value in action.tolist()]
        reward, terminated = self._advance(controls)
        return np.array(self._observe(), dtype=np.float32), reward, terminated, False, {}

    def _uniform(self, magnitude: float) -> float:
        """Draw uniformly from [-magnitude, magnitude]."""
        return float(self.np_random.uniform(-magnitude, magnitude))

    @abstractmethod
    def _initial_state(self) -> State:
        """Draw the state an episode starts in."""

    @abstractmethod
    def _advance(self, controls: list[float]) -> tuple[float, bool]:
        """Replace `state` by the next one; return the reward and whether the episode terminated."""

    @abstractmethod
    def _observe(self) -> State:
        """Return the observation that belongs to `state`."""


def clipped(value: float, limit: float) -> float:
    """Return the value nearest to `value` in [-limit, limit]."""
    return -limit if value < -limit else min(value, limit)


def runge_kutta_4(derivative: Callable[[State], State], state: State, step_s: float) -> State:
    """Integrate dy/dt = derivative(y) over `step_s` by the classical fourth-order method."""
    half_s = 0.5 * step_s
    k1 = derivative(state)
    k2 = derivative(tuple([y + half_s * k for y, k in zip(state, k1, strict=True)]))
    k3 = derivative(tuple([y + half_s * k for y, k in zip(state, k2, strict=True)]))
    k4 = derivative(tuple([y + step_s * k for y, k in zip(state, k3, strict=True)]))
    sixth_s = step_s / 6.0
    return tuple(
        [
            y + sixth_s * (a + 2.0 * (b + c) + d)
            for y, a, b, c, d in zip(state, k1, k2, k3, k4, strict=True)
        ]
    )
