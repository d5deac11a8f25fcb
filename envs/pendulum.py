"""Pendulum swing-up: the smallest task in which energy has to be pumped before balancing."""

import math
from dataclasses import dataclass
from typing import final

from envs.base import ControlTask, State, TaskParameters, clipped, parameter, runge_kutta_4
from envs.physics import Ranges

STEP_S = 0.05
SPEED_LIMIT_RAD_S = 30.0
ACTION_COST = 0.02


@dataclass(frozen=True)
class PendulumParameters(TaskParameters):
    """Physics of `Pendulum`."""

    mass_kg: float = parameter(1.0, 0.2, 5.0)
    length_m: float = parameter(1.0, 0.3, 3.0)
    gravity_m_s2: float = parameter(9.81, 0.0, 25.0)
    friction_nms: float = parameter(0.05, 0.0, 0.5)
    torque_limit_nm: float = parameter(4.0, 0.0, 20.0)


@final
class Pendulum(ControlTask[PendulumParameters]):
    """A pendulum whose motor is too weak to lift it in one go.

    ## Description
    A point mass at the end of a massless rod, driven at the hinge. With the angle theta from
    upright: m l^2 theta'' = m g l sin(theta) - b theta' + torque. One classical Runge-Kutta step
    of 0.05 s per control step; the speed saturates at 30 rad/s.

    ## Action Space
    `Box(-1, 1, (1,), float32)`: hinge torque as a fraction of `torque_limit_nm`, positive in the
    direction of growing theta.

    ## Observation Space
    | Index | Meaning                | Min | Max | Unit  |
    |-------|------------------------|-----|-----|-------|
    | 0     | cosine of theta        | -1  | 1   | -     |
    | 1     | sine of theta          | -1  | 1   | -     |
    | 2     | angular speed theta'   | -30 | 30  | rad/s |

    ## Rewards
    (1 + cos(theta)) / 2 - 0.02 action^2, with theta after the step: between -0.02 and 1.

    ## Starting State
    Theta uniform over the circle, speed uniform in [-1, 1] rad/s. `state` is (theta, theta').

    ## Episode End
    Never terminates; truncated after 200 steps (10 s).

    ## Arguments
    The fields of `PendulumParameters`, and `randomise`, a mapping from their names to (low, high).

    ## Version History
    - v0: first version.
    """

    def __init__(self, randomise: Ranges | None = None, **parameters: float) -> None:
        super().__init__(
            PendulumParameters.given(parameters), (1.0, 1.0, SPEED_LIMIT_RAD_S), 1, randomise
        )

    def _initial_state(self) -> State:
        return (self._uniform(math.pi), self._uniform(1.0))

    def _advance(self, controls: list[float]) -> tuple[float, bool]:
        physics = self.parameters
        inertia = physics.mass_kg * physics.length_m**2
        push = controls[0] * physics.torque_limit_nm / inertia
        pull = physics.gravity_m_s2 / physics.length_m
        damping = physics.friction_nms / inertia

        def derivative(state: State) -> State:
            angle, speed = state
            return (speed, pull * math.sin(angle) - damping * speed + push)

        angle, speed = runge_kutta_4(derivative, self.state, STEP_S)
        self.state = (angle, clipped(speed, SPEED_LIMIT_RAD_S))
        return 0.5 * (1.0 + math.cos(angle)) - ACTION_COST * controls[0] ** 2, False

    def _observe(self) -> State:
        angle, speed = self.state
        return (math.cos(angle), math.sin(angle), speed)
