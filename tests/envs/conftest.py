"""Shared fixtures: a scratch working directory and environments registered for one test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import register, registry

Register = Callable[..., str]


@pytest.fixture(autouse=True)
def _in_scratch_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes MUJOCO_LOG.TXT to the working directory when a model has a deprecated tag."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def registered() -> Iterator[Register]:
    """Register an environment class under `test/<class name>-v0` until the test ends."""
    ids: list[str] = []

    def register_one(entry_point: type[gymnasium.Env], **options: object) -> str:
        env_id = f"test/{entry_point.__name__}-v0"
        register(env_id, entry_point, **options)
        ids.append(env_id)
        return env_id

    yield register_one
    for env_id in ids:
        del registry[env_id]


class Recorder(gymnasium.Env):
    """Two observations, two actions with different bounds; keeps what it was given."""

    def __init__(self, length: int | None = None):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), dtype=np.float64)
        self.action_space = spaces.Box(
            np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)
        )
        self.length = length
        self.actions: list[np.ndarray] = []
        self.buffer = np.zeros(2)
        self.obs: object = self.buffer
        self.reward: object = 1.0
        self.terminated: object = False
        self.truncated: object = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.actions = []
        self.buffer[:] = self.np_random.uniform(size=2)
        return self.obs, {}

    def step(self, action):
        self.actions.append(action)
        self.buffer += 1.0
        is_over = len(self.actions) == self.length
        return self.obs, self.reward, is_over or self.terminated, self.truncated, {}


@pytest.fixture
def recorder(registered: Register) -> str:
    return registered(Recorder)
