"""Ball and beam: an unstable task that ends when the ball rolls off."""

import math
from dataclasses import dataclass
from typing import final

from envs.base import ControlTask, State, TaskParameters, clipped, parameter, runge_kutta_4
from envs.physics import Ranges

STEP_S = 0.04
TILT_LIMIT_RAD = 0.8
BALL_SPEED_LIMIT_M_S = 10.0
BEAM_SPEED_LIMIT_RAD_S = 20.0
ACTION_COST = 0.02


@dataclass(frozen=True)
class BallAndBeamParameters(TaskParameters):
    """Physics of `BallAndBeam`."""

    ball_mass_kg: float = parameter(0.1, 0.02, 0.5)
    beam_half_length_m: float = parameter(1.0, 0.5, 2.0)
    beam_inertia_kg_m2: float = parameter(0.2, 0.05, 2.0)
    gravity_m_s2: float = parameter(9.81, 0.0, 25.0)
    ball_friction_ns_m: float = parameter(0.0, 0.0, 0.5)
    beam_friction_nms: float = parameter(0.1, 0.0, 2.0)
    torque_limit_nm: float = parameter(3.0, 0.0, 20.0)


@final
class BallAndBeam(ControlTask[BallAndBeamParameters]):
    """A ball that must not roll off a beam.

    ## Description
    A solid ball rolls without slipping on a beam that turns about its middle; its size is
    neglected. With ball position r and beam tilt a:
    7/5 m r'' = m r a'^2 - m g sin(a) - c r' and
    (I + m r^2) a'' = torque - 2 m r r' a' - m g r cos(a) - b a'.
    One classical Runge-Kutta step of 0.04 s per control step. The tilt ends at stops of 0.8 rad
    which take all speed; speeds saturate at the limits of the observation.

    ## Action Space
    `Box(-1, 1, (1,), float32)`: torque on the beam as a fraction of `torque_limit_nm`.

    ## Observation Space
    | Index | Meaning                     | Min  | Max | Unit  |
    |-------|-----------------------------|------|-----|-------|
    | 0     | ball position on the beam   | -2.5 | 2.5 | m     |
    | 1     | ball speed along the beam   | -10  | 10  | m/s   |
    | 2     | beam tilt                   | -0.8 | 0.8 | rad   |
    | 3     | beam angular speed          | -20  | 20  | rad/s |

    ## Rewards
    1 - (position / half length)^2 / 2 - 0.02 action^2 for every step after which the ball is on
    the beam, 0 for the step in which it falls.

    ## Starting State
    Position uniform within half of the half length, tilt uniform in [-0.1, 0.1] rad, at rest.
    `state` is the observation.

    ## Episode End
    Terminates when the ball is beyond an end of the beam; truncated after 250 steps (10 s).

    ## Arguments
    The fields of `BallAndBeamParameters`, and `randomise`, a mapping from their names to (low,
    high).

    ## Version History
    - v0: first version.
    """

    def __init__(self, randomise: Ranges | None = None, **parameters: float) -> None:
        limits = (2.5, BALL_SPEED_LIMIT_M_S, TILT_LIMIT_RAD, BEAM_SPEED_LIMIT_RAD_S)
        super().__init__(BallAndBeamParameters.given(parameters), limits, 1, randomise)

    def _initial_state(self) -> State:
        position = self._uniform(0.5 * self.parameters.beam_half_length_m)
        return (position, 0.0, self._uniform(0.1), 0.0)

    def _advance(self, controls: list[float]) -> tuple[float, bool]:
        torque_nm = controls[0] * self.parameters.torque_limit_nm
        position, speed, tilt, turn = self._integrated(torque_nm)
        if abs(tilt) > TILT_LIMIT_RAD:
            tilt, turn = clipped(tilt, TILT_LIMIT_RAD), 0.0
        speed = clipped(speed, BALL_SPEED_LIMIT_M_S)
        turn = clipped(turn, BEAM_SPEED_LIMIT_RAD_S)
        self.state = (clipped(position, 2.5), speed, tilt, turn)
        offset = position / self.parameters.beam_half_length_m
        if abs(offset) > 1.0:
            return 0.0, True
        return 1.0 - 0.5 * offset**2 - ACTION_COST * controls[0] ** 2, False

    def _integrated(self, torque_nm: float) -> State:
        physics = self.parameters
        mass, inertia = physics.ball_mass_kg, physics.beam_inertia_kg_m2
        gravity, friction = physics.gravity_m_s2, physics.ball_friction_ns_m / mass
        beam_friction = physics.beam_friction_nms

        def derivative(state: State) -> State:
            position, speed, tilt, turn = state
            rolling = position * turn * turn - gravity * math.sin(tilt) - friction * speed
            moment = mass * position * (2.0 * speed * turn + gravity * math.cos(tilt))
            turning = torque_nm - moment - beam_friction * turn
            return (
                speed,
                rolling / 1.4,  # 7/5: a solid ball's rolling adds 2/5 to its inertia
                turn,
                turning / (inertia + mass * position * position),
            )

        return runge_kutta_4(derivative, self.state, STEP_S)

    def _observe(self) -> State:
        return self.state
