import numpy as np
import pytest
import torch

from mgrl_cli.agents.kinds import make_agent
from mgrl_cli.agents.off_policy import OffPolicyAgent
from mgrl_cli.agents.population import agent_specs, objective_shape
from mgrl_cli.agents.rules import config_of_rule, objective_of
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.algorithm.objectives import (
    CriticObjective,
    ImportanceWeightedReinforce,
    LearnedObjectiveLoss,
    ReinforceObjective,
)
from mgrl_cli.config import BASELINES, RunConfig
from mgrl_cli.presets import PRESETS, resolve_config


def config_for(*rules: str, preset: str = "smoke", assignments: tuple[str, ...] = ()) -> RunConfig:
    return resolve_config(
        kind="meta-test",
        preset=preset,
        assignments=assignments,
        options={"envs": [{"id": "pendulum"}], "rules": list(rules)},
    )


@pytest.fixture
def agent_of():
    agents = []

    def build(rule: str, *assignments: str):
        config = config_for(rule, assignments=("evaluation.interval=0", *assignments))
        network = ObjectiveNetwork(objective_shape(config))
        params = network.initialise(np.random.default_rng(0))
        agents.append(make_agent(agent_specs(config)[0], config, network, params, lambda: None))
        return agents[-1]

    yield build
    for agent in agents:
        agent.close()


OBJECTIVES = {
    "learned": LearnedObjectiveLoss,
    "untrained": LearnedObjectiveLoss,
    "ddpg": CriticObjective,
    "td3": CriticObjective,
    "reinforce": ReinforceObjective,
    "reinforce-is": ImportanceWeightedReinforce,
    "reinforce-is-clipped": ImportanceWeightedReinforce,
}


@pytest.mark.parametrize("rule", OBJECTIVES)
def test_every_off_policy_rule_has_its_objective(rule):
    config = config_for(rule)
    network = ObjectiveNetwork(objective_shape(config))
    assert type(objective_of(rule, config, network, torch.empty(0))) is OBJECTIVES[rule]


@pytest.mark.parametrize("preset", PRESETS)
def test_td3_is_as_published_under_every_preset(preset):
    settings = (
        *("critic.terminal_bonus=true", "critic.timeout_is_terminal=true"),
        "schedule.policy_interval=5",
    )
    config = config_for("td3", preset=preset, assignments=settings)
    td3 = config_of_rule(config, "td3")
    for network in (td3.policy, td3.critic):
        assert (network.hidden, network.learning_rate) == (256, 3e-4)
        assert (network.layer_norm, network.initialisation) == (False, "fan_in")
    policy = td3.policy
    assert (policy.clip_norm, policy.pre_activation_limit, policy.last_layer_scale) == (0, 0, 1)
    critic = td3.critic
    assert critic.batch == "transitions"
    assert (critic.terminal_bonus, critic.timeout_is_terminal) == (False, False)
    assert td3.schedule.policy_interval == 2
    assert td3.windows.batch * td3.windows.steps == 256
    kept = {"exploration", "evaluation", "replay", "steps", "seed"}
    assert all(getattr(td3, name) == getattr(config, name) for name in kept)
    for name in ("discount", "polyak", "target_noise", "target_noise_clip"):
        assert getattr(critic, name) == getattr(config.critic, name)
    for name in ("round_steps", "updates_start"):
        assert getattr(td3.schedule, name) == getattr(config.schedule, name)


@pytest.mark.parametrize("rule", [rule for rule in OBJECTIVES if rule != "td3"])
def test_every_other_rule_runs_under_the_runs_own_settings(rule):
    config = config_for(rule)
    assert config_of_rule(config, rule) is config


def test_a_td3_agent_draws_256_independent_transitions_for_both_updates(agent_of):
    agent = agent_of(
        *("td3", "schedule.updates_start=0", "exploration.random_steps=0"),
        "schedule.policy_interval=5",
    )
    agent.begin_round()
    agent.play(400, 0)
    windows = agent._windows(agent._config.windows.batch)
    assert windows.action.shape == (256, 1, 1)
    assert windows.is_valid.all()
    assert agent._critic_batch().action.shape == (256, 1)
    obs, act = 3, 1
    critic = (obs + act) * 256 + 256 + 256 * 256 + 256 + 256 + 1
    assert agent.learner.critic_params.shape == (2, critic)
    before = agent.learner.policy_params.clone()
    agent.learn(1)
    assert torch.equal(agent.learner.policy_params, before)
    agent.learn(2)
    # Adam's first step has the length of the learning rate.
    moved = (agent.learner.policy_params - before).abs().max().item()
    assert moved == pytest.approx(3e-4, rel=1e-2)


@pytest.mark.parametrize("rule", ["reinforce-is", "reinforce-is-clipped"])
def test_importance_weighted_agents_see_how_actions_came_about(agent_of, rule):
    agent = agent_of(rule, "schedule.updates_start=0", "exploration.random_steps=100")
    agent.begin_round()
    agent.play(200, 0)
    before = agent.learner.policy_params.clone()
    agent.learn(0)
    assert agent.statistics.summary()["skipped_updates"] == 0
    assert not torch.equal(agent.learner.policy_params, before)
    # The same agent, but for what its replay says about how likely its actions were.
    other = agent_of(rule, "schedule.updates_start=0", "exploration.random_steps=100")
    other.begin_round()
    other.play(200, 0)
    other.replay._log_density[:200] += np.random.default_rng(0).normal(size=200).astype(np.float32)
    other.learn(0)
    assert torch.equal(other.learner.critic_params, agent.learner.critic_params)
    assert not torch.equal(other.learner.policy_params, agent.learner.policy_params)


def test_the_rules_of_importance_weights_differ_in_the_clip_alone(agent_of):
    """Just after play every weight is 1, so only a clip below that shows."""
    losses = {}
    for rule in ("reinforce-is", "reinforce-is-clipped"):
        for clip in (10.0, 0.5):
            agent = agent_of(rule, "exploration.random_steps=0", f"reinforce.weight_clip={clip}")
            agent.play(200, 0)
            windows = agent._windows(64, with_behaviour=True)
            update = agent.learner.update_policy(windows, agent._objective, 1.0)
            losses[rule, clip] = update.loss
    plain = losses["reinforce-is", 10.0]
    assert losses["reinforce-is", 0.5] == plain
    assert losses["reinforce-is-clipped", 10.0] == pytest.approx(plain, rel=1e-3)
    assert losses["reinforce-is-clipped", 0.5] == pytest.approx(0.5 * plain, rel=1e-3)


def test_every_baseline_makes_an_agent(agent_of):
    for rule in BASELINES:
        if rule == "ppo":
            pytest.importorskip("stable_baselines3", reason="the rule ppo needs its extra")
        agent = agent_of(rule)
        assert agent.spec.rule == rule
        assert isinstance(agent, OffPolicyAgent) is (rule in OBJECTIVES)
