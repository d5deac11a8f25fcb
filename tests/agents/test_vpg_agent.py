import numpy as np
import pytest

from mgrl_cli.agents.health import DIVERGED
from mgrl_cli.agents.population import agent_specs
from mgrl_cli.agents.vpg_agent import VpgAgent
from mgrl_cli.presets import resolve_config
from mgrl_cli.replay.schema import BehaviourKind

EPISODE = 200
"""Steps of every pendulum episode."""


@pytest.fixture
def agent_of():
    agents = []

    def build(*assignments: str, env: str = "pendulum", seed: int = 0, **kwargs: float) -> VpgAgent:
        config = resolve_config(
            kind="meta-test",
            preset="smoke",
            assignments=assignments,
            options={
                "envs": [{"id": env, "kwargs": kwargs}],
                "rules": ["vpg"],
                "seed": seed,
                "steps": 10**6,
            },
        )
        agents.append(VpgAgent(agent_specs(config)[0], config))
        return agents[-1]

    yield build
    for agent in agents:
        agent.close()


def test_an_epoch_ends_with_the_episode_that_reaches_its_steps(agent_of):
    agent = agent_of("vpg.epoch_steps=500")
    seen = []
    for target in range(EPISODE, 7 * EPISODE + 1, EPISODE):
        agent.play(target, 0)
        seen.append((agent.counters.updates, agent.replay.num_steps))
    assert seen == [(0, 200), (0, 400), (1, 0), (1, 200), (1, 400), (2, 0), (2, 200)]
    assert agent.learner.tensors()["policy.adam_steps"] == 2
    assert agent.statistics.summary()["policy_loss"] is not None


def test_it_plays_its_own_gaussian_and_is_evaluated_at_the_mean(agent_of):
    agent = agent_of()
    agent.play(EPISODE, 0)
    (episode,) = agent.new_episodes
    assert set(episode.behaviour_kind) == {BehaviourKind.POLICY}
    noise = episode.raw_action - episode.behaviour_mean
    assert np.abs(noise).max() > np.exp(-0.5)
    assert noise.std() == pytest.approx(np.exp(-0.5), rel=0.15)
    assert (episode.behaviour_mean[0] == agent.act(episode.obs[0])).all()
    assert (episode.action == episode.raw_action.clip(-1, 1)).all()


def test_a_policy_that_is_not_finite_ends_in_quarantine(agent_of):
    agent = agent_of("vpg.epoch_steps=200")
    agent.learner.policy_params.fill_(np.nan)
    agent.play(EPISODE, 0)
    assert agent.statistics.summary()["failed_episodes"] > 0
    assert agent.health.quarantine


def test_epochs_that_teach_nothing_end_in_quarantine_after_three(agent_of, scripted):
    """A run has tens of epochs: waiting for a hundred would be waiting for its end."""
    agent = agent_of("vpg.epoch_steps=20", env="Scripted-v0", reward=3e38)
    before = {name: tensor.clone() for name, tensor in agent.learner.tensors().items()}
    agent.begin_round()
    agent.play(40, 0)
    assert not agent.health.quarantine
    agent.play(10_000, 0)
    assert agent.counters.updates == 3
    assert agent.health.quarantine == f"{DIVERGED}: 3 critic updates in a row were not finite"
    assert agent.statistics.summary()["skipped_updates"] == 6
    assert all(tensor.equal(before[name]) for name, tensor in agent.learner.tensors().items())


def test_its_value_steps_are_signs_of_life(agent_of, scripted):
    agent = agent_of("vpg.epoch_steps=20", "vpg.value_steps=7", env="Scripted-v0")
    beats = []
    agent.player.on_step = lambda: beats.append(agent.counters.updates)
    agent.play(20, 0)
    assert len(beats) == 20 + 7


@pytest.mark.slow
def test_it_learns_to_balance_a_pole(agent_of):
    """Within 40 epochs episodes get several times as long as those of the fresh policy."""
    agent = agent_of(
        *("vpg.epoch_steps=500", "vpg.policy_learning_rate=0.003", "vpg.value_steps=20"),
        env="cartpole",
    )
    agent.play(20_000, 0)
    returns = [episode.reward.sum() for episode in agent.new_episodes]
    assert np.mean(returns[-10:]) > 3 * np.mean(returns[:10])
