"""Agents for tests, and environments that fail them."""

from collections.abc import Callable, Iterator
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import registry
from gymnasium.spaces import Box

from mgrl_cli.agents.off_policy import OffPolicyAgent
from mgrl_cli.agents.population import agent_specs, objective_shape
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.config import EnvConfig
from mgrl_cli.presets import resolve_config
from tests.faults import conftest as faults

faulty = faults.faulty

EPISODE = 10
"""Steps of every episode of `Scripted`."""


class Scripted(gymnasium.Env):
    """Does what it was told to at the n-th construction or episode, counted over all instances."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    made = closed = episodes = 0
    constructor_errors: ClassVar[dict[int, BaseException]] = {}
    """Number of the construction, from 1 → what it raises."""
    failing_episodes: frozenset[int] = frozenset()
    """Numbers of the episodes that fail at their third step, from 1."""

    def __init__(self, reward: float = 1.0, obs: float = 1.0):
        kind = type(self)
        kind.made += 1
        if kind.made in kind.constructor_errors:
            raise kind.constructor_errors[kind.made]
        self.reward, self.obs, self.steps = reward, obs, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        type(self).episodes += 1
        self.number, self.steps = type(self).episodes, 0
        return self.observed(), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 3 and self.number in self.failing_episodes:
            raise RuntimeError("the script says so")
        return self.observed(), self.reward, self.steps >= EPISODE, False, {}

    def close(self):
        type(self).closed += 1

    def observed(self):
        return self.obs * self.np_random.uniform(0.5, 1.0, 2)


@pytest.fixture
def scripted() -> Iterator[type[Scripted]]:
    """`Scripted` at its beginning; its id is "Scripted-v0"."""
    fresh = type("Fresh", (Scripted,), {"made": 0, "closed": 0, "episodes": 0})
    gymnasium.register("Scripted-v0", fresh)
    yield fresh
    registry.pop("Scripted-v0")


@pytest.fixture
def make_agent() -> Iterator[Callable[..., OffPolicyAgent]]:
    """Builds small agents that act and learn from their first episode on."""
    agents: list[OffPolicyAgent] = []

    def build(
        env: EnvConfig | str, *assignments: str, kind: str = "meta-train", **options: object
    ) -> OffPolicyAgent:
        settings = EnvConfig(id=env) if isinstance(env, str) else env
        config = resolve_config(
            kind=kind,
            preset="smoke",
            assignments=(
                *("policy.hidden=8", "critic.hidden=8", "windows.batch=4", "windows.steps=5"),
                *("exploration.random_steps=0", "schedule.updates_start=0"),
                *("evaluation.interval=0", *assignments),
            ),
            options={"envs": [settings.model_dump()], **options},
        )
        network = ObjectiveNetwork(objective_shape(config))
        params = network.initialise(np.random.default_rng(0))
        agents.append(OffPolicyAgent(agent_specs(config)[0], config, network, params))
        return agents[-1]

    yield build
    for agent in agents:
        agent.close()
