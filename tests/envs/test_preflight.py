"""A twin of one harmless environment, broken in one place at a time."""

from collections.abc import Callable
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from envs import preflight
from envs.errors import EnvironmentFailure, EnvironmentSetupError, InvalidEnvironmentError
from envs.preflight import check_environment
from envs.registry import ALIASES, make


class Harmless(gymnasium.Env):
    """Two observations in [-1, 1], episodes of 12 steps, one array that it keeps changing."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self):
        self.obs = np.zeros(2, np.float32)
        self.life_steps = self.resets = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets += 1
        self.steps = 0
        self.obs[:] = self.np_random.uniform(-1.0, 1.0, 2)
        return self.obs, {}

    def step(self, action):
        self.steps += 1
        self.life_steps += 1
        self.obs *= 0.9
        self.obs[0] += 0.1 * action[0]
        return self.obs, float(self.obs[0]), self.steps >= 12, False, {}


Step = Callable[[Harmless, tuple], object]


def with_step(change: Step) -> type[Harmless]:
    """Return the class with what its step returns changed."""

    class Broken(Harmless):
        def step(self, action):
            return change(self, super().step(action))

    return Broken


def with_reset(change: Step) -> type[Harmless]:
    class Broken(Harmless):
        def reset(self, *, seed=None, options=None):
            return change(self, super().reset(seed=seed))

    return Broken


def step_field(index: int, value: object) -> type[Harmless]:
    return with_step(lambda _, result: (*result[:index], value, *result[index + 1 :]))


def reset_obs(value: object) -> type[Harmless]:
    return with_reset(lambda _, result: (value, result[1]))


def raising(error: Exception) -> Step:
    def change(env, result):
        raise error

    return change


def grown(env: Harmless, result: tuple) -> tuple:
    return (np.zeros(2 + (env.resets > 1), np.float32), *result[1:])


BROKEN = {
    "reset without info": (
        with_reset(lambda _, result: result[0]),
        r"reset\(\) returned ndarray, expected tuple of 2 \(obs, info\)",
    ),
    "reset of three": (with_reset(lambda _, r: (*r, 0)), r"reset\(\) returned tuple of 3"),
    "step of four": (
        with_step(lambda _, result: result[:4]),
        r"step\(\) returned tuple of 4, expected tuple of 5 \(obs, reward, terminated,",
    ),
    "step of nothing": (with_step(lambda *_: None), r"step\(\) returned NoneType"),
    "reset shape": (reset_obs(np.zeros(3)), r"reset\(\) obs has shape \(3,\)"),
    "step shape": (step_field(0, np.zeros((1, 2))), r"step\(\) obs has shape \(1, 2\)"),
    "object": (step_field(0, np.array([0, None])), r"step\(\) obs has .* of object"),
    "text": (step_field(0, np.array(["0", "1"])), r"step\(\) obs has .* of <U1"),
    "complex": (step_field(0, np.zeros(2, complex)), r"step\(\) obs has .* of complex128"),
    "no array": (step_field(0, {"a": 1}), r"step\(\) obs has shape \(\) of object"),
    "NaN at reset": (reset_obs(np.array([0.0, np.nan])), r"reset\(\) obs\[1\] is nan"),
    "NaN": (step_field(0, np.array([np.nan, 0.0])), r"step\(\) obs\[0\] is nan"),
    "beyond float32": (step_field(0, np.array([1e39, 0.0])), r"step\(\) obs\[0\] is 1e\+39"),
    "outside at reset": (
        reset_obs(np.array([0.0, 1.01])),
        r"reset\(\) obs\[1\] is 1.01, outside its bounds \[-1, 1\]",
    ),
    "reward NaN": (step_field(1, np.nan), r"step\(\) reward is nan"),
    "reward infinite": (step_field(1, -np.inf), r"step\(\) reward is -inf"),
    "reward None": (step_field(1, None), r"step\(\) reward is None"),
    "reward text": (step_field(1, "1.0"), r"step\(\) reward is '1.0'"),
    "rewards": (step_field(1, np.zeros(2)), r"step\(\) reward is array\(\[0., 0.\]\)"),
    "terminated None": (step_field(2, None), r"step\(\) terminated is None"),
    "terminated text": (step_field(2, "False"), r"step\(\) terminated is 'False'"),
    "truncated array": (step_field(3, np.zeros(2, bool)), r"step\(\) truncated is array"),
    "truncated info": (step_field(3, {}), r"step\(\) truncated is \{\}"),
    "size grows in step": (with_step(grown), r"step\(\) obs has shape \(3,\)"),
    "size grows in reset": (with_reset(grown), r"reset\(\) obs has shape \(3,\)"),
}

RAISING = {
    "reset": (with_reset(raising(OSError("no\nmotor"))), r"reset\(\) raised OSError: no motor"),
    "step": (with_step(raising(KeyError("leg"))), r"step\(\) raised KeyError: 'leg'"),
    "second reset": (
        with_reset(lambda env, result: 1 / 0 if env.resets > 1 else result),
        r"reset\(\) raised ZeroDivisionError",
    ),
}


@pytest.fixture
def checked(registered):
    """Register a class and check it."""

    def check(cls: type[gymnasium.Env]) -> list[str]:
        env_id = registered(cls)
        return check_environment(lambda: make(env_id))

    return check


def test_a_harmless_environment_passes_without_a_word(checked):
    assert checked(Harmless) == []


@pytest.mark.parametrize("name", [*ALIASES, "Pendulum-v1", "MountainCarContinuous-v0"])
def test_real_environments_pass_without_a_word(name):
    if name == "lunar":
        pytest.importorskip("Box2D")
    if name in {"cheetah", "hopper"}:
        pytest.importorskip("mujoco")
    assert check_environment(lambda: make(name)) == []


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_contract_is_refused_with_environment_method_and_field(checked, what):
    broken, problem = BROKEN[what]
    with pytest.raises(InvalidEnvironmentError, match=f"^test/Broken-v0: {problem}") as caught:
        checked(broken)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", RAISING)
def test_an_environment_that_raises_is_a_failure_with_the_last_line_of_its_traceback(
    checked, where
):
    broken, problem = RAISING[where]
    with pytest.raises(EnvironmentFailure, match=f"^test/Broken-v0: {problem}") as caught:
        checked(broken)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, EnvironmentSetupError)


def test_a_raising_constructor_is_a_failure_even_if_only_the_second_one_raises(checked):
    class Unique(Harmless):
        made = 0

        def __init__(self):
            super().__init__()
            type(self).made += 1
            if self.made == 2:
                raise RuntimeError("the port is taken")

    with pytest.raises(EnvironmentFailure, match=r"Unique-v0 .*RuntimeError: the port is taken"):
        checked(Unique)


def test_info_is_nobodys_business(checked):
    assert checked(step_field(4, None)) == []


def test_what_fails_now_and_then_is_a_warning(checked):
    class Fragile(Harmless):
        def step(self, action):
            result = super().step(action)
            return (result[0], np.nan, *result[2:]) if self.life_steps == 30 else result

    # Every instance fails in its third episode of 12 steps. The first trial gives up after three
    # of them, so at 9 episodes; the second one plays the 6 that were whole and fails in 2.
    assert checked(Fragile) == [
        "test/Fragile-v0: step() reward is nan, expected a finite float32 (episode step 6); "
        "5 of 15 trial episodes failed"
    ]


def test_leaving_the_declared_bounds_is_a_warning_with_environment_and_field(checked):
    outside = with_step(lambda env, r: (np.array([0.0, -1.5 * (env.steps > 3)]), *r[1:]))
    assert checked(outside) == ["test/Broken-v0: step() obs[1] is -1.5, outside its bounds [-1, 1]"]


def test_rounding_and_open_bounds_are_within_the_declared_bounds(checked):
    class Open(step_field(0, np.array([1.0009, -1e30]))):
        observation_space = spaces.Box(
            np.array([-1, -np.inf]), np.array([1.0, 1.0]), dtype=np.float64
        )

    assert checked(Open) == []


def test_an_ignored_seed_is_a_warning(checked):
    generator = np.random.default_rng(0)
    unseeded = with_reset(lambda _, result: (generator.uniform(-1.0, 1.0, 2), result[1]))
    [warning] = checked(unseeded)
    assert "reset(seed=" in warning
    assert "differs in a second instance" in warning


def test_luck_in_a_step_is_a_warning(checked):
    generator = np.random.default_rng(0)
    [warning] = checked(with_step(lambda _, r: (r[0], generator.random(), *r[2:])))
    assert "test/Broken-v0: step 1 after reset(seed=" in warning


def test_an_episode_that_depends_on_earlier_ones_is_a_warning(checked):
    tired = with_step(lambda env, r: (r[0], -0.01 * env.resets, *r[2:]))
    [warning] = checked(tired)
    assert "nothing from one episode to the next" in warning


def test_a_slow_environment_is_left_when_the_time_is_over(checked, monkeypatch):
    steps = []

    class Slow(Harmless):
        def step(self, action):
            steps.append(action)
            return super().step(action)

    # On this clock every step takes 0.4 s.
    clock = SimpleNamespace(monotonic=lambda: 0.4 * len(steps))
    monkeypatch.setattr(preflight, "time", clock)
    assert checked(Slow) == []
    assert len(steps) == 2 * 3


def test_every_instance_is_closed(checked):
    opened = []

    class Counted(Harmless):
        def __init__(self):
            super().__init__()
            opened.append(self)

        def step(self, action):
            if self.life_steps == 40:
                raise RuntimeError("worn out")
            return super().step(action)

        def close(self):
            opened.remove(self)

    assert len(checked(Counted)) == 1
    assert opened == []


def test_a_trial_resets_in_the_middle_of_long_episodes_and_reaches_the_bounds(checked):
    lengths: list[int] = []
    seen: set[float] = set()

    class Long(Harmless):
        def reset(self, *, seed=None, options=None):
            lengths.append(0)
            return super().reset(seed=seed)

        def step(self, action):
            lengths[-1] += 1
            seen.add(float(action[0]))
            return (*super().step(action)[:2], False, False, {})

    assert checked(Long) == []
    assert lengths == [50] * 8
    assert {-1.0, 1.0} <= seen
    assert len(seen) > 50
