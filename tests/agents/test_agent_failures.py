"""An agent whose environment fails, or whose numbers give out."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from mgrl_cli.agents.health import DIVERGED
from mgrl_cli.agents.off_policy import OffPolicyAgent
from mgrl_cli.agents.streams import Streams, draw_seed
from mgrl_cli.config import EnvConfig
from mgrl_cli.telemetry import AgentState


def assert_is_out(agent: OffPolicyAgent) -> None:
    """Nothing is asked of it any more, and nothing comes of asking."""
    assert agent.state == AgentState.QUARANTINED
    assert not agent.is_learning
    streams, counters = agent.streams.state(), asdict(agent.counters)
    agent.play(agent.counters.env_steps + 100, 0)
    agent.evaluate_if_due()
    assert agent.streams.state() == streams
    assert asdict(agent.counters) == counters
    agent.begin_round()
    assert agent.state == AgentState.QUARANTINED


@pytest.mark.parametrize("fault", ["raise_step", "nan_obs", "nan_reward", "inf_obs"])
def test_failed_episodes_are_counted_and_leave_nothing_behind(faulty, make_agent, fault):
    agent = make_agent(EnvConfig(id=faulty, kwargs={"fault": fault, "rate": 0.03}))
    agent.begin_round()
    agent.play(400, 0)
    failed = agent.statistics.summary()["failed_episodes"]
    assert failed >= 3
    episodes = agent.new_episodes
    assert [len(episode.reward) for episode in episodes] == [20] * 20
    assert agent.replay.num_steps == agent.counters.env_steps == 400
    assert agent.replay.num_episodes == agent.counters.episodes == len(agent.counters.returns) == 20
    assert all(np.isfinite(episode.obs).all() for episode in episodes)
    assert all(np.isfinite(episode.reward).all() for episode in episodes)
    # Whole or not, an episode takes one seed.
    environment = Streams(0, 0).environment
    drawn = [draw_seed(environment) for _ in range(20 + failed)]
    seeds = [episode.seed for episode in episodes]
    assert [seed for seed in drawn if seed in seeds] == seeds
    assert environment.bit_generator.state == agent.streams.environment.bit_generator.state


def test_failed_episodes_in_a_row_put_an_agent_into_quarantine(faulty, make_agent):
    env = EnvConfig(id=faulty, kwargs={"fault": "raise_step", "at": 5})
    agent = make_agent(env, "supervision.max_failed_episodes=4", "evaluation.interval=1")
    agent.begin_round()
    agent.play(60, 0)
    assert agent.health.failed_episodes == 4
    assert agent.statistics.summary()["failed_episodes"] == 4
    assert agent.health.quarantine.startswith("4 episodes in a row failed")
    assert "the motor burned out" in agent.health.quarantine
    assert (agent.counters.env_steps, agent.replay.num_steps, agent.new_episodes) == (0, 0, [])
    assert_is_out(agent)


def test_an_agent_in_quarantine_keeps_what_it_played_and_learns_no_more(make_agent, scripted):
    scripted.failing_episodes = frozenset({4})
    agent = make_agent("Scripted-v0", "supervision.max_failed_episodes=1", "evaluation.interval=10")
    agent.begin_round()
    agent.play(30, 0)
    assert agent.is_learning
    agent.play(60, 0)
    assert (agent.counters.env_steps, agent.replay.num_steps) == (30, 30)
    assert_is_out(agent)


def test_whole_episodes_in_between_renew_patience(make_agent, scripted):
    scripted.failing_episodes = frozenset(range(2, 100, 2))
    agent = make_agent("Scripted-v0", "supervision.max_failed_episodes=2")
    agent.play(200, 0)
    assert agent.counters.episodes == 20
    assert not agent.health.quarantine


def test_a_constructor_that_fails_for_good_ends_in_quarantine(make_agent, scripted):
    scripted.failing_episodes = frozenset({2})
    scripted.constructor_errors = {n: RuntimeError("no motor found") for n in range(3, 100)}
    agent = make_agent("Scripted-v0", "supervision.max_failed_episodes=5")
    agent.play(100, 0)
    assert agent.counters.env_steps == 10
    assert "no motor found" in agent.health.quarantine
    assert scripted.made == 2 + 4
    assert_is_out(agent)


def test_an_evaluation_is_the_mean_of_what_did_not_fail(make_agent, scripted):
    scripted.failing_episodes = frozenset({3, 5})
    agent = make_agent(
        EnvConfig(id="Scripted-v0", kwargs={"reward": 0.5}),
        *("evaluation.interval=10", "evaluation.episodes=4"),
    )
    agent.begin_round()
    agent.play(10, 0)
    agent.evaluate_if_due()  # episodes 2 to 5, of 10 steps each
    summary = agent.statistics.summary()
    assert (summary["evaluation"], summary["failed_episodes"]) == (5.0, 2)
    assert agent.counters.last_evaluation == 5.0
    assert agent.health.failed_episodes == 0


def test_an_evaluation_that_fails_whole_leaves_the_last_one(make_agent, scripted):
    agent = make_agent("Scripted-v0", "evaluation.interval=10", "evaluation.episodes=2")
    agent.begin_round()
    agent.play(10, 0)
    agent.evaluate_if_due()
    assert agent.counters.last_evaluation == 10.0
    scripted.failing_episodes = frozenset({5, 6})
    agent.begin_round()
    agent.play(20, 0)
    agent.evaluate_if_due()
    summary = agent.statistics.summary()
    assert (summary["evaluation"], summary["failed_episodes"]) == (None, 2)
    assert (agent.counters.last_evaluation, agent.counters.evaluations) == (10.0, 2)
    assert not agent.health.quarantine
    agent.begin_round()
    agent.play(30, 0)
    agent.evaluate_if_due()
    assert agent.statistics.summary()["evaluation"] == 10.0


def test_a_critic_that_is_not_finite_is_never_applied_and_ends_in_quarantine(make_agent):
    agent = make_agent("pendulum", "supervision.max_skipped_updates=6")
    agent.begin_round()
    agent.play(1, 0)
    agent.learner.critic_params.fill_(torch.nan)
    policy = agent.learner.policy_params.clone()
    made = 0
    while agent.is_learning and made < 100:
        agent.learn(made)
        made += 1
    assert made == 6
    assert agent.health.quarantine == f"{DIVERGED}: 6 critic updates in a row were not finite"
    assert agent.statistics.summary()["skipped_updates"] == 9  # six of the critic, three of 0, 2, 4
    assert torch.equal(agent.learner.policy_params, policy)
    assert torch.isfinite(agent.learner.policy_target).all()
    assert_is_out(agent)


@pytest.mark.parametrize("rule", ["learned", "ddpg", "reinforce"])
@pytest.mark.parametrize("reward", [1e25, 3.4e38])
def test_rewards_beyond_what_adam_can_square_end_in_quarantine(make_agent, scripted, rule, reward):
    """The policy may go on finitely all the while: -Q does not see the reward."""
    env = EnvConfig(id="Scripted-v0", kwargs={"reward": reward})
    agent = make_agent(env, "supervision.max_skipped_updates=10", kind="meta-test", rules=[rule])
    agent.begin_round()
    agent.play(20, 0)
    critic = agent.learner.critic_params.clone()
    for j in range(10):
        assert agent.is_learning
        agent.learn(j)
    assert agent.health.quarantine.startswith(DIVERGED)
    assert torch.equal(agent.learner.critic_params, critic)
    for name, tensor in agent.learner.tensors().items():
        assert torch.isfinite(tensor).all(), name


def test_one_gradient_too_large_for_adam_does_not_stop_it_for_good(make_agent, scripted):
    env = EnvConfig(id="Scripted-v0", kwargs={"reward": 1e25})
    agent = make_agent(env)
    agent.play(20, 0)
    agent.learn(1)
    agent.replay.clear()
    healthy = make_agent("Scripted-v0")
    healthy.play(20, 0)
    for episode in healthy.new_episodes:
        agent.replay.append(episode)
    before = agent.learner.critic_params.clone()
    agent.learn(3)
    assert agent.health.skipped_critic_updates == 0
    assert not torch.equal(agent.learner.critic_params, before)


def test_an_observation_that_no_network_bears_is_a_failed_episode(make_agent, scripted):
    """Finite in float32, but the sum over a layer's units is not."""
    env = EnvConfig(id="Scripted-v0", kwargs={"obs": 3e38})
    agent = make_agent(env, "supervision.max_failed_episodes=3")
    agent.begin_round()
    agent.play(20, 0)
    assert agent.statistics.summary()["failed_episodes"] == 3
    assert "the policy overflowed" in agent.health.quarantine
    assert agent.replay.num_steps == 0


@pytest.mark.parametrize("scale", ["clip", "unit"])
def test_a_meta_gradient_that_is_not_finite_stays_recognisable(make_agent, scale):
    agent = make_agent("pendulum", f"meta.gradient_scale={scale}")
    agent.begin_round()
    agent.play(1, 0)
    assert torch.isfinite(agent.meta_gradient(1)).all()
    agent.learner.critic_params.fill_(torch.nan)
    assert not torch.isfinite(agent.meta_gradient(2)).all()


def test_meta_gradients_that_are_not_finite_end_in_quarantine(make_agent):
    agent = make_agent("pendulum", "supervision.max_skipped_updates=3")
    agent.begin_round()
    agent.play(1, 0)
    for is_finite in (False, False, True, False, False):
        agent.count_meta_gradient(is_finite)
        assert agent.is_learning
    agent.count_meta_gradient(False)
    assert agent.statistics.summary()["skipped_gradients"] == 5
    assert agent.health.quarantine == f"{DIVERGED}: 3 meta-gradients in a row were not finite"
    assert_is_out(agent)
