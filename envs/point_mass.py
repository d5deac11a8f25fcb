"""Point mass: pushing a puck through air or oil to a target, the easiest task with two actions."""

import math
from dataclasses import dataclass
from typing import final

from envs.base import ControlTask, State, TaskParameters, clipped, parameter
from envs.physics import Ranges

STEP_S = 0.05
WALL_M = 1.5
SPEED_LIMIT_M_S = 10.0
ACTION_COST = 0.02


@dataclass(frozen=True)
class PointMassParameters(TaskParameters):
    """Physics of `PointMass`."""

    mass_kg: float = parameter(1.0, 0.2, 5.0)
    drag_ns_m: float = parameter(0.5, 0.0, 5.0)
    quadratic_drag_ns2_m2: float = parameter(0.1, 0.0, 1.0)
    force_limit_n: float = parameter(3.0, 0.0, 20.0)


@final
class PointMass(ControlTask[PointMassParameters]):
    """A puck that has to be brought to rest on a target.

    ## Description
    A mass moves in a square with walls that take all speed across them:
    m v' = force - (d + e |v|) v. One semi-implicit Euler step of 0.05 s per control step: first
    the speed, then the position with the new speed. Each speed saturates at 10 m/s.

    ## Action Space
    `Box(-1, 1, (2,), float32)`: force along each axis as a fraction of `force_limit_n`.

    ## Observation Space
    | Index | Meaning                              | Min  | Max | Unit |
    |-------|--------------------------------------|------|-----|------|
    | 0, 1  | position                             | -1.5 | 1.5 | m    |
    | 2, 3  | speed                                | -10  | 10  | m/s  |
    | 4, 5  | from position to target              | -3   | 3   | m    |

    ## Rewards
    1 - tanh(distance to the target in m) - 0.02 mean(action^2), after the step.

    ## Starting State
    Position and target uniform in [-1.2, 1.2]^2, at rest. `state` is (x, y, x', y'), and
    `target_m` is the target's place.

    ## Episode End
    Never terminates; truncated after 200 steps (10 s).

    ## Arguments
    The fields of `PointMassParameters`, and `randomise`, a mapping from their names to (low,
    high).

    ## Version History
    - v0: first version.
    """

    def __init__(self, randomise: Ranges | None = None, **parameters: float) -> None:
        speed, offset = SPEED_LIMIT_M_S, 2.0 * WALL_M
        limits = (WALL_M, WALL_M, speed, speed, offset, offset)
        super().__init__(PointMassParameters.given(parameters), limits, 2, randomise)
        self.target_m = (0.0, 0.0)

    def _initial_state(self) -> State:
        self.target_m = (self._uniform(1.2), self._uniform(1.2))
        return (self._uniform(1.2), self._uniform(1.2), 0.0, 0.0)

    def _advance(self, controls: list[float]) -> tuple[float, bool]:
        physics = self.parameters
        x, y, speed_x, speed_y = self.state
        drag = physics.drag_ns_m + physics.quadratic_drag_ns2_m2 * math.hypot(speed_x, speed_y)
        # Strong drag on a light mass would overshoot zero within one step.
        kept = max(0.0, 1.0 - drag * STEP_S / physics.mass_kg)
        push = physics.force_limit_n * STEP_S / physics.mass_kg
        x, speed_x = _moved(x, kept * speed_x + push * controls[0])
        y, speed_y = _moved(y, kept * speed_y + push * controls[1])
        self.state = (x, y, speed_x, speed_y)
        distance_m = math.hypot(self.target_m[0] - x, self.target_m[1] - y)
        cost = ACTION_COST * 0.5 * (controls[0] ** 2 + controls[1] ** 2)
        return 1.0 - math.tanh(distance_m) - cost, False

    def _observe(self) -> State:
        x, y, _, _ = self.state
        return (*self.state, self.target_m[0] - x, self.target_m[1] - y)


def _moved(position_m: float, speed_m_s: float) -> tuple[float, float]:
    """Return position and speed along one axis after a step, stopped at a wall."""
    speed_m_s = clipped(speed_m_s, SPEED_LIMIT_M_S)
    position_m += STEP_S * speed_m_s
    if abs(position_m) > WALL_M:
        return clipped(position_m, WALL_M), 0.0
    return position_m, speed_m_s
