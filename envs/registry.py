"""Names to environments: aliases, Gymnasium ids, missing extras, and the one way to make one.

It must not know training: what comes out is a `ControlEnvironment` and nothing else.
"""

import contextlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
from gymnasium.envs.registration import EnvSpec, register, registry
from gymnasium.error import DependencyNotInstalled
from gymnasium.error import Error as GymnasiumError

from envs.base import ControlTask
from envs.control import ControlEnvironment, RandomPhysics
from envs.errors import (
    EnvironmentFailure,
    EnvironmentSetupError,
    InvalidEnvironmentError,
    MissingExtraError,
    UnknownEnvironmentError,
    did_you_mean,
)
from envs.physics import LanderPhysics, MujocoPhysics, Ranges, checked_ranges
from envs.quiet import quiet_libraries


class _Task(NamedTuple):
    """A NumPy task of this package and its time limit in steps."""

    alias: str
    id: str
    entry_point: str
    max_episode_steps: int


_TASKS = (
    _Task("pendulum", "mgrl/Pendulum-v0", "envs.pendulum:Pendulum", 200),
    _Task("cartpole", "mgrl/CartPoleBalance-v0", "envs.cart_pole:CartPoleBalance", 500),
    _Task("cartpole-swingup", "mgrl/CartPoleSwingUp-v0", "envs.cart_pole:CartPoleSwingUp", 250),
    _Task("acrobot", "mgrl/Acrobot-v0", "envs.two_link:Acrobot", 300),
    _Task("reacher", "mgrl/Reacher-v0", "envs.two_link:Reacher", 200),
    _Task("pointmass", "mgrl/PointMass-v0", "envs.point_mass:PointMass", 200),
    _Task("ballbeam", "mgrl/BallAndBeam-v0", "envs.ball_and_beam:BallAndBeam", 250),
    _Task("mountaincar", "mgrl/MountainCar-v0", "envs.mountain_car:MountainCar", 200),
    _Task("monopod", "mgrl/Monopod-v0", "envs.monopod:Monopod", 400),
    _Task("quadrotor", "mgrl/Quadrotor-v0", "envs.quadrotor:Quadrotor", 300),
)

ALIASES: dict[str, str] = {
    "lunar": "LunarLanderContinuous-v3",
    "cheetah": "HalfCheetah-v5",
    "hopper": "Hopper-v5",
    **{task.alias: task.id for task in _TASKS},
}

_EXTRA_OF_MODULE = {"gymnasium.envs.box2d": "box2d", "gymnasium.envs.mujoco": "mujoco"}
_LANDER_MODULE = "gymnasium.envs.box2d.lunar_lander"
_REFUSED_ARGUMENTS = (TypeError, ValueError, AssertionError, LookupError)
"""What constructors raise where they do not like what they were given."""


@dataclass(frozen=True)
class EnvironmentInfo:
    """One known environment.

    Attributes:
        alias: short name.
        id: Gymnasium id.
        obs_size: number of observation entries, None where the environment cannot be made.
        act_size: number of action dimensions, None likewise.
        max_episode_steps: time limit, None likewise.
        missing_extra: the pip extra that is not installed, None where nothing is missing.
    """

    alias: str
    id: str
    obs_size: int | None
    act_size: int | None
    max_episode_steps: int | None
    missing_extra: str | None


def register_tasks() -> None:
    """Register the NumPy tasks of this package with Gymnasium, once."""
    for task in _TASKS:
        if task.id not in registry:
            register(task.id, task.entry_point, max_episode_steps=task.max_episode_steps)


def known_environments() -> list[EnvironmentInfo]:
    """Return all environments with an alias; sizes come from really making them."""
    with quiet_libraries():
        return [_info(alias, env_id) for alias, env_id in ALIASES.items()]


def _info(alias: str, env_id: str) -> EnvironmentInfo:
    try:
        env = make(env_id)
    except MissingExtraError:
        extra = _extra_of(registry[env_id])
        return EnvironmentInfo(alias, env_id, None, None, None, extra)
    env.close()
    return EnvironmentInfo(alias, env_id, env.obs_size, env.act_size, env.max_episode_steps, None)


def resolve(name: str) -> str:
    """Return the Gymnasium id of an alias or an id; `module:Name-v0` imports the module first.

    Raises:
        UnknownEnvironmentError: nothing has this name.
        InvalidEnvironmentError: the module of `module:Name-v0` raised while it was imported.
    """
    if name in ALIASES:
        return ALIASES[name]
    module, separator, env_id = name.rpartition(":")
    if separator:
        _import(module, name)
    if env_id not in registry:
        suggestion = did_you_mean(env_id, [*ALIASES, *registry])
        raise UnknownEnvironmentError(
            f"Unknown environment '{name}'.{suggestion} List them: mgrl envs"
        )
    return name


def _import(module: str, name: str) -> None:
    if not all(part.isidentifier() for part in module.split(".")):
        raise UnknownEnvironmentError(
            f"Unknown environment '{name}': expected module:Name-v0, got '{module}' for the "
            "module. List them: mgrl envs"
        )
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UnknownEnvironmentError(
            f"Unknown environment '{name}': {error}; expected a module on the Python path. "
            "List the environments without one: mgrl envs"
        ) from error
    except Exception as error:  # a module of the user's can raise anything
        raise InvalidEnvironmentError(
            f"{name}: importing '{module}' raised {_reason(error)}"
        ) from error


def make(
    name: str, kwargs: Mapping[str, Any] | None = None, randomise: Ranges | None = None
) -> ControlEnvironment:
    """Make an environment.

    Args:
        name: alias, Gymnasium id or `module:Name-v0`.
        kwargs: arguments of the environment's constructor.
        randomise: physics parameters to draw uniformly from (low, high) at every reset.

    Raises:
        UnknownEnvironmentError: nothing has this name.
        MissingExtraError: a package that the environment needs is not installed.
        UnsupportedSpacesError: the spaces are not one-dimensional float boxes with finite action
            bounds.
        InvalidEnvironmentError: the arguments or the randomised parameters do not fit.
        EnvironmentFailure: the constructor raised, and not for its arguments.
    """
    env_id = resolve(name)
    env = _made(env_id, dict(kwargs or {}))
    try:
        random_physics = _random_physics(env, env_id, randomise) if randomise else None
        return ControlEnvironment(env, env_id, random_physics)
    except EnvironmentSetupError:
        with contextlib.suppress(Exception):  # the first error is the one to report
            env.close()
        raise


def _made(env_id: str, kwargs: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    try:
        # The passive checker looks at first steps only; ControlEnvironment looks at every one.
        return gymnasium.make(env_id, disable_env_checker=True, **kwargs)
    except EnvironmentSetupError:
        raise
    except (DependencyNotInstalled, ModuleNotFoundError) as error:
        extra = _extra_of(registry[env_id.rpartition(":")[2]])
        remedy = f"pip install 'mgrl[{extra}]'" if extra else f"install it ({_reason(error)})"
        raise MissingExtraError(
            f"{env_id} needs a package that is not installed: {remedy}"
        ) from error
    except (Exception, SystemExit) as error:  # a constructor can raise anything
        given = f" with {kwargs}" if kwargs else ""
        problem = f"{env_id} could not be made{given}: {_reason(error)}"
        if _is_refusal(error, kwargs):
            raise InvalidEnvironmentError(problem) from error
        raise EnvironmentFailure(f"{problem} (raised by the constructor)") from error


def _is_refusal(error: BaseException, kwargs: Mapping[str, Any]) -> bool:
    """Return whether Gymnasium or the constructor says that it was called the wrong way."""
    if isinstance(error, (GymnasiumError, TypeError)):  # TypeError: a missing argument, too
        return True
    return bool(kwargs) and isinstance(error, _REFUSED_ARGUMENTS)


def _random_physics(
    env: gymnasium.Env[Any, Any], env_id: str, ranges: Ranges
) -> RandomPhysics | None:
    """Return what to draw before resets; our own tasks draw for themselves and need nothing."""
    task: Any = env.unwrapped
    if isinstance(task, ControlTask):
        task.randomise(ranges)
        return None
    if _module_of(env.spec).startswith(_LANDER_MODULE):
        checked = checked_ranges(env_id, ranges, LanderPhysics.supported)
        return RandomPhysics(LanderPhysics(task, frozenset(checked)), checked)
    if type(getattr(task, "model", None)).__name__ == "MjModel":
        checked = checked_ranges(env_id, ranges, MujocoPhysics.supported)
        return RandomPhysics(MujocoPhysics(task), checked)
    raise InvalidEnvironmentError(
        f"{env_id} has no physics parameters to randomise; expected a NumPy task of mgrl, a "
        "MuJoCo task or LunarLanderContinuous-v3, else vary its kwargs"
    )


def _extra_of(spec: EnvSpec) -> str | None:
    module = _module_of(spec)
    return next(
        (extra for prefix, extra in _EXTRA_OF_MODULE.items() if module.startswith(prefix)), None
    )


def _module_of(spec: EnvSpec | None) -> str:
    """Return the module an environment's class comes from, "" where that is not written down."""
    entry_point = spec.entry_point if spec is not None else None
    return entry_point.partition(":")[0] if isinstance(entry_point, str) else ""


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
