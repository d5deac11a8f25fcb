"""Playing whole episodes: with exploration into a record, or without noise for a return."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from envs.control import ControlEnvironment, StepResult
from envs.errors import EnvironmentFailure
from mgrl_cli.replay.schema import BehaviourKind, Episode

Act = Callable[[np.ndarray], np.ndarray]
"""Observation [obs] → action [act] in [-1, 1], both float32."""


class Exploration(NamedTuple):
    """How an agent departs from its policy."""

    rng: np.random.Generator
    """Draws the exploration."""
    random_steps: int
    """Steps still to be taken at random; 0 or less: none."""
    noise: float | np.ndarray
    """Standard deviation in units of the [-1, 1] action: one number, or one per dimension."""


def play_episode(
    environment: ControlEnvironment,
    act: Act,
    exploration: Exploration,
    seed: int,
    on_step: Callable[[], None],
) -> Episode:
    """Play one whole episode with exploration and return its record.

    Actions are uniform in [-1, 1] for the first `random_steps` steps, then π(s) + N(0, noise²),
    clipped to [-1, 1]; the clipped action is executed. Every episode is reset with a seed of its
    own, so that it can be replayed from the record alone.

    Args:
        environment: where to play.
        act: the policy, without noise.
        exploration: what is added to it.
        seed: of this episode.
        on_step: called before every env step, as a sign of life.

    Raises:
        EnvironmentFailure: the environment raised or returned something not finite, or something
            so large that the policy's action is not finite.
    """
    rng = exploration.rng
    deviation = np.asarray(exploration.noise, dtype=np.float32)
    observations = [environment.reset(seed=seed)]
    means: list[np.ndarray] = []
    raw_actions: list[np.ndarray] = []
    kinds: list[int] = []
    rewards: list[float] = []
    terminated = truncated = False
    while not (terminated or truncated):
        on_step()
        if len(rewards) < exploration.random_steps:
            raw_action = rng.uniform(-1.0, 1.0, environment.act_size).astype(np.float32)
            means.append(np.zeros_like(raw_action))
            kinds.append(BehaviourKind.RANDOM)
        else:
            mean = act(observations[-1])
            noise = rng.standard_normal(environment.act_size, dtype=np.float32)
            raw_action = mean + deviation * noise
            means.append(mean)
            kinds.append(BehaviourKind.POLICY)
        raw_actions.append(raw_action)
        result = take_step(environment, raw_action.clip(-1.0, 1.0))
        observations.append(result.obs)
        rewards.append(result.reward)
        terminated, truncated = result.terminated, result.truncated
    raw_action_array = np.stack(raw_actions)
    at_end = np.arange(1, len(rewards) + 1) == len(rewards)
    return Episode(
        obs=np.stack(observations),
        action=raw_action_array.clip(-1.0, 1.0),
        raw_action=raw_action_array,
        behaviour_mean=np.stack(means),
        behaviour_kind=np.asarray(kinds, dtype=np.uint8),
        reward=np.asarray(rewards, dtype=np.float32),
        terminated=at_end & terminated,
        truncated=at_end & truncated,
        objective_version=np.zeros(len(rewards), dtype=np.int64),
        seed=seed,
        life=0,
    )


def play_noise_free(
    environment: ControlEnvironment, act: Act, seed: int, on_step: Callable[[], None]
) -> float:
    """Return the undiscounted return of one episode without exploration noise.

    Args:
        environment: where to play.
        act: the policy.
        seed: of this episode.
        on_step: called before every env step, as a sign of life.

    Raises:
        EnvironmentFailure: the environment raised or returned something not finite, or something
            so large that the policy's action is not finite.
    """
    obs = environment.reset(seed=seed)
    total = 0.0
    terminated = truncated = False
    while not (terminated or truncated):
        on_step()
        obs, reward, terminated, truncated = take_step(environment, act(obs))
        total += reward
    return total


def take_step(environment: ControlEnvironment, action: np.ndarray) -> StepResult:
    """Take one step of a policy's.

    Raises:
        EnvironmentFailure: as of `play_episode`.
    """
    try:
        return environment.step(action)
    except ValueError as error:
        # A network overflows far below the largest float32, which an observation may reach.
        reason = " ".join(str(error).split())
        raise EnvironmentFailure(f"{reason} (the policy overflowed)") from error
