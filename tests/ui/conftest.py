"""Snapshots to look at, small and complete."""

import math
from dataclasses import replace

import pytest

from mgrl_cli.telemetry import AgentSnapshot, AgentState, ObjectiveSnapshot, RunSnapshot

LUNAR = AgentSnapshot(
    agent_id=0,
    environment="lunar",
    rule="learned",
    seed=0,
    state=AgentState.LEARNING,
    env_steps=12_300,
    episodes=68,
    last_return=-136.4,
    mean_return=-171.6,
    returns=(-300.0, -200.0, -100.0),
    last_evaluation=-90.25,
    critic_loss=1.234,
    meta_gradient_norm=0.4382,
    gain=0.00526,
)
CHEETAH = replace(
    LUNAR,
    agent_id=1,
    environment="cheetah",
    state=AgentState.EXPLORING,
    env_steps=1_500,
    episodes=0,
    last_return=math.nan,
    mean_return=math.nan,
    returns=(),
    last_evaluation=math.nan,
    critic_loss=math.nan,
    meta_gradient_norm=math.nan,
    gain=math.nan,
)


@pytest.fixture
def meta_train() -> RunSnapshot:
    """A meta-training of two agents, one of which has no figures yet."""
    return RunSnapshot(
        name="demo-1",
        kind="meta-train",
        agents=(LUNAR, CHEETAH),
        objective=ObjectiveSnapshot(
            version=2450, parameter_norm=12.81, gradient_norm=0.123, gain=0.0013
        ),
        round_index=12,
        num_rounds=30,
        steps_per_agent=30_000,
        elapsed_s=152.0,
        agent_steps_per_s=812.4,
        eta_s=3723.0,
        saved_rounds=10,
        restarts=0,
    )


@pytest.fixture
def meta_test(meta_train: RunSnapshot) -> RunSnapshot:
    """A meta-test of two rules on hopper, two seeds each."""
    agents = tuple(
        replace(
            LUNAR,
            agent_id=2 * seed + index,
            environment="hopper",
            rule=rule,
            seed=seed,
            mean_return=100.0 * (seed + 1) + index,
        )
        for seed in range(2)
        for index, rule in enumerate(("learned", "reinforce"))
    )
    return replace(meta_train, kind="meta-test", objective=None, agents=agents)


@pytest.fixture
def crowd(meta_train: RunSnapshot) -> RunSnapshot:
    """A meta-training of 24 agents; the last one is in quarantine."""
    agents = [replace(LUNAR, agent_id=index) for index in range(24)]
    agents[-1] = replace(agents[-1], state=AgentState.QUARANTINED)
    return replace(meta_train, agents=tuple(agents))
