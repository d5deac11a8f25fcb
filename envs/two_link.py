"""Two-link arms: the acrobot swings up by its elbow alone, the reacher points at a target.

Both are two uniform rods in a chain; only gravity and the motors differ.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from envs.base import ControlTask, State, TaskParameters, clipped, parameter, runge_kutta_4
from envs.physics import Ranges

SUBSTEP_S = 0.025
SPEED_LIMIT_RAD_S = 40.0
ACTION_COST = 0.02
REACH_SHARPNESS = 3.0


@dataclass(frozen=True)
class TwoLinkParameters(TaskParameters):
    """Physics of a two-link arm."""

    upper_mass_kg: float = parameter(1.0, 0.5, 4.0)
    lower_mass_kg: float = parameter(1.0, 0.5, 4.0)
    upper_length_m: float = parameter(1.0, 0.5, 2.0)
    lower_length_m: float = parameter(1.0, 0.5, 2.0)
    friction_nms: float = parameter(0.05, 0.0, 0.2)


@dataclass(frozen=True)
class AcrobotParameters(TwoLinkParameters):
    """Physics of `Acrobot`."""

    gravity_m_s2: float = parameter(9.81, 0.0, 25.0)
    torque_limit_nm: float = parameter(8.0, 0.0, 20.0)


@dataclass(frozen=True)
class ReacherParameters(TwoLinkParameters):
    """Physics of `Reacher`."""

    upper_torque_limit_nm: float = parameter(5.0, 0.0, 20.0)
    lower_torque_limit_nm: float = parameter(2.5, 0.0, 20.0)


def two_link_derivative(
    physics: TwoLinkParameters, gravity_m_s2: float, upper_torque_nm: float, lower_torque_nm: float
) -> Callable[[State], State]:
    """Return the derivative of (q1, q2, q1', q2') under constant joint torques.

    q1 is the upper link's angle from hanging, q2 the lower link's angle relative to the upper.
    M(q) q'' + C(q, q') + G(q) = torque - b q', with rods of inertia m l^2 / 12 about their
    middles (Spong, Hutchinson and Vidyasagar, Robot Modeling and Control, section 7.3).
    """
    upper_mass, lower_mass = physics.upper_mass_kg, physics.lower_mass_kg
    upper_length, half_lower = physics.upper_length_m, 0.5 * physics.lower_length_m
    lower_inertia = lower_mass * physics.lower_length_m**2 / 3.0
    upper_inertia = (upper_mass / 3.0 + lower_mass) * upper_length**2
    coupling = lower_mass * upper_length * half_lower
    upper_weight = (0.5 * upper_mass + lower_mass) * upper_length * gravity_m_s2
    lower_weight = lower_mass * half_lower * gravity_m_s2
    friction = physics.friction_nms

    def derivative(state: State) -> State:
        upper, lower, upper_speed, lower_speed = state
        coupled = coupling * math.cos(lower)
        twist = coupling * math.sin(lower)
        m11 = upper_inertia + lower_inertia + 2.0 * coupled
        m12 = lower_inertia + coupled
        lower_pull = lower_weight * math.sin(upper + lower)
        right1 = (
            upper_torque_nm
            - friction * upper_speed
            + twist * lower_speed * (2.0 * upper_speed + lower_speed)
            - upper_weight * math.sin(upper)
            - lower_pull
        )
        right2 = lower_torque_nm - friction * lower_speed - twist * upper_speed**2 - lower_pull
        determinant = m11 * lower_inertia - m12 * m12
        return (
            upper_speed,
            lower_speed,
            (lower_inertia * right1 - m12 * right2) / determinant,
            (m11 * right2 - m12 * right1) / determinant,
        )

    return derivative


def two_link_after(derivative: Callable[[State], State], state: State) -> State:
    """Return the state two substeps later, with saturated joint speeds."""
    for _ in range(2):
        upper, lower, upper_speed, lower_speed = runge_kutta_4(derivative, state, SUBSTEP_S)
        state = (
            upper,
            lower,
            clipped(upper_speed, SPEED_LIMIT_RAD_S),
            clipped(lower_speed, SPEED_LIMIT_RAD_S),
        )
    return state


@final
class Acrobot(ControlTask[AcrobotParameters]):
    """A gymnast on a bar who can only bend at the hip.

    ## Description
    Two uniform rods hang from a fixed hinge; a motor drives the joint between them. Equations of
    motion in `two_link_derivative`; two classical Runge-Kutta steps of 0.025 s per control step;
    joint speeds saturate at 40 rad/s.

    ## Action Space
    `Box(-1, 1, (1,), float32)`: torque between the links as a fraction of `torque_limit_nm`.

    ## Observation Space
    | Index | Meaning                                       | Min | Max | Unit  |
    |-------|-----------------------------------------------|-----|-----|-------|
    | 0     | cosine of the upper link's angle from hanging | -1  | 1   | -     |
    | 1     | sine of the upper link's angle from hanging   | -1  | 1   | -     |
    | 2     | cosine of the lower link's relative angle     | -1  | 1   | -     |
    | 3     | sine of the lower link's relative angle       | -1  | 1   | -     |
    | 4     | upper link's angular speed                    | -40 | 40  | rad/s |
    | 5     | lower link's relative angular speed           | -40 | 40  | rad/s |

    ## Rewards
    Height of the tip between its lowest (0) and highest (1) point - 0.02 action^2.

    ## Starting State
    Hanging: all four state variables uniform in [-0.1, 0.1]. `state` is (q1, q2, q1', q2').

    ## Episode End
    Never terminates; truncated after 300 steps (15 s).

    ## Arguments
    The fields of `AcrobotParameters`, and `randomise`, a mapping from their names to (low, high).

    ## Version History
    - v0: first version.
    """

    def __init__(self, randomise: Ranges | None = None, **parameters: float) -> None:
        limits = (1.0, 1.0, 1.0, 1.0, SPEED_LIMIT_RAD_S, SPEED_LIMIT_RAD_S)
        super().__init__(AcrobotParameters.given(parameters), limits, 1, randomise)

    def _initial_state(self) -> State:
        return tuple([self._uniform(0.1) for _ in range(4)])

    def _advance(self, controls: list[float]) -> tuple[float, bool]:
        physics = self.parameters
        torque_nm = controls[0] * physics.torque_limit_nm
        derivative = two_link_derivative(physics, physics.gravity_m_s2, 0.0, torque_nm)
        self.state = two_link_after(derivative, self.state)
        upper, lower, _, _ = self.state
        tip_m = -physics.upper_length_m * math.cos(upper)
        tip_m -= physics.lower_length_m * math.cos(upper + lower)
        reach_m = physics.upper_length_m + physics.lower_length_m
        return 0.5 * (1.0 + tip_m / reach_m) - ACTION_COST * controls[0] ** 2, False

    def _observe(self) -> State:
        return _joint_features(self.state)


@final
class Reacher(ControlTask[ReacherParameters]):
    """An arm on a table that has to bring its fingertip to a target.

    ## Description
    Two uniform rods move in the horizontal plane, so there is no gravity, and both joints are
    driven. Equations of motion in `two_link_derivative`; two classical Runge-Kutta steps of
    0.025 s per control step; joint speeds saturate at 40 rad/s.

    ## Action Space
    `Box(-1, 1, (2,), float32)`: torques of the upper and the lower joint as fractions of
    `upper_torque_limit_nm` and `lower_torque_limit_nm`.

    ## Observation Space
    | Index | Meaning                                      | Min | Max | Unit  |
    |-------|----------------------------------------------|-----|-----|-------|
    | 0     | cosine of the upper link's angle             | -1  | 1   | -     |
    | 1     | sine of the upper link's angle               | -1  | 1   | -     |
    | 2     | cosine of the lower link's relative angle    | -1  | 1   | -     |
    | 3     | sine of the lower link's relative angle      | -1  | 1   | -     |
    | 4     | upper link's angular speed                   | -40 | 40  | rad/s |
    | 5     | lower link's relative angular speed          | -40 | 40  | rad/s |
    | 6     | from fingertip to target, first axis         | -8  | 8   | m     |
    | 7     | from fingertip to target, second axis        | -8  | 8   | m     |

    ## Rewards
    1 - tanh(3 distance / arm length) - 0.02 mean(action^2), with the distance from fingertip to
    target after the step: between -0.02 and 1.

    ## Starting State
    Joint angles uniform over the circle, at rest; target at a uniform angle and a uniform
    distance of 0.3 to 0.9 arm lengths from the upper joint. `state` is (q1, q2, q1', q2'), and
    `target_m` is the target's place.

    ## Episode End
    Never terminates; truncated after 200 steps (10 s).

    ## Arguments
    The fields of `ReacherParameters`, and `randomise`, a mapping from their names to (low, high).

    ## Version History
    - v0: first version.
    """

    def __init__(self, randomise: Ranges | None = None, **parameters: float) -> None:
        speed = SPEED_LIMIT_RAD_S
        limits = (1.0, 1.0, 1.0, 1.0, speed, speed, 8.0, 8.0)
        super().__init__(ReacherParameters.given(parameters), limits, 2, randomise)
        self.target_m = (0.0, 0.0)

    def _initial_state(self) -> State:
        angle = self._uniform(math.pi)
        distance_m = (0.6 + self._uniform(0.3)) * self._arm_length_m()
        self.target_m = (distance_m * math.cos(angle), distance_m * math.sin(angle))
        return (self._uniform(math.pi), self._uniform(math.pi), 0.0, 0.0)

    def _advance(self, controls: list[float]) -> tuple[float, bool]:
        physics = self.parameters
        derivative = two_link_derivative(
            physics,
            0.0,
            controls[0] * physics.upper_torque_limit_nm,
            controls[1] * physics.lower_torque_limit_nm,
        )
        self.state = two_link_after(derivative, self.state)
        distance = math.hypot(*self._to_target_m()) / self._arm_length_m()
        cost = ACTION_COST * 0.5 * (controls[0] ** 2 + controls[1] ** 2)
        return 1.0 - math.tanh(REACH_SHARPNESS * distance) - cost, False

    def _observe(self) -> State:
        return (*_joint_features(self.state), *self._to_target_m())

    def _arm_length_m(self) -> float:
        return self.parameters.upper_length_m + self.parameters.lower_length_m

    def _to_target_m(self) -> tuple[float, float]:
        upper, lower = self.state[0], self.state[0] + self.state[1]
        upper_m, lower_m = self.parameters.upper_length_m, self.parameters.lower_length_m
        return (
            self.target_m[0] - upper_m * math.cos(upper) - lower_m * math.cos(lower),
            self.target_m[1] - upper_m * math.sin(upper) - lower_m * math.sin(lower),
        )


def _joint_features(state: State) -> State:
    upper, lower, upper_speed, lower_speed = state
    return (
        math.cos(upper),
        math.sin(upper),
        math.cos(lower),
        math.sin(lower),
        upper_speed,
        lower_speed,
    )
