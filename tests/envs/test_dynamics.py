"""Equations of motion against energies and steps that were worked out apart from them."""

import math
from collections.abc import Callable

import gymnasium
import numpy as np
import pytest

from envs.ball_and_beam import BallAndBeam
from envs.cart_pole import (
    CartPoleBalance,
    CartPoleParameters,
    CartPoleSwingUp,
    cart_pole_derivative,
)
from envs.monopod import Monopod, MonopodState
from envs.mountain_car import MountainCar
from envs.pendulum import Pendulum
from envs.point_mass import PointMass
from envs.quadrotor import Quadrotor
from envs.two_link import Acrobot, Reacher

G = 9.81


def started(task: gymnasium.Env, state: tuple[float, ...]) -> gymnasium.Env:
    task.reset(seed=0)
    task.state = state
    return task


def coasted(task: gymnasium.Env, num_steps: int) -> list[tuple[float, ...]]:
    still = np.zeros(task.action_space.shape, np.float32)
    states = []
    for _ in range(num_steps):
        task.step(still)
        states.append(task.state)
    return states


def rod_energy(mass, length, hinge, hinge_speed, angle, speed, gravity):
    """Return the energy of a uniform rod by numerical integration over its length."""
    places = (np.arange(2000) + 0.5) / 2000 * length
    x_speed = hinge_speed[0] + places * speed * math.cos(angle)
    y_speed = hinge_speed[1] + places * speed * math.sin(angle)
    height = hinge[1] - places * math.cos(angle)
    return float(np.mean(0.5 * mass * (x_speed**2 + y_speed**2) + mass * gravity * height))


def two_link_energy(physics, gravity: float) -> Callable[[tuple[float, ...]], float]:
    def energy(state):
        upper, relative, upper_speed, relative_speed = state
        length = physics.upper_length_m
        elbow = (length * math.sin(upper), -length * math.cos(upper))
        elbow_speed = (
            length * math.cos(upper) * upper_speed,
            length * math.sin(upper) * upper_speed,
        )
        return rod_energy(
            physics.upper_mass_kg, length, (0, 0), (0, 0), upper, upper_speed, gravity
        ) + rod_energy(
            physics.lower_mass_kg,
            physics.lower_length_m,
            elbow,
            elbow_speed,
            upper + relative,
            upper_speed + relative_speed,
            gravity,
        )

    return energy


def pendulum_energy(state):
    angle, speed = state
    return 0.5 * 2.0 * (0.7 * speed) ** 2 + 2.0 * G * 0.7 * math.cos(angle)


def cart_pole_energy(state):
    _, speed, angle, turn = state
    x_speed = speed + 0.5 * turn * math.cos(angle)
    y_speed = -0.5 * turn * math.sin(angle)
    tip = 0.5 * 0.1 * (x_speed**2 + y_speed**2) + 0.1 * G * 0.5 * math.cos(angle)
    return 0.5 * 1.0 * speed**2 + tip


def ball_and_beam_energy(state):
    position, speed, tilt, turn = state
    ball = 0.5 * 0.1 * (speed**2 + (position * turn) ** 2)
    rolling = 0.5 * (2 / 5) * 0.1 * speed**2
    return ball + rolling + 0.5 * 0.2 * turn**2 + 0.1 * G * position * math.sin(tilt)


def mountain_car_energy(state):
    position, speed = state
    climb = 0.4 * 3.0 * math.cos(3.0 * position) * speed
    return 0.5 * (speed**2 + climb**2) + G * 0.4 * math.sin(3.0 * position)


ACROBOT = Acrobot(
    friction_nms=0.0, upper_mass_kg=1.5, lower_mass_kg=0.7, upper_length_m=0.8, lower_length_m=1.1
)
REACHER = Reacher(friction_nms=0.0, upper_length_m=0.6)


@pytest.mark.parametrize(
    ("task", "state", "energy", "num_steps"),
    [
        (Pendulum(friction_nms=0.0, mass_kg=2.0, length_m=0.7), (0.1, 0.5), pendulum_energy, 200),
        (CartPoleSwingUp(), (0.0, 0.1, 2.0, 1.0), cart_pole_energy, 60),
        (ACROBOT, (1.2, 0.6, 0.3, -1.0), two_link_energy(ACROBOT.parameters, G), 100),
        (REACHER, (1.0, 0.5, 2.0, 1.0), two_link_energy(REACHER.parameters, 0.0), 100),
        (BallAndBeam(beam_friction_nms=0.0), (0.3, -0.5, -0.2, 0.6), ball_and_beam_energy, 20),
        (MountainCar(friction_ns_m=0.0), (-0.9, 0.0), mountain_car_energy, 200),
    ],
    ids=["pendulum", "cart-pole", "acrobot", "reacher", "ball-and-beam", "mountain-car"],
)
def test_energy_is_conserved_without_friction_and_torque(task, state, energy, num_steps):
    start = energy(state)
    states = coasted(started(task, state), num_steps)
    energies = np.array([energy(after) for after in states])
    assert np.ptp([after[0] for after in states]) > 0.1, "nothing moved"
    np.testing.assert_allclose(energies, start, rtol=5e-3)


@pytest.mark.parametrize(
    "task",
    [Pendulum(friction_nms=0.5), Acrobot(friction_nms=0.2, upper_length_m=0.5, lower_length_m=0.5)],
)
def test_friction_takes_energy_until_the_task_hangs_still(task):
    task.reset(seed=0)
    size = len(task.state)
    final = coasted(started(task, (0.7,) * size), 1000)[-1]
    assert max(abs(speed) for speed in final[size // 2 :]) < 1e-2


def test_a_pendulum_without_gravity_moves_on_an_exact_parabola():
    task = started(Pendulum(gravity_m_s2=0.0, friction_nms=0.0), (0.2, 1.0))
    obs, reward, terminated, truncated, _ = task.step(np.ones(1, np.float32))
    # 4 N m on 1 kg m^2: speed 1 + 4 * 0.05, angle 0.2 + 0.05 + 4 * 0.05^2 / 2.
    np.testing.assert_allclose(task.state, (0.255, 1.2))
    np.testing.assert_allclose(obs, [math.cos(0.255), math.sin(0.255), 1.2], rtol=1e-6)
    assert reward == pytest.approx(0.5 + 0.5 * math.cos(0.255) - 0.02)
    assert (terminated, truncated) == (False, False)


def test_a_force_on_a_cart_with_an_upright_pole():
    # x'' = F / M because sin(theta) = 0, theta'' = -x'' / l.
    derivative = cart_pole_derivative(CartPoleParameters(), 10.0)
    np.testing.assert_allclose(derivative((0.0, 0.0, 0.0, 0.0)), (0.0, 10.0, 0.0, -20.0))


def test_cart_pole_friction_is_an_internal_force():
    # Pole level, both at rest but the pole turning: hinge friction c w turns the pole by
    # -c w / (m l^2) and cannot push the cart sideways when the pole is level.
    physics = CartPoleParameters(gravity_m_s2=0.0, pole_friction_nms=0.05)
    _, acceleration, _, turn_rate = cart_pole_derivative(physics, 0.0)((0.0, 0.0, math.pi / 2, 2.0))
    # The centripetal pull m l w^2 = 0.1 * 0.5 * 4 acts on 1.1 kg.
    assert acceleration == pytest.approx(0.2 / 1.1)
    assert turn_rate == pytest.approx(-0.05 * 2.0 / (0.1 * 0.25))


def test_hinge_friction_keeps_the_sideways_momentum():
    task = CartPoleSwingUp(gravity_m_s2=0.0, pole_friction_nms=0.05)
    start = (0.0, 0.2, 0.4, 3.0)
    states = coasted(started(task, start), 30)
    for _, speed, angle, turn in [start, *states]:
        momentum = 1.1 * speed + 0.1 * 0.5 * turn * math.cos(angle)
        assert momentum == pytest.approx(1.1 * 0.2 + 0.05 * 3.0 * math.cos(0.4), rel=1e-4)
    assert states[-1][3] < 1.0, "the friction did not act"


def test_balancing_pays_one_a_step_and_nothing_for_the_fall():
    task = started(CartPoleBalance(), (0.0, 0.0, 0.3, 0.0))
    results = [task.step(np.zeros(1, np.float32))[1:3]]
    while not results[-1][1]:
        results.append(task.step(np.zeros(1, np.float32))[1:3])
    assert results[-1] == (0.0, True)
    assert set(results[:-1]) == {(1.0, False)}
    assert abs(task.state[2]) > 0.35


@pytest.mark.parametrize("position", [-2.39, 2.39])
def test_balancing_ends_at_the_end_of_the_track(position):
    task = started(CartPoleBalance(), (position, math.copysign(5.0, position), 0.0, 0.0))
    assert task.step(np.zeros(1, np.float32))[1:3] == (0.0, True)


def test_the_swing_up_track_ends_in_stops():
    task = started(CartPoleSwingUp(), (2.39, 5.0, math.pi, 0.0))
    obs, reward, terminated, *_ = task.step(np.zeros(1, np.float32))
    assert obs[0] == np.float32(2.4)
    assert not terminated
    assert -0.02 <= reward <= 1.0


def test_one_step_of_the_point_mass_by_hand():
    task = PointMass(mass_kg=2.0, drag_ns_m=0.5, quadratic_drag_ns2_m2=0.0, force_limit_n=4.0)
    started(task, (0.0, 0.0, 1.0, 0.0))
    task.target_m = (0.3, 0.0)
    obs, reward, *_ = task.step(np.array([0.5, -1.0], np.float32))
    # Speed x: 1 * (1 - 0.5 * 0.05 / 2) + 2 * 0.05 / 2; speed y: -4 * 0.05 / 2.
    expected = (0.051875, -0.005, 1.0375, -0.1)
    np.testing.assert_allclose(task.state, expected, rtol=1e-12)
    np.testing.assert_allclose(obs, [*expected, 0.248125, 0.005], rtol=1e-6)
    distance = math.sqrt(0.248125**2 + 0.005**2)
    assert reward == pytest.approx(1.0 - math.tanh(distance) - 0.02 * 0.5 * 1.25)


def test_the_point_mass_stops_at_walls_and_is_slowed_by_quadratic_drag():
    task = started(PointMass(), (1.49, 0.0, 3.0, 4.0))
    task.step(np.zeros(2, np.float32))
    # |v| = 5: kept share 1 - (0.5 + 0.1 * 5) * 0.05.
    np.testing.assert_allclose(task.state, (1.5, 0.19, 0.0, 3.8))


def test_one_step_of_the_quadrotor_by_hand():
    task = started(Quadrotor(gravity_m_s2=9.81, drag_ns_m=0.0), (0.0,) * 6)
    _, reward, *_ = task.step(np.ones(2, np.float32))
    # Lift 2 * 7.405 N on 1 kg leaves 5 m/s^2: places 0.01 * (0.05 + 0.10 + 0.15).
    np.testing.assert_allclose(task.state, (0.0, 0.003, 0.0, 0.0, 0.15, 0.0), atol=1e-12)
    assert reward == pytest.approx(1.0 - 0.5 * math.tanh(0.003))
    started(task, (0.0,) * 6)
    task.step(np.array([-1.0, 1.0], np.float32))
    # Moment 5 N * 0.2 m on 0.02 kg m^2 is 50 rad/s^2, spin drag takes 1 rad/s^2 per rad/s.
    turn = 0.5 + 0.495 + 0.49005
    assert task.state[5] == pytest.approx(turn)
    assert task.state[3] < 0.0, "a tilt to the left must push to the left"


def test_wind_blows_the_quadrotor_along_x_until_drag_holds_it():
    task = started(Quadrotor(wind_n=0.4, drag_ns_m=2.0), (0.0,) * 6)
    # Speed approaches 0.4 / 2 m/s at 2 per second; the default thrust carries the weight.
    final = coasted(task, 100)[-1]
    assert final[3] == pytest.approx(0.2, rel=0.01)
    assert final[4] == pytest.approx(0.0, abs=1e-9)


def test_a_tilted_quadrotor_ends_the_episode_without_reward():
    task = started(Quadrotor(), (0.0, 0.0, 1.15, 0.0, 0.0, 5.0))
    assert task.step(np.zeros(2, np.float32))[1:3] == (0.0, True)


def test_a_monopod_in_flight_falls_freely_and_swings_its_leg():
    state = MonopodState(0.0, 2.0, 1.0, 0.0, 0.0, 0.8, 0.0, 0.0)
    task = started(Monopod(), state)
    task.step(np.array([0.5, 1.0], np.float32))
    # Eight steps of 2.5 ms: speed -g * 0.02, height -g * 0.0025^2 * (1 + ... + 8).
    assert task.state.speed_y_m_s == pytest.approx(-G * 0.02)
    assert task.state.height_m == pytest.approx(2.0 - G * 0.0025**2 * 36)
    assert task.state.x_m == pytest.approx(0.02)
    assert task.state.leg_angle_rad == pytest.approx(0.5 * 6.0 * 0.02)


def test_a_monopod_without_damping_bounces_back_to_its_height():
    task = Monopod(leg_damping_ns_m=0.0)
    started(task, MonopodState(0.0, 1.0, 0.0, 0.0, 0.0, 0.8, 0.0, 0.0))
    states = coasted(task, 60)
    on_ground = [state.is_on_ground for state in states]
    assert 5 < sum(on_ground) < 30
    second_flight = [state.height_m for state in states[on_ground.index(1.0) :]]
    assert max(second_flight) == pytest.approx(1.0, abs=0.02)
    # Lowest point: k d^2 / 2 = m g (0.2 + d), so d = (mg + sqrt((mg)^2 + 0.4 k mg)) / k.
    weight = 5.0 * G
    depth = (weight + math.sqrt(weight**2 + 0.4 * 2000.0 * weight)) / 2000.0
    assert min(state.height_m for state in states) == pytest.approx(0.8 - depth, abs=0.005)


def test_the_foot_stays_where_it_landed_and_a_leaning_monopod_falls():
    task = started(Monopod(), MonopodState(0.0, 0.79, 0.5, -0.5, -0.3, 0.8, 0.0, 0.0))
    feet = set()
    for _ in range(200):
        _, reward, terminated, _, _ = task.step(np.zeros(2, np.float32))
        if task.state.is_on_ground:
            feet.add(task.state.foot_m)
        if terminated:
            break
    assert terminated
    assert reward == 0.0
    assert len(feet) >= 1
    assert max(feet) < 0.0, "the leg leaned back, so the first foot is behind the body"


def test_the_mountain_car_terminates_at_the_goal():
    task = started(MountainCar(), (0.49, 3.0))
    _, reward, terminated, _, _ = task.step(np.zeros(1, np.float32))
    assert terminated
    assert reward == pytest.approx(0.5 * (math.sin(3.0 * task.state[0]) - 1.0))


def test_the_ball_ends_the_episode_when_it_leaves_the_beam():
    task = started(BallAndBeam(), (0.99, 2.0, 0.0, 0.0))
    assert task.step(np.zeros(1, np.float32))[1:3] == (0.0, True)


def test_the_beam_ends_at_its_stops():
    task = started(BallAndBeam(), (0.0, 0.0, 0.75, 10.0))
    task.step(np.zeros(1, np.float32))
    assert task.state[2:] == (0.8, 0.0)


def test_the_reacher_points_at_its_target_when_the_offset_is_zero():
    task = started(Reacher(), (math.pi / 2, -math.pi / 2, 0.0, 0.0))
    task.target_m = (1.0, 1.0)
    obs, reward, *_ = task.step(np.zeros(2, np.float32))
    np.testing.assert_allclose(obs[6:], 0.0, atol=1e-6)
    assert reward == pytest.approx(1.0)
