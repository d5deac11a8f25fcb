"""Small records of both kinds."""

import math

import pytest

from mgrl_cli.run_dir.metrics import EvaluationRow, PopulationRow


@pytest.fixture
def evaluations() -> list[EvaluationRow]:
    """Two rules, two seeds, three evaluations each, on hopper."""
    return [
        EvaluationRow(
            rule=rule,
            environment="hopper",
            seed=seed,
            env_steps=10_000 * round_index + seed,
            evaluation_return=scale * round_index + seed / 3,
            training_return=math.nan if round_index == 1 else scale * 0.9,
        )
        for rule, scale in (("learned", 100.0), ("ddpg", 30.0))
        for seed in range(2)
        for round_index in range(1, 4)
    ]


@pytest.fixture
def population() -> list[PopulationRow]:
    """Four agents on two environments, evaluated every other round."""
    return [
        PopulationRow(
            agent_id=agent_id,
            environment="lunar" if agent_id % 2 == 0 else "cheetah",
            env_steps=1_000 * round_index + agent_id,
            mean_return=-100.0 + round_index,
            evaluation_return=-90.0 if round_index % 2 == 0 else math.nan,
            gain=0.001 * (round_index - 3),
            cosine=0.1 * round_index,
            inner_gradient_norm=1.0,
            meta_gradient_norm=0.02 * (agent_id + 1),
            action_slack=0.5,
            critic_loss=1.5,
        )
        for agent_id in range(4)
        for round_index in range(1, 7)
    ]
