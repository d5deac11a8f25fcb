"""Mountain car: every step costs, so the way to more return is to end the episode early."""

import math
from dataclasses import dataclass
from typing import final

from envs.base import ControlTask, State, TaskParameters, clipped, parameter, runge_kutta_4
from envs.physics import Ranges

SUBSTEP_S = 0.025
LEFT_END_M = -1.2
GOAL_M = 0.5
SPEED_LIMIT_M_S = 10.0
ACTION_COST = 0.05


@dataclass(frozen=True)
class MountainCarParameters(TaskParameters):
    """Physics of `MountainCar`."""

    mass_kg: float = parameter(1.0, 0.2, 5.0)
    hill_m: float = parameter(0.4, 0.1, 0.8)
    gravity_m_s2: float = parameter(9.81, 0.0, 25.0)
    friction_ns_m: float = parameter(0.05, 0.0, 1.0)
    force_limit_n: float = parameter(3.0, 0.0, 20.0)


@final
class MountainCar(ControlTask[MountainCarParameters]):
    """A car in a valley whose engine is too weak for the slope.

    ## Description
    A point mass slides on the track h(x) = hill sin(3 x) without leaving it:
    (1 + h'^2) x'' = -h' h'' x'^2 - g h' + sqrt(1 + h'^2) force / m - (1 + h'^2) b x' / m.
    Two classical Runge-Kutta steps of 0.025 s per control step. The left end is a wall which
    takes all speed; the speed saturates at 10 m/s.

    ## Action Space
    `Box(-1, 1, (1,), float32)`: force along the track as a fraction of `force_limit_n`.

    ## Observation Space
    | Index | Meaning            | Min  | Max | Unit |
    |-------|--------------------|------|-----|------|
    | 0     | position x         | -1.2 | 1.2 | m    |
    | 1     | horizontal speed   | -10  | 10  | m/s  |

    ## Rewards
    (sin(3 x) - 1) / 2 - 0.05 action^2, after the step: between -1.05 and 0, highest on top.

    ## Starting State
    Position uniform in [-0.6, -0.4] m (the bottom of the valley is at -0.524 m), at rest.
    `state` is the observation.

    ## Episode End
    Terminates when x is 0.5 m or more; truncated after 200 steps (10 s).

    ## Arguments
    The fields of `MountainCarParameters`, and `randomise`, a mapping from their names to (low,
    high).

    ## Version History
    - v0: first version.
    """

    def __init__(self, randomise: Ranges | None = None, **parameters: float) -> None:
        limits = (-LEFT_END_M, SPEED_LIMIT_M_S)
        super().__init__(MountainCarParameters.given(parameters), limits, 1, randomise)

    def _initial_state(self) -> State:
        return (-0.5 + self._uniform(0.1), 0.0)

    def _advance(self, controls: list[float]) -> tuple[float, bool]:
        physics = self.parameters
        push = controls[0] * physics.force_limit_n / physics.mass_kg
        hill, gravity = physics.hill_m, physics.gravity_m_s2
        friction = physics.friction_ns_m / physics.mass_kg

        def derivative(state: State) -> State:
            position, speed = state
            slope = 3.0 * hill * math.cos(3.0 * position)
            bend = -9.0 * hill * math.sin(3.0 * position)
            stretch = 1.0 + slope * slope
            pull = slope * (bend * speed * speed + gravity) / stretch
            return (speed, push / math.sqrt(stretch) - pull - friction * speed)

        halfway = runge_kutta_4(derivative, self.state, SUBSTEP_S)
        position, speed = runge_kutta_4(derivative, halfway, SUBSTEP_S)
        if position < LEFT_END_M:
            position, speed = LEFT_END_M, 0.0
        position = min(position, -LEFT_END_M)
        self.state = (position, clipped(speed, SPEED_LIMIT_M_S))
        height = 0.5 * (math.sin(3.0 * position) - 1.0)
        return height - ACTION_COST * controls[0] ** 2, position >= GOAL_M

    def _observe(self) -> State:
        return self.state
