"""Planar quadrotor: a survival task with two motors that have to share lift and balance."""

import math
from dataclasses import dataclass
from typing import final

from envs.base import ControlTask, State, TaskParameters, clipped, parameter
from envs.physics import Ranges

SUBSTEP_S = 0.01
SUBSTEPS = 3
CAGE_M = 2.0
TILT_LIMIT_RAD = 1.2
SPEED_LIMIT_M_S = 10.0
TURN_LIMIT_RAD_S = 20.0


@dataclass(frozen=True)
class QuadrotorParameters(TaskParameters):
    """Physics of `Quadrotor`."""

    mass_kg: float = parameter(1.0, 0.5, 2.0)
    arm_m: float = parameter(0.2, 0.1, 0.5)
    inertia_kg_m2: float = parameter(0.02, 0.005, 0.1)
    gravity_m_s2: float = parameter(9.81, 0.0, 20.0)
    drag_ns_m: float = parameter(0.1, 0.0, 2.0)
    wind_n: float = parameter(0.0, -2.0, 2.0)
    spin_drag_nms: float = parameter(0.02, 0.0, 0.2)
    mean_thrust_n: float = parameter(4.905, 2.0, 15.0)
    thrust_span_n: float = parameter(2.5, 0.0, 10.0)


@final
class Quadrotor(ControlTask[QuadrotorParameters]):
    """A flying beam with two rotors that must stay upright and near the middle of its cage.

    ## Description
    A rigid body in a vertical plane. Each rotor pushes along the body's upward axis with
    max(0, mean thrust + span * action); their difference turns the body. A steady wind blows
    along x, drag is linear. Three semi-implicit Euler steps of 0.01 s per control step: first the
    speeds, then the places with the new speeds. Speeds saturate at the limits of the observation.

    ## Action Space
    `Box(-1, 1, (2,), float32)`: left and right rotor; 0 is `mean_thrust_n`, which carries the
    default mass, and +-1 are `thrust_span_n` more or less.

    ## Observation Space
    | Index | Meaning                          | Min | Max | Unit  |
    |-------|----------------------------------|-----|-----|-------|
    | 0     | sideways position                | -3  | 3   | m     |
    | 1     | height above the middle          | -3  | 3   | m     |
    | 2     | tilt, positive to the left       | -3  | 3   | rad   |
    | 3     | sideways speed                   | -10 | 10  | m/s   |
    | 4     | upward speed                     | -10 | 10  | m/s   |
    | 5     | angular speed                    | -20 | 20  | rad/s |

    ## Rewards
    1 - tanh(distance to the middle in m) / 2 for every step survived, 0 for the step that ends it.

    ## Starting State
    Position uniform in [-0.5, 0.5]^2 m, tilt, speeds and angular speed uniform in [-0.1, 0.1].
    `state` is the observation.

    ## Episode End
    Terminates when |x| or |y| exceeds 2 m or the tilt exceeds 1.2 rad; truncated after 300 steps
    (9 s).

    ## Arguments
    The fields of `QuadrotorParameters`, and `randomise`, a mapping from their names to (low,
    high).

    ## Version History
    - v0: first version.
    """

    def __init__(self, randomise: Ranges | None = None, **parameters: float) -> None:
        speed = SPEED_LIMIT_M_S
        limits = (3.0, 3.0, 3.0, speed, speed, TURN_LIMIT_RAD_S)
        super().__init__(QuadrotorParameters.given(parameters), limits, 2, randomise)

    def _initial_state(self) -> State:
        place = (self._uniform(0.5), self._uniform(0.5))
        return (*place, *[self._uniform(0.1) for _ in range(4)])

    def _advance(self, controls: list[float]) -> tuple[float, bool]:
        physics = self.parameters
        left = max(0.0, physics.mean_thrust_n + physics.thrust_span_n * controls[0])
        right = max(0.0, physics.mean_thrust_n + physics.thrust_span_n * controls[1])
        for _ in range(SUBSTEPS):
            self.state = self._after_substep(left + right, (right - left) * physics.arm_m)
        x, y, tilt, _, _, _ = self.state
        has_failed = abs(x) > CAGE_M or abs(y) > CAGE_M or abs(tilt) > TILT_LIMIT_RAD
        return (0.0, True) if has_failed else (1.0 - 0.5 * math.tanh(math.hypot(x, y)), False)

    def _after_substep(self, lift_n: float, moment_nm: float) -> State:
        physics = self.parameters
        x, y, tilt, speed_x, speed_y, turn = self.state
        pace = SUBSTEP_S / physics.mass_kg
        drag, wind = physics.drag_ns_m, physics.wind_n
        speed_x += pace * (wind - lift_n * math.sin(tilt) - drag * speed_x)
        speed_y += pace * (lift_n * math.cos(tilt) - drag * speed_y)
        speed_y -= SUBSTEP_S * physics.gravity_m_s2
        turn += SUBSTEP_S * (moment_nm - physics.spin_drag_nms * turn) / physics.inertia_kg_m2
        speed_x = clipped(speed_x, SPEED_LIMIT_M_S)
        speed_y = clipped(speed_y, SPEED_LIMIT_M_S)
        turn = clipped(turn, TURN_LIMIT_RAD_S)
        return (
            x + SUBSTEP_S * speed_x,
            y + SUBSTEP_S * speed_y,
            tilt + SUBSTEP_S * turn,
            speed_x,
            speed_y,
            turn,
        )

    def _observe(self) -> State:
        return self.state
