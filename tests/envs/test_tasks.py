"""The contract that every NumPy task keeps, and that each of them can be solved."""

import math
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.base import ControlTask, TaskParameters, clipped, parameter
from envs.errors import InvalidEnvironmentError
from envs.registry import ALIASES, known_environments, make

TASKS = {alias: env_id for alias, env_id in ALIASES.items() if env_id.startswith("mgrl/")}
SURVIVAL_TASKS = ["cartpole", "ballbeam", "monopod", "quadrotor"]
HEADINGS = [
    "Description",
    "Action Space",
    "Observation Space",
    "Rewards",
    "Starting State",
    "Episode End",
    "Arguments",
    "Version History",
]
DOCS = Path(__file__).parents[2] / "docs" / "environments.md"


def task_of(alias: str) -> ControlTask:
    return gymnasium.make(TASKS[alias]).unwrapped


def rollout(alias: str, policy: Callable, num_steps: int, seed: int = 0) -> list:
    env = make(alias)
    obs = env.reset(seed)
    results = []
    for _ in range(num_steps):
        action = np.atleast_1d(np.array(policy(obs), dtype=np.float32))
        results.append(env.step(action))
        obs = results[-1].obs
        if results[-1].terminated or results[-1].truncated:
            break
    return results


def random_policy(alias: str) -> Callable:
    size = task_of(alias).action_space.shape
    generator = np.random.default_rng(0)
    return lambda _: generator.uniform(-1.0, 1.0, size)


def swing_pendulum(obs):
    cosine, sine, speed = obs
    if cosine > 0.85:
        return clipped(-6.0 * sine - 1.5 * speed, 1.0)
    energy = 0.5 * speed**2 + 9.81 * cosine
    return 1.0 if (9.81 - energy) * speed >= 0 else -1.0


def balance_pole(obs):
    position, speed, angle, turn = obs
    return clipped(0.1 * position + 0.25 * speed + 4.0 * angle + 0.9 * turn, 1.0)


def swing_pole(obs):
    position, speed, cosine, sine, turn = obs
    if cosine > 0.8:
        return balance_pole((position, speed, math.atan2(sine, cosine), turn))
    energy = 0.5 * (0.5 * turn) ** 2 + 9.81 * 0.5 * (cosine - 1.0)
    pump = 1.0 if energy * turn * cosine > 0 else -1.0
    return clipped(0.8 * pump - 0.6 * position - 0.1 * speed, 1.0)


def bend_acrobot(obs):
    # Torque along the elbow's own speed always adds energy.
    return 1.0 if obs[5] >= 0 else -1.0


def reach(obs):
    upper = math.atan2(obs[1], obs[0])
    both = upper + math.atan2(obs[3], obs[2])
    dx, dy = obs[6], obs[7]
    # Jacobian transpose, with damping.
    along = -math.sin(both) * dx + math.cos(both) * dy
    across = -math.sin(upper) * dx + math.cos(upper) * dy + along
    return [clipped(2.0 * across - 0.8 * obs[4], 1.0), clipped(2.0 * along - 0.6 * obs[5], 1.0)]


def push(obs):
    return [clipped(1.5 * obs[4 + axis] - 1.0 * obs[2 + axis], 1.0) for axis in range(2)]


def level_beam(obs):
    position, speed, tilt, turn = obs
    wanted = clipped(0.35 * position + 0.35 * speed, 0.4)
    return clipped(0.33 * position + 4.0 * (wanted - tilt) - 0.7 * turn, 1.0)


def rock_car(obs):
    return 1.0 if obs[1] >= 0 else -1.0


def hop(obs):
    _, speed, climb, angle, _, is_on_ground = obs
    if is_on_ground:
        return [clipped(-2.0 * angle, 1.0), 0.5 if climb > 0 else 0.0]
    # Raibert's rule: the faster, the farther ahead the foot lands.
    return [clipped(8.0 * (0.2 * speed - angle), 1.0), 0.0]


def hover(obs):
    x, y, tilt, speed_x, speed_y, turn = obs
    wanted = clipped(0.15 * x + 0.2 * speed_x, 0.4)
    moment = 0.8 * (wanted - tilt) - 0.15 * turn
    lift = -0.8 * y - 0.8 * speed_y
    return [clipped(lift - moment, 1.0), clipped(lift + moment, 1.0)]


@pytest.mark.parametrize("alias", TASKS)
def test_gymnasiums_checker_finds_nothing(alias):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(task_of(alias))


@pytest.mark.parametrize("alias", TASKS)
@pytest.mark.parametrize("push_direction", [-1.0, 0.0, 1.0])
def test_observations_stay_in_their_space_and_rewards_stay_small(alias, push_direction):
    task = task_of(alias)
    ranges = {name: task.parameters.ranges()[name] for name in task.parameters.ranges()}
    task.randomise(ranges)
    task.reset(seed=1)
    for _ in range(12):
        obs, _ = task.reset()
        assert obs in task.observation_space
        for _ in range(60):
            noise = task.np_random.uniform(-1.0, 1.0, task.action_space.shape)
            action = np.clip(noise + push_direction, -1.0, 1.0).astype(np.float32)
            obs, reward, terminated, truncated, _ = task.step(action)
            assert obs in task.observation_space, (task.parameters, obs)
            assert -1.1 <= reward <= 2.0
            assert truncated is False
            if terminated:
                break


@pytest.mark.parametrize("alias", TASKS)
def test_actions_beyond_one_are_clipped(alias):
    observations = []
    for size in (1.0, 5.0):
        task = task_of(alias)
        task.reset(seed=3)
        action = np.full(task.action_space.shape, size, np.float32)
        observations.append([task.step(action)[0] for _ in range(3)])
    np.testing.assert_array_equal(*observations)


@pytest.mark.parametrize("alias", sorted(set(TASKS) - set(SURVIVAL_TASKS)))
def test_the_time_limit_truncates_and_does_not_terminate(alias):
    limit = make(alias).max_episode_steps
    assert 200 <= limit <= 500
    task_size = task_of(alias).action_space.shape
    results = rollout(alias, lambda _: np.zeros(task_size), 10_000)
    assert len(results) == limit
    assert [result.truncated for result in results] == [False] * (limit - 1) + [True]
    assert not any(result.terminated for result in results)


@pytest.mark.parametrize("alias", SURVIVAL_TASKS)
def test_random_actions_end_a_survival_task_early_and_alive_steps_pay(alias):
    results = rollout(alias, random_policy(alias), 10_000)
    assert results[-1].terminated is True
    assert results[-1].truncated is False
    assert results[-1].reward == 0.0
    assert all(result.reward > 0.3 for result in results[:-1])
    assert len(results) < 0.5 * make(alias).max_episode_steps


@pytest.mark.parametrize(
    ("alias", "policy"),
    [("cartpole", balance_pole), ("ballbeam", level_beam), ("monopod", hop), ("quadrotor", hover)],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_simple_controller_survives_to_the_time_limit(alias, policy, seed):
    results = rollout(alias, policy, 10_000, seed)
    assert results[-1].truncated is True
    assert results[-1].terminated is False


@pytest.mark.parametrize(
    ("alias", "policy", "reward"),
    [
        ("pendulum", swing_pendulum, 0.95),
        ("cartpole-swingup", swing_pole, 0.9),
        ("pointmass", push, 0.9),
        ("reacher", reach, 0.8),
        ("quadrotor", hover, 0.95),
        ("ballbeam", level_beam, 0.95),
    ],
)
def test_a_simple_controller_ends_where_the_reward_is_high(alias, policy, reward):
    results = rollout(alias, policy, 10_000, seed=1)
    assert statistics.mean(result.reward for result in results[-20:]) > reward


def test_bending_along_the_elbows_speed_lifts_the_acrobot():
    results = rollout("acrobot", bend_acrobot, 10_000)
    assert max(result.reward for result in results) > 0.9


def test_rocking_brings_the_mountain_car_to_the_goal_and_full_throttle_does_not():
    assert rollout("mountaincar", rock_car, 10_000)[-1].terminated is True
    assert rollout("mountaincar", lambda _: 1.0, 10_000)[-1].terminated is False


@pytest.mark.parametrize("alias", TASKS)
def test_a_step_takes_less_than_a_hundred_microseconds(alias):
    env = make(alias)
    env.reset(0)
    action = np.zeros(env.act_size, np.float32)
    durations_s = []
    for _ in range(400):
        start_s = time.perf_counter()
        result = env.step(action)
        durations_s.append(time.perf_counter() - start_s)
        if result.terminated or result.truncated:
            env.reset()
    assert min(durations_s) < 100e-6  # the machine may be busy with other things


@pytest.mark.parametrize("alias", TASKS)
def test_the_class_docstring_has_every_heading(alias):
    lines = type(task_of(alias)).__doc__.splitlines()
    assert [line.strip() for line in lines if line.strip().startswith("## ")] == [
        f"## {heading}" for heading in HEADINGS
    ]


@pytest.mark.parametrize("alias", TASKS)
def test_the_documentation_lists_the_task_and_its_parameters(alias):
    text = DOCS.read_text()
    env = make(alias)
    row = f"| `{alias}` | `{TASKS[alias]}` | {env.obs_size} | {env.act_size} |"
    assert f"{row} {env.max_episode_steps} |" in text
    parameters = task_of(alias).parameters
    for name, (low, high) in parameters.ranges().items():
        default = getattr(parameters, name)
        assert f"| `{alias}` | `{name}` | {default:g} | {low:g} to {high:g} |" in text


def test_the_documentation_lists_every_alias():
    text = DOCS.read_text()
    assert all(f"`{info.alias}` | `{info.id}`" in text for info in known_environments())


def test_a_parameter_outside_its_range_is_refused():
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Sample(TaskParameters):
        mass_kg: float = parameter(1.0, 0.5, 2.0)

    assert Sample.given({"mass_kg": 2.0}).mass_kg == 2.0
    assert Sample.given({"mass_kg": 1}).mass_kg == 1
    with pytest.raises(InvalidEnvironmentError, match=r"Sample: mass_kg got 2\.1, .*\[0\.5, 2\]"):
        Sample(2.1)
