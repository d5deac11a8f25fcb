"""Monopod: a body on one springy leg that has to keep hopping, a very small cousin of Hopper."""

import math
from dataclasses import dataclass
from typing import NamedTuple, final

from envs.base import ControlTask, State, TaskParameters, clipped, parameter
from envs.physics import Ranges

SUBSTEP_S = 0.0025
SUBSTEPS = 8
LEG_ANGLE_LIMIT_RAD = 0.8
FALLEN_ANGLE_RAD = 1.0
SPEED_LIMIT_M_S = 10.0
HEIGHT_LIMIT_M = 6.0
ACTION_COST = 0.05


@dataclass(frozen=True)
class MonopodParameters(TaskParameters):
    """Physics of `Monopod`."""

    mass_kg: float = parameter(5.0, 2.0, 10.0)
    leg_length_m: float = parameter(0.8, 0.5, 1.2)
    leg_stiffness_n_m: float = parameter(2000.0, 1000.0, 5000.0)
    leg_damping_ns_m: float = parameter(10.0, 0.0, 50.0)
    gravity_m_s2: float = parameter(9.81, 1.0, 20.0)
    thrust_limit_n: float = parameter(60.0, 0.0, 200.0)
    hip_force_limit_n: float = parameter(15.0, 0.0, 100.0)
    swing_limit_rad_s: float = parameter(6.0, 0.0, 20.0)


class MonopodState(NamedTuple):
    """State of `Monopod`; `leg_angle_rad` is positive with the foot ahead of the body.

    On the ground the foot stays at `foot_m` (0 in flight), and leg length and angle follow from it.
    """

    x_m: float
    height_m: float
    speed_x_m_s: float
    speed_y_m_s: float
    leg_angle_rad: float
    leg_m: float
    foot_m: float
    is_on_ground: float


@final
class Monopod(ControlTask[MonopodParameters]):
    """A one-legged hopper that must not fall and earns more by running forward.

    ## Description
    A point body with a massless telescopic leg moves in a vertical plane, the spring-loaded
    inverted pendulum of running (Blickhan 1989, J. Biomechanics 22, 1217-1227). In flight the
    body falls freely and the leg swings at the commanded rate. From the moment the foot touches
    the ground it stays where it is, and the leg pushes with
    max(0, stiffness (rest length - length) - damping length' + thrust) along itself and with the
    hip force across itself, until it is as long as at rest and growing. Eight semi-implicit Euler
    steps of 0.0025 s per control step: first the speeds, then the places with the new speeds.

    ## Action Space
    `Box(-1, 1, (2,), float32)`.
    0: in flight the leg's swing rate as a fraction of `swing_limit_rad_s`; on the ground the hip
    force that pushes the body forward, as a fraction of `hip_force_limit_n`.
    1: on the ground the extra force along the leg as a fraction of `thrust_limit_n`.

    ## Observation Space
    | Index | Meaning                                     | Min | Max | Unit |
    |-------|---------------------------------------------|-----|-----|------|
    | 0     | height of the body                          | -6  | 6   | m    |
    | 1     | forward speed                               | -10 | 10  | m/s  |
    | 2     | upward speed                                | -10 | 10  | m/s  |
    | 3     | leg angle from vertical, foot ahead of body | -2  | 2   | rad  |
    | 4     | leg length                                  | -2  | 2   | m    |
    | 5     | 1 with the foot on the ground, else 0       | -1  | 1   | -    |

    ## Rewards
    1 + forward speed / 4, the latter clipped to [-0.5, 0.5], - 0.05 mean(action^2) for every step
    survived: between 0.45 and 1.5. 0 for the step in which it falls.

    ## Starting State
    In flight, the foot uniform in [0.05, 0.15] m above the ground, forward speed uniform in
    [-0.2, 0.2] m/s, no upward speed, leg angle uniform in [-0.05, 0.05] rad.

    ## Episode End
    Terminates when the body is lower than half a leg, or the leg leans by more than 1 rad;
    truncated after 400 steps (8 s).

    ## Arguments
    The fields of `MonopodParameters`, and `randomise`, a mapping from their names to (low, high).

    ## Version History
    - v0: first version.
    """

    def __init__(self, randomise: Ranges | None = None, **parameters: float) -> None:
        limits = (HEIGHT_LIMIT_M, SPEED_LIMIT_M_S, SPEED_LIMIT_M_S, 2.0, 2.0, 1.0)
        super().__init__(MonopodParameters.given(parameters), limits, 2, randomise)

    def _initial_state(self) -> State:
        leg_m = self.parameters.leg_length_m
        leg_angle = self._uniform(0.05)
        height_m = leg_m * math.cos(leg_angle) + 0.1 + self._uniform(0.05)
        speed = self._uniform(0.2)
        return MonopodState(0.0, height_m, speed, 0.0, leg_angle, leg_m, 0.0, 0.0)

    def _advance(self, controls: list[float]) -> tuple[float, bool]:
        state = MonopodState(*self.state)
        for _ in range(SUBSTEPS):
            if state.is_on_ground:
                state = self._after_stance(state, controls[0], controls[1])
            else:
                state = self._after_flight(state, controls[0])
        self.state = state
        has_fallen = (
            state.height_m < 0.5 * self.parameters.leg_length_m
            or abs(state.leg_angle_rad) > FALLEN_ANGLE_RAD
        )
        if has_fallen:
            return 0.0, True
        cost = ACTION_COST * 0.5 * (controls[0] ** 2 + controls[1] ** 2)
        return 1.0 + clipped(0.25 * state.speed_x_m_s, 0.5) - cost, False

    def _after_flight(self, state: MonopodState, swing: float) -> MonopodState:
        physics = self.parameters
        leg_m = physics.leg_length_m
        turn = SUBSTEP_S * swing * physics.swing_limit_rad_s
        leg_angle = clipped(state.leg_angle_rad + turn, LEG_ANGLE_LIMIT_RAD)
        speed_x = state.speed_x_m_s
        speed_y = clipped(state.speed_y_m_s - SUBSTEP_S * physics.gravity_m_s2, SPEED_LIMIT_M_S)
        x_m = state.x_m + SUBSTEP_S * speed_x
        height_m = min(state.height_m + SUBSTEP_S * speed_y, HEIGHT_LIMIT_M)
        if speed_y >= 0.0 or height_m > leg_m * math.cos(leg_angle):
            return MonopodState(x_m, height_m, speed_x, speed_y, leg_angle, leg_m, 0.0, 0.0)
        ahead_m = leg_m * math.sin(leg_angle)
        return MonopodState(
            x_m,
            height_m,
            speed_x,
            speed_y,
            math.atan2(ahead_m, height_m),
            math.hypot(ahead_m, height_m),
            x_m + ahead_m,
            1.0,
        )

    def _after_stance(self, state: MonopodState, hip: float, thrust: float) -> MonopodState:
        physics = self.parameters
        # Unit vector along the leg, from the foot to the body.
        along_x = (state.x_m - state.foot_m) / state.leg_m
        along_y = state.height_m / state.leg_m
        growth = state.speed_x_m_s * along_x + state.speed_y_m_s * along_y
        spring = physics.leg_stiffness_n_m * (physics.leg_length_m - state.leg_m)
        extra = thrust * physics.thrust_limit_n - physics.leg_damping_ns_m * growth
        push = max(0.0, spring + extra)
        across = hip * physics.hip_force_limit_n
        pace = SUBSTEP_S / physics.mass_kg
        speed_x = state.speed_x_m_s + pace * (push * along_x + across * along_y)
        speed_y = state.speed_y_m_s + pace * (push * along_y - across * along_x)
        speed_x = clipped(speed_x, SPEED_LIMIT_M_S)
        speed_y = clipped(speed_y - SUBSTEP_S * physics.gravity_m_s2, SPEED_LIMIT_M_S)
        x_m = state.x_m + SUBSTEP_S * speed_x
        # The episode ends below half a leg; until its step is over the body lies on the ground.
        height_m = max(state.height_m + SUBSTEP_S * speed_y, 0.01)
        leg_m = math.hypot(x_m - state.foot_m, height_m)
        leg_angle = math.atan2(state.foot_m - x_m, height_m)
        if leg_m < physics.leg_length_m:
            foot_m = state.foot_m
            return MonopodState(x_m, height_m, speed_x, speed_y, leg_angle, leg_m, foot_m, 1.0)
        leg_m = physics.leg_length_m
        return MonopodState(x_m, height_m, speed_x, speed_y, leg_angle, leg_m, 0.0, 0.0)

    def _observe(self) -> State:
        state = MonopodState(*self.state)
        return (
            state.height_m,
            state.speed_x_m_s,
            state.speed_y_m_s,
            state.leg_angle_rad,
            state.leg_m,
            state.is_on_ground,
        )
