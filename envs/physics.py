"""Physics parameters drawn anew for every episode, for our tasks, MuJoCo and the lunar lander.

Drawing uses the environment's own generator, so one seed fixes the start state and the physics.
This module must not know spaces, episodes or rewards.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, final

import numpy as np

from envs.errors import InvalidEnvironmentError, did_you_mean

Range = tuple[float, float]
"""Lowest and highest value, both allowed."""

Ranges = Mapping[str, Range]
"""Parameter name to range."""


class _MujocoTask(Protocol):
    model: Any  # mujoco is an optional package
    data: Any


class _Lander(Protocol):
    enable_wind: bool
    wind_power: float
    turbulence_power: float


class Physics(Protocol):
    """Something whose physics can be set between two episodes."""

    def apply(self, values: Mapping[str, float]) -> None:
        """Use these values from the next reset on."""
        ...


def checked_ranges(env_id: str, ranges: Ranges, supported: Ranges) -> dict[str, Range]:
    """Return the ranges sorted by name, so that the order they were written in changes nothing.

    Raises:
        InvalidEnvironmentError: a parameter is unknown, or its range is not two finite numbers
            in order inside the supported range.
    """
    checked: dict[str, Range] = {}
    for name in sorted(ranges):
        if name not in supported:
            raise InvalidEnvironmentError(
                f"{env_id} has no parameter '{name}' to randomise."
                f"{did_you_mean(name, supported)} Supported: {', '.join(supported)}"
            )
        checked[name] = _checked_range(env_id, name, ranges[name], supported[name])
    return checked


def _checked_range(env_id: str, name: str, given: Range, allowed: Range) -> Range:
    try:
        low, high = (float(bound) for bound in given)
    except (TypeError, ValueError) as error:
        raise InvalidEnvironmentError(
            f"{env_id}: randomise '{name}' got {given!r}, expected two numbers [low, high]"
        ) from error
    if not allowed[0] <= low <= high <= allowed[1]:
        raise InvalidEnvironmentError(
            f"{env_id}: randomise '{name}' got [{low:g}, {high:g}], "
            f"expected low <= high within [{allowed[0]:g}, {allowed[1]:g}]"
        )
    return low, high


def drawn(ranges: Ranges, generator: np.random.Generator) -> dict[str, float]:
    """Draw one value per parameter, uniformly and independently, in the order of `ranges`."""
    return {name: float(generator.uniform(low, high)) for name, (low, high) in ranges.items()}


@final
class MujocoPhysics:
    """Scales a MuJoCo model's own arrays; 1 is the model as its file describes it."""

    supported: ClassVar[Ranges] = {
        "mass": (0.1, 10.0),
        "friction": (0.0, 10.0),
        "damping": (0.0, 10.0),
        "gravity": (0.0, 10.0),
    }

    def __init__(self, task: _MujocoTask) -> None:
        model = task.model
        self._model = model
        self._data = task.data
        self._body_mass = model.body_mass.copy()
        self._body_inertia = model.body_inertia.copy()
        self._geom_friction = model.geom_friction.copy()
        self._dof_damping = model.dof_damping.copy()
        self._gravity = model.opt.gravity.copy()

    def apply(self, values: Mapping[str, float]) -> None:
        """Scale masses with inertias, friction, joint damping and gravity by the given factors."""
        import mujoco

        model = self._model
        mass = values.get("mass", 1.0)
        model.body_mass[:] = self._body_mass * mass
        model.body_inertia[:] = self._body_inertia * mass
        model.geom_friction[:] = self._geom_friction * values.get("friction", 1.0)
        model.dof_damping[:] = self._dof_damping * values.get("damping", 1.0)
        model.opt.gravity[:] = self._gravity * values.get("gravity", 1.0)
        # The solver uses inverse inertias that MuJoCo computed when it loaded the model.
        mujoco.mj_setConst(model, self._data)  # pyright: ignore[reportAttributeAccessIssue]  # has no stub


@final
class LanderPhysics:
    """Sets the lunar lander's gravity (m/s^2) and the strengths of its wind and turbulence.

    Wind blows as soon as one of the two strengths is randomised; where the environment was made
    without wind, the strength that is not randomised is then zero.
    """

    supported: ClassVar[Ranges] = {
        "gravity": (-12.0, 0.0),
        "wind_power": (0.0, 20.0),
        "turbulence_power": (0.0, 2.0),
    }

    def __init__(self, lander: _Lander, names: frozenset[str]) -> None:
        self._lander = lander
        if names & {"wind_power", "turbulence_power"} and not lander.enable_wind:
            lander.enable_wind = True
            lander.wind_power = 0.0
            lander.turbulence_power = 0.0

    def apply(self, values: Mapping[str, float]) -> None:
        """Set the attributes; the lander builds its world from them at reset."""
        for name, value in values.items():
            setattr(self._lander, name, value)


def require_within(owner: str, name: str, value: object, allowed: Range) -> None:
    """Refuse a physics parameter that is not a number inside its range.

    Raises:
        InvalidEnvironmentError: it is not.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not allowed[0] <= value <= allowed[1]
    ):
        raise InvalidEnvironmentError(
            f"{owner}: {name} got {value!r}, "
            f"expected a number within [{allowed[0]:g}, {allowed[1]:g}]"
        )
