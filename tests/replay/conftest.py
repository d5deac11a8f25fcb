from collections.abc import Callable

import numpy as np
import pytest

from mgrl_cli.replay.schema import BehaviourKind, Episode

OBS_SIZE, ACT_SIZE = 3, 2


def build_episode(length: int, number: int = 0, *, is_truncated: bool = False) -> Episode:
    """An episode whose every number tells which episode and step it belongs to.

    Observation t of episode n is (n, t, 0.5); the reward of its step is 1000 n + t + 1.
    """
    time = np.arange(length + 1, dtype=np.float32)
    obs = np.stack((np.full_like(time, number), time, np.full_like(time, 0.5)), axis=1)
    action = np.stack(((time[:-1] + 1) / 10_000, -np.ones(length)), axis=1).astype(np.float32)
    at_end = np.arange(length) == length - 1
    return Episode(
        obs=obs,
        action=action,
        raw_action=2 * action,
        behaviour_mean=action / 2,
        behaviour_kind=np.full(length, BehaviourKind.POLICY, np.uint8),
        reward=(1000 * number + time[:-1] + 1).astype(np.float32),
        terminated=at_end & (not is_truncated),
        truncated=at_end & is_truncated,
        objective_version=np.full(length, 7 + number, np.int64),
        seed=100 + number,
        life=number // 2,
    )


@pytest.fixture(scope="session")
def make_episode() -> Callable[..., Episode]:
    return build_episode
