"""Cart and pole: balancing pays for every step survived, swinging up starts from below."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from envs.base import ControlTask, State, TaskParameters, clipped, parameter, runge_kutta_4
from envs.physics import Ranges

STEP_S = 0.02
TRACK_HALF_LENGTH_M = 2.4
ANGLE_LIMIT_RAD = 0.35
CART_SPEED_LIMIT_M_S = 15.0
POLE_SPEED_LIMIT_RAD_S = 40.0
ACTION_COST = 0.02


@dataclass(frozen=True)
class CartPoleParameters(TaskParameters):
    """Physics of both cart-pole tasks."""

    cart_mass_kg: float = parameter(1.0, 0.2, 5.0)
    pole_mass_kg: float = parameter(0.1, 0.02, 1.0)
    pole_length_m: float = parameter(0.5, 0.2, 2.0)
    gravity_m_s2: float = parameter(9.81, 0.0, 25.0)
    cart_friction_ns_m: float = parameter(0.0, 0.0, 2.0)
    pole_friction_nms: float = parameter(0.0, 0.0, 0.05)
    force_limit_n: float = parameter(10.0, 0.0, 50.0)


def cart_pole_derivative(physics: CartPoleParameters, force_n: float) -> Callable[[State], State]:
    """Return the derivative of (x, x', theta, theta') under a constant force on the cart.

    The pole is a point mass m at distance l on a massless rod, theta is measured from upright:
    (M + m) x'' + m l (theta'' cos(theta) - theta'^2 sin(theta)) = force - b x' and
    l theta'' + x'' cos(theta) - g sin(theta) = -c theta' / (m l), solved for x'' and theta''.
    """
    pole_mass, length = physics.pole_mass_kg, physics.pole_length_m
    cart_mass, gravity = physics.cart_mass_kg, physics.gravity_m_s2
    cart_friction, pole_friction = physics.cart_friction_ns_m, physics.pole_friction_nms

    def derivative(state: State) -> State:
        _, speed, angle, turn = state
        sine, cosine = math.sin(angle), math.cos(angle)
        drag = pole_friction * turn / length
        acceleration = (
            force_n
            - cart_friction * speed
            + pole_mass * sine * (length * turn * turn - gravity * cosine)
            + drag * cosine
        ) / (cart_mass + pole_mass * sine * sine)
        turn_rate = (gravity * sine - acceleration * cosine - drag / pole_mass) / length
        return (speed, acceleration, turn, turn_rate)

    return derivative


@final
class CartPoleBalance(ControlTask[CartPoleParameters]):
    """A pole that must not fall.

    ## Description
    A cart on a track carries a pole (a point mass on a massless rod). Equations of motion in
    `cart_pole_derivative`; one classical Runge-Kutta step of 0.02 s per control step; speeds
    saturate at the limits of the observation.

    ## Action Space
    `Box(-1, 1, (1,), float32)`: horizontal force on the cart as a fraction of `force_limit_n`.

    ## Observation Space
    | Index | Meaning                      | Min  | Max | Unit  |
    |-------|------------------------------|------|-----|-------|
    | 0     | cart position                | -4.8 | 4.8 | m     |
    | 1     | cart speed                   | -15  | 15  | m/s   |
    | 2     | pole angle from upright      | -1.5 | 1.5 | rad   |
    | 3     | pole angular speed           | -40  | 40  | rad/s |

    ## Rewards
    1 for every step after which the pole still stands, 0 for the step in which it falls.

    ## Starting State
    All four entries uniform in [-0.05, 0.05]. `state` is the observation.

    ## Episode End
    Terminates when the pole leans by more than 0.35 rad or the cart is more than 2.4 m from the
    middle; truncated after 500 steps (10 s).

    ## Arguments
    The fields of `CartPoleParameters`, and `randomise`, a mapping from their names to (low, high).

    ## Version History
    - v0: first version.
    """

    def __init__(self, randomise: Ranges | None = None, **parameters: float) -> None:
        limits = (2.0 * TRACK_HALF_LENGTH_M, CART_SPEED_LIMIT_M_S, 1.5, POLE_SPEED_LIMIT_RAD_S)
        super().__init__(CartPoleParameters.given(parameters), limits, 1, randomise)

    def _initial_state(self) -> State:
        return tuple([self._uniform(0.05) for _ in range(4)])

    def _advance(self, controls: list[float]) -> tuple[float, bool]:
        force_n = controls[0] * self.parameters.force_limit_n
        derivative = cart_pole_derivative(self.parameters, force_n)
        position, speed, angle, turn = runge_kutta_4(derivative, self.state, STEP_S)
        has_fallen = abs(angle) > ANGLE_LIMIT_RAD or abs(position) > TRACK_HALF_LENGTH_M
        self.state = (
            clipped(position, 2.0 * TRACK_HALF_LENGTH_M),
            clipped(speed, CART_SPEED_LIMIT_M_S),
            clipped(angle, 1.5),
            clipped(turn, POLE_SPEED_LIMIT_RAD_S),
        )
        return (0.0 if has_fallen else 1.0), has_fallen

    def _observe(self) -> State:
        return self.state


@final
class CartPoleSwingUp(ControlTask[CartPoleParameters]):
    """A hanging pole that has to be swung up and kept there.

    ## Description
    The cart and pole of `CartPoleBalance`, with a pole that turns freely and a track that ends in
    stops which take all speed. Two classical Runge-Kutta steps of 0.02 s per control step.

    ## Action Space
    `Box(-1, 1, (1,), float32)`: horizontal force on the cart as a fraction of `force_limit_n`.

    ## Observation Space
    | Index | Meaning                            | Min  | Max | Unit  |
    |-------|------------------------------------|------|-----|-------|
    | 0     | cart position                      | -2.4 | 2.4 | m     |
    | 1     | cart speed                         | -15  | 15  | m/s   |
    | 2     | cosine of the angle from upright   | -1   | 1   | -     |
    | 3     | sine of the angle from upright     | -1   | 1   | -     |
    | 4     | pole angular speed                 | -40  | 40  | rad/s |

    ## Rewards
    (1 + cos(theta)) / 2 * (1 - (x / 2.4)^2 / 2) - 0.02 action^2: between -0.02 and 1.

    ## Starting State
    Pole hanging: theta = pi plus a uniform draw from [-0.2, 0.2] rad; the other entries uniform
    in [-0.05, 0.05]. `state` is (x, x', theta, theta').

    ## Episode End
    Never terminates; truncated after 250 steps (10 s).

    ## Arguments
    The fields of `CartPoleParameters`, and `randomise`, a mapping from their names to (low, high).

    ## Version History
    - v0: first version.
    """

    def __init__(self, randomise: Ranges | None = None, **parameters: float) -> None:
        limits = (TRACK_HALF_LENGTH_M, CART_SPEED_LIMIT_M_S, 1.0, 1.0, POLE_SPEED_LIMIT_RAD_S)
        super().__init__(CartPoleParameters.given(parameters), limits, 1, randomise)

    def _initial_state(self) -> State:
        angle = math.pi + self._uniform(0.2)
        return (self._uniform(0.05), self._uniform(0.05), angle, self._uniform(0.05))

    def _advance(self, controls: list[float]) -> tuple[float, bool]:
        force_n = controls[0] * self.parameters.force_limit_n
        derivative = cart_pole_derivative(self.parameters, force_n)
        for _ in range(2):
            position, speed, angle, turn = runge_kutta_4(derivative, self.state, STEP_S)
            if abs(position) > TRACK_HALF_LENGTH_M:
                position, speed = clipped(position, TRACK_HALF_LENGTH_M), 0.0
            speed = clipped(speed, CART_SPEED_LIMIT_M_S)
            self.state = (position, speed, angle, clipped(turn, POLE_SPEED_LIMIT_RAD_S))
        position, _, angle, _ = self.state
        closeness = 1.0 - 0.5 * (position / TRACK_HALF_LENGTH_M) ** 2
        upright = 0.5 * (1.0 + math.cos(angle))
        return upright * closeness - ACTION_COST * controls[0] ** 2, False

    def _observe(self) -> State:
        position, speed, angle, turn = self.state
        return (position, speed, math.cos(angle), math.sin(angle), turn)
