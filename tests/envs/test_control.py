import json
import sys
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest

from envs.control import DEFAULT_TIME_LIMIT_STEPS, ControlEnvironment
from envs.errors import BrokenContractError, EnvironmentFailure, NotFiniteError
from envs.registry import ALIASES, make

RANDOM_PHYSICS = {
    "lunar": {"gravity": (-12.0, -5.0), "wind_power": (0.0, 15.0), "turbulence_power": (0.0, 2.0)},
    "cheetah": {"mass": (0.5, 2.0), "friction": (0.5, 2.0)},
    "hopper": {"mass": (0.5, 2.0), "damping": (0.5, 2.0), "gravity": (0.8, 1.2)},
    "pendulum": {"mass_kg": (0.5, 2.0), "length_m": (0.5, 2.0)},
    "monopod": {"mass_kg": (3.0, 6.0)},
}


def made(alias: str, randomise=None) -> ControlEnvironment:
    if alias == "lunar":
        pytest.importorskip("Box2D")
    if alias in {"cheetah", "hopper"}:
        pytest.importorskip("mujoco")
    return make(alias, randomise=randomise)


def control_of(recorder: str) -> tuple[ControlEnvironment, gymnasium.Env]:
    """Return the environment as agents see it, and the recorder inside."""
    env = make(recorder)
    return env, env._env.unwrapped


def actions_for(env: ControlEnvironment, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    while True:
        yield generator.uniform(-1.0, 1.0, env.act_size).astype(np.float32)


def episode(env: ControlEnvironment, seed: int | None, action_seed: int, most: int = 150) -> list:
    """Return every number of an episode, as bytes where it is an array."""
    trace: list = [env.reset(seed).tobytes()]
    for action, _ in zip(actions_for(env, action_seed), range(most), strict=False):
        result = env.step(action)
        trace += [result.obs.tobytes(), *result[1:]]
        if result.terminated or result.truncated:
            break
    return trace


def test_actions_are_rescaled_per_dimension(recorder):
    env, inner = control_of(recorder)
    env.reset(0)
    for action in ([-1, -1], [1, 1], [0, 0], [0.5, -0.5]):
        env.step(np.array(action, np.float32))
    np.testing.assert_array_equal(inner.actions, [[-2, 0], [2, 10], [0, 5], [1, 2.5]])
    assert {action.dtype for action in inner.actions} == {np.dtype(np.float32)}


def test_actions_outside_the_unit_box_are_clipped_to_the_own_bounds(recorder):
    env, inner = control_of(recorder)
    env.reset(0)
    env.step(np.array([-3.0, 1.5], np.float32))
    np.testing.assert_array_equal(inner.actions, [[-2, 10]])


def test_the_given_action_is_neither_kept_nor_changed(recorder):
    env, inner = control_of(recorder)
    env.reset(0)
    action = np.array([1.0, 1.0], np.float32)
    env.step(action)
    action[:] = 0.0
    np.testing.assert_array_equal(inner.actions, [[2, 10]])


@pytest.mark.parametrize("action", [[0.0], [[0.0, 0.0]], [np.nan, 0.0], [np.inf, 0.0]])
def test_an_unusable_action_is_the_callers_error(recorder, action):
    env, _ = control_of(recorder)
    env.reset(0)
    with pytest.raises(ValueError, match=r"test/Recorder-v0: got action .* expected 2 finite"):
        env.step(np.array(action, np.float32))


def test_observations_are_float32_copies_of_reused_buffers(recorder):
    env, inner = control_of(recorder)
    first = env.reset(0)
    kept = first.copy()
    second = env.step(np.zeros(2, np.float32)).obs
    assert first.dtype == second.dtype == np.float32
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_allclose(second, kept + 1.0)
    assert not np.shares_memory(second, inner.buffer)


def test_an_environment_without_a_limit_is_truncated_at_a_thousand_steps(recorder):
    env, _ = control_of(recorder)
    assert env.max_episode_steps == DEFAULT_TIME_LIMIT_STEPS == 1000
    env.reset(0)
    results = [env.step(np.zeros(2, np.float32)) for _ in range(1000)]
    assert [result.truncated for result in results] == [False] * 999 + [True]
    assert not any(result.terminated for result in results)


@pytest.mark.parametrize("limit", [-1, None])
def test_a_limit_that_is_switched_off_is_the_default_one(limit):
    env = make("Pendulum-v1", {"max_episode_steps": limit})
    assert env.max_episode_steps == (200 if limit is None else 1000)


def test_terminated_and_truncated_are_both_kept(recorder):
    env = make(recorder, {"length": 5, "max_episode_steps": 5})
    env.reset(0)
    results = [env.step(np.zeros(2, np.float32)) for _ in range(5)]
    assert results[-1].terminated is True
    assert results[-1].truncated is True
    assert not any(result.terminated or result.truncated for result in results[:-1])


@pytest.mark.parametrize(
    ("obs", "problem"),
    [
        (np.array([0.0, np.nan]), r"obs\[1\] is nan, expected a finite float32"),
        (np.array([-np.inf, 0.0]), r"obs\[0\] is -inf"),
        (np.array([0.0, 1e39]), r"obs\[1\] is 1e\+39"),
        (np.array([0.0, np.inf], np.float32), r"obs\[1\] is inf"),
        (np.zeros(3), r"obs has shape \(3,\) of float64, expected \(2,\) of float"),
        (np.zeros((2, 1)), r"obs has shape \(2, 1\)"),
        (0.0, r"obs has shape \(\)"),
        (np.array(["a", "b"]), "obs has shape .* of <U1"),
        ({"a": 1}, r"obs has shape \(\) of object"),
        (["1", "2"], r"obs has shape \(2,\) of <U1"),
        ([[1.0], [1.0, 2.0]], "obs is not an array of numbers"),
        (np.array([1.0, None]), r"obs has shape \(2,\) of object"),
        (np.zeros(2, complex), r"obs has shape \(2,\) of complex128"),
        (None, r"obs has shape \(\)"),
    ],
)
def test_a_bad_observation_names_environment_step_and_field(recorder, obs, problem):
    env, inner = control_of(recorder)
    env.reset(0)
    env.step(np.zeros(2, np.float32))
    inner.obs = obs
    with pytest.raises(
        EnvironmentFailure, match=rf"^test/Recorder-v0: step\(\) {problem}.*\(episode step 2\)$"
    ):
        env.step(np.zeros(2, np.float32))
    with pytest.raises(
        EnvironmentFailure, match=rf"^test/Recorder-v0: reset\(\) {problem}.*\(episode step 0\)$"
    ):
        env.reset()


def test_large_but_finite_observations_pass(recorder):
    env, inner = control_of(recorder)
    inner.obs = np.array([1e20, -3e38])
    np.testing.assert_array_equal(env.reset(0), np.array([1e20, -3e38], np.float32))


@pytest.mark.parametrize(
    "reward",
    [np.nan, np.inf, 1e39, np.array([np.nan]), "much", "1.0", b"1", None, np.zeros(3), 1j, {}],
)
def test_a_bad_reward_names_environment_step_and_field(recorder, reward):
    env, inner = control_of(recorder)
    env.reset(0)
    inner.reward = reward
    with pytest.raises(
        EnvironmentFailure, match=r"test/Recorder-v0: step\(\) reward is .*step 1\)"
    ):
        env.step(np.zeros(2, np.float32))


def test_a_raising_environment_becomes_one_line_with_the_cause(registered):
    class Raising(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            if seed == 13:
                raise OSError("bad\nluck")
            return np.zeros(1), {}

        def step(self, action):
            raise KeyError("inner")

    env = make(registered(Raising))
    with pytest.raises(EnvironmentFailure, match=r"reset\(\) raised OSError: bad luck"):
        env.reset(13)
    env.reset(0)
    with pytest.raises(EnvironmentFailure, match=r"step\(\) raised KeyError.*step 1") as caught:
        env.step(np.zeros(1, np.float32))
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("reward", [2, np.int64(2), np.float32(2.0), np.array(2.0), [2.0]])
def test_a_reward_may_be_any_kind_of_single_number(recorder, reward):
    env, inner = control_of(recorder)
    env.reset(0)
    inner.reward = reward
    got = env.step(np.zeros(2, np.float32)).reward
    assert type(got) is float
    assert got == 2.0


@pytest.mark.parametrize("name", ["terminated", "truncated"])
@pytest.mark.parametrize("flag", [None, "no", 0.0, 2, np.array([True, False]), np.nan, []])
def test_a_flag_that_is_no_truth_value_is_refused(recorder, name, flag):
    env, inner = control_of(recorder)
    env.reset(0)
    setattr(inner, name, flag)
    with pytest.raises(
        BrokenContractError, match=rf"^test/Recorder-v0: step\(\) {name} is .*True or False.*step 1"
    ):
        env.step(np.zeros(2, np.float32))


@pytest.mark.parametrize("flag", [True, np.True_, 1, np.array(True), np.array([True])])
def test_a_flag_may_be_any_kind_of_single_truth_value(recorder, flag):
    env, inner = control_of(recorder)
    env.reset(0)
    inner.terminated = flag
    result = env.step(np.zeros(2, np.float32))
    assert (result.terminated, result.truncated) == (True, False)
    assert type(result.terminated) is bool


def test_a_value_that_is_not_finite_fails_at_every_step_it_comes(recorder):
    env, inner = control_of(recorder)
    env.reset(0)
    inner.reward = np.nan
    for step in (1, 2, 3):
        with pytest.raises(NotFiniteError, match=rf"reward is nan.*step {step}\)"):
            env.step(np.zeros(2, np.float32))
    inner.reward = 1.0
    assert env.step(np.zeros(2, np.float32)).reward == 1.0


def test_only_the_time_limit_truncates_and_never_terminates(recorder):
    env = make(recorder, {"max_episode_steps": 3})
    flags = []
    for _ in range(2):
        env.reset(0)
        flags.append([env.step(np.zeros(2, np.float32))[2:] for _ in range(3)])
    assert flags == 2 * [[(False, False), (False, False), (False, True)]]


def test_a_truncation_of_the_environments_own_is_no_termination(recorder):
    env, inner = control_of(recorder)
    env.reset(0)
    inner.truncated = True
    result = env.step(np.zeros(2, np.float32))
    assert (result.terminated, result.truncated) == (False, True)


def test_an_environment_that_ends_the_process_fails_instead(recorder):
    env, inner = control_of(recorder)
    env.reset(0)
    inner.step = lambda _: sys.exit("out of fuel")
    with pytest.raises(EnvironmentFailure, match=r"step\(\) raised SystemExit: out of fuel"):
        env.step(np.zeros(2, np.float32))


@pytest.mark.parametrize("error", [RuntimeError("no motor"), SystemExit(3)])
def test_closing_never_hides_an_earlier_failure(recorder, error):
    env, inner = control_of(recorder)
    env.reset(0)

    def close():
        raise error

    inner.close = close
    env.close()
    env.close()


def test_an_old_four_value_step_is_refused(registered):
    class Old(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

        def reset(self, *, seed=None, options=None):
            return np.zeros(1), {}

        def step(self, action):
            return np.zeros(1), 0.0, False, {}

    env = make(registered(Old, max_episode_steps=9))
    env.reset(0)
    with pytest.raises(BrokenContractError) as caught:
        env.step(np.zeros(1, np.float32))
    assert str(caught.value) == (
        "test/Old-v0: step() returned tuple of 4, expected tuple of 5 "
        "(obs, reward, terminated, truncated, info) (episode step 1)"
    )


def test_a_float32_observation_is_copied_too(recorder):
    env, inner = control_of(recorder)
    inner.obs = np.ones(2, np.float32)
    obs = env.reset(0)
    inner.obs[:] = 7.0
    np.testing.assert_array_equal(obs, [1.0, 1.0])


@pytest.mark.parametrize("returned", [None, np.zeros(1), (np.zeros(1),), (np.zeros(1), {}, 0)])
def test_a_reset_that_returns_no_pair_is_refused(registered, returned):
    class Odd(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

        def reset(self, *, seed=None, options=None):
            return returned

    with pytest.raises(
        BrokenContractError, match=r"reset\(\) returned .*, expected tuple of 2 \(obs, info\)"
    ):
        make(registered(Odd)).reset(0)


def test_closing_twice_is_allowed(recorder):
    env, _ = control_of(recorder)
    env.close()
    env.close()


@pytest.mark.parametrize("alias", ALIASES)
def test_the_random_state_at_an_episode_boundary_is_all_there_is_to_restore(alias):
    first = made(alias)
    for number in range(2):
        episode(first, 3 if number == 0 else None, number)
    state = json.loads(json.dumps(first.get_random_state()))
    expected = [episode(first, None, 8), episode(first, None, 9)]
    second = made(alias)
    second.set_random_state(state)
    assert [episode(second, None, 8), episode(second, None, 9)] == expected


@pytest.mark.parametrize("alias", RANDOM_PHYSICS)
def test_the_random_state_restores_randomised_physics_too(alias):
    first = made(alias, RANDOM_PHYSICS[alias])
    for number in range(3):
        episode(first, 3 if number == 0 else None, number)
    state = first.get_random_state()
    expected = episode(first, None, 8)
    second = made(alias, RANDOM_PHYSICS[alias])
    episode(second, 11, 1)
    second.set_random_state(state)
    assert episode(second, None, 8) == expected


@pytest.mark.parametrize(
    ("alias", "randomise"), [*((alias, None) for alias in ALIASES), *RANDOM_PHYSICS.items()]
)
def test_two_copies_with_one_seed_run_bit_identically(alias, randomise):
    copies = [made(alias, randomise), made(alias, randomise)]
    episode(copies[1], 77, 0, most=20)
    traces = [[episode(env, 5, 1), episode(env, None, 2)] for env in copies]
    assert traces[0] == traces[1]
    assert traces[0][0][0] != traces[0][1][0], "the stream goes on after a seeded reset"


def test_a_foreign_random_state_is_refused(recorder):
    env, _ = control_of(recorder)
    foreign = dict(np.random.MT19937(0).state)
    for state in ({}, {"bit_generator": "PCG64"}, foreign):
        with pytest.raises(ValueError, match="test/Recorder-v0: not a random state"):
            env.set_random_state(state)
