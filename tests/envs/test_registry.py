import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from envs import registry
from envs.errors import (
    EnvironmentFailure,
    EnvironmentSetupError,
    InvalidEnvironmentError,
    MissingExtraError,
    UnknownEnvironmentError,
    UnsupportedSpacesError,
)

ROOT = Path(__file__).parents[2]

SPACES = {
    "Discrete": spaces.Discrete(3),
    "Dict": spaces.Dict({"a": spaces.Box(-1, 1, (2,))}),
    "Integers": spaces.Box(0, 255, (4,), dtype=np.uint8),
    "Image": spaces.Box(0.0, 1.0, (4, 4)),
    "Scalar": spaces.Box(0.0, 1.0, ()),
    "Empty": spaces.Box(0.0, 1.0, (0,)),
}


def env_class(observation_space, action_space):
    class Custom(gymnasium.Env):
        def __init__(self):
            self.observation_space = observation_space
            self.action_space = action_space

    return Custom


def test_the_three_aliases_of_the_product_stand_for_the_current_versions():
    assert registry.ALIASES["lunar"] == "LunarLanderContinuous-v3"
    assert registry.ALIASES["cheetah"] == "HalfCheetah-v5"
    assert registry.ALIASES["hopper"] == "Hopper-v5"


@pytest.mark.parametrize(
    ("name", "env_id"),
    [
        ("cheetah", "HalfCheetah-v5"),
        ("pendulum", "mgrl/Pendulum-v0"),
        ("Pendulum-v1", "Pendulum-v1"),
        ("mgrl/Monopod-v0", "mgrl/Monopod-v0"),
        ("envs:mgrl/Monopod-v0", "envs:mgrl/Monopod-v0"),
    ],
)
def test_resolve_knows_aliases_ids_and_modules(name, env_id):
    assert registry.resolve(name) == env_id


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("Hoper", "hopper"),
        ("lunr", "lunar"),
        ("halfcheetah-v5", "HalfCheetah-v5"),
        ("LunarLanderContinuous-v2", "LunarLanderContinuous-v3"),
        ("mgrl/Pendulm-v0", "mgrl/Pendulum-v0"),
    ],
)
def test_an_unknown_name_gets_a_suggestion_and_the_command_that_lists_all(name, suggestion):
    with pytest.raises(UnknownEnvironmentError) as caught:
        registry.resolve(name)
    assert str(caught.value) == (
        f"Unknown environment '{name}'. Did you mean '{suggestion}'? List them: mgrl envs"
    )


@pytest.mark.parametrize("name", ["no_such_module:Thing-v0", "../evil:Thing-v0", ":Thing-v0", ""])
def test_an_unknown_module_is_an_unknown_environment(name):
    with pytest.raises(UnknownEnvironmentError, match="mgrl envs"):
        registry.resolve(name)


def test_a_module_is_imported_before_its_environment_is_looked_up(tmp_path, monkeypatch):
    (tmp_path / "own_tasks.py").write_text(
        "from gymnasium.envs.registration import register\n"
        "from envs.pendulum import Pendulum\n"
        "register('own/Pendulum-v3', Pendulum, max_episode_steps=7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env = registry.make("own_tasks:own/Pendulum-v3", randomise={"mass_kg": (0.5, 2.0)})
    assert (env.id, env.max_episode_steps) == ("own_tasks:own/Pendulum-v3", 7)
    del gymnasium.registry["own/Pendulum-v3"]


def test_a_module_that_raises_is_reported_with_its_error(tmp_path, monkeypatch):
    (tmp_path / "broken_tasks.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidEnvironmentError, match="'broken_tasks' raised ZeroDivisionError"):
        registry.resolve("broken_tasks:Thing-v0")


@pytest.mark.parametrize("kind", SPACES)
def test_unsupported_spaces_are_refused_with_id_got_and_expected(kind, registered):
    box = spaces.Box(-1.0, 1.0, (2,))
    for name, pair in {
        "observation": (SPACES[kind], box),
        "action": (box, SPACES[kind]),
    }.items():
        custom = env_class(*pair)
        custom.__name__ = f"{kind}{name}"
        env_id = registered(custom)
        with pytest.raises(UnsupportedSpacesError) as caught:
            registry.make(env_id)
        message = str(caught.value)
        assert message.startswith(f"{env_id}: got {name} space ")
        assert str(SPACES[kind]).split("(")[0] in message
        assert "expected a one-dimensional Box of floats" in message
        assert "\n" not in message


def test_infinite_action_bounds_are_refused(registered):
    box = spaces.Box(-np.inf, np.inf, (2,))
    env_id = registered(env_class(box, box))
    with pytest.raises(UnsupportedSpacesError, match=r"action space .*, expected finite bounds"):
        registry.make(env_id)


def test_infinite_observation_bounds_are_accepted(recorder):
    assert registry.make(recorder).obs_size == 2


@pytest.mark.parametrize(
    ("name", "kwargs", "problem"),
    [
        (
            "pendulum",
            {"mas_kg": 1.0},
            r"no parameter 'mas_kg'\. Did you mean 'mass_kg'\?.*length_m",
        ),
        ("pendulum", {"mass_kg": -1.0}, r"mass_kg got -1.0, expected a number within \[0.2, 5\]"),
        ("pendulum", {"mass_kg": float("nan")}, "mass_kg got nan"),
        ("pendulum", {"mass_kg": "1"}, "mass_kg got '1'"),
        ("pendulum", {"mass_kg": True}, "mass_kg got True"),
        ("Pendulum-v1", {"gg": 9.8}, "Pendulum-v1 could not be made with .*unexpected keyword"),
        ("Pendulum-v1", {"disable_env_checker": True}, "multiple values"),
        ("lunar", {"gravity": 5.0}, "could not be made with"),
    ],
)
def test_bad_arguments_are_one_line(name, kwargs, problem):
    with pytest.raises(InvalidEnvironmentError, match=problem) as caught:
        registry.make(name, kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "kwargs", "expected"),
    [
        (TypeError("missing 1 argument"), {}, InvalidEnvironmentError),
        (gymnasium.error.Error("no such render mode"), {}, InvalidEnvironmentError),
        (ValueError("size must be even"), {"size": 3}, InvalidEnvironmentError),
        (AssertionError("0 < size"), {"size": 0}, InvalidEnvironmentError),
        (ValueError("bad table"), {}, EnvironmentFailure),
        (RuntimeError("no\nmotor found"), {"size": 3}, EnvironmentFailure),
        (SystemExit("no licence"), {}, EnvironmentFailure),
    ],
)
def test_a_constructor_refuses_arguments_or_fails(registered, error, kwargs, expected):
    class Fussy(gymnasium.Env):
        def __init__(self, size=2):
            raise error

    with pytest.raises((EnvironmentSetupError, EnvironmentFailure)) as caught:
        registry.make(registered(Fussy), kwargs)
    assert type(caught.value) is expected
    message = str(caught.value)
    assert message.startswith("test/Fussy-v0 could not be made")
    assert f"{type(error).__name__}: {' '.join(str(error).split())}" in message


def test_a_failing_close_does_not_hide_why_an_environment_is_refused(registered):
    box = spaces.Box(-1.0, 1.0, (2,))

    class Unclosable(env_class(box, spaces.Discrete(2))):
        def close(self):
            raise RuntimeError("no motor")

    with pytest.raises(UnsupportedSpacesError, match="got action space"):
        registry.make(registered(Unclosable))


def test_good_arguments_reach_the_environment():
    env = registry.make(
        "pendulum", {"gravity_m_s2": 0.0, "friction_nms": 0.0, "max_episode_steps": 9}
    )
    first = env.reset(seed=0)
    second = env.step(np.zeros(1, np.float32)).obs
    assert second[2] == first[2]
    assert env.max_episode_steps == 9


def test_all_known_environments_can_be_made_here():
    pytest.importorskip("Box2D")
    pytest.importorskip("mujoco")
    infos = {info.alias: info for info in registry.known_environments()}
    assert list(infos) == list(registry.ALIASES)
    assert infos["cheetah"] == registry.EnvironmentInfo(
        "cheetah", "HalfCheetah-v5", 17, 6, 1000, None
    )
    assert infos["hopper"] == registry.EnvironmentInfo("hopper", "Hopper-v5", 11, 3, 1000, None)
    assert infos["lunar"] == registry.EnvironmentInfo(
        "lunar", "LunarLanderContinuous-v3", 8, 2, 1000, None
    )
    assert infos["cartpole"] == registry.EnvironmentInfo(
        "cartpole", "mgrl/CartPoleBalance-v0", 4, 1, 500, None
    )
    assert all(info.missing_extra is None for info in infos.values())


@pytest.mark.parametrize(
    ("package", "alias", "extra"), [("Box2D", "lunar", "box2d"), ("mujoco", "hopper", "mujoco")]
)
def test_a_missing_package_names_its_extra(package, alias, extra, tmp_path):
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from envs import errors, registry\n"
        "infos = {info.alias: info for info in registry.known_environments()}\n"
        f"info = infos[{alias!r}]\n"
        "print(info.missing_extra, info.obs_size)\n"
        "try:\n"
        f"    registry.make({alias!r})\n"
        "except errors.MissingExtraError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=tmp_path,
    )
    env_id = registry.ALIASES[alias]
    assert done.stdout.splitlines() == [
        f"{extra} None",
        f"{env_id} needs a package that is not installed: pip install 'mgrl[{extra}]'",
    ]


def test_a_missing_package_of_a_foreign_environment_is_named(registered):
    class Needy(gymnasium.Env):
        def __init__(self):
            raise ModuleNotFoundError("No module named 'rare'")

    with pytest.raises(MissingExtraError, match=r"install it .*'rare'"):
        registry.make(registered(Needy))


def test_setup_errors_share_one_base_that_is_a_value_error():
    for error in (
        UnknownEnvironmentError,
        MissingExtraError,
        UnsupportedSpacesError,
        InvalidEnvironmentError,
    ):
        assert issubclass(error, EnvironmentSetupError)
    assert issubclass(EnvironmentSetupError, ValueError)


def test_envs_imports_neither_the_program_nor_torch():
    program = "import sys, envs; print(sorted({'torch', 'mgrl_cli', 'mujoco'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"
