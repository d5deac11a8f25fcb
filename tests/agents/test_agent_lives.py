"""An agent over its lives: exploring, learning, being evaluated, starting anew."""

import numpy as np
import pytest
import torch

import mgrl_cli.agents.player as player_module
from envs.registry import make
from mgrl_cli.agents.off_policy import OffPolicyAgent
from mgrl_cli.agents.population import agent_specs, objective_shape
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.presets import resolve_config
from mgrl_cli.replay.schema import BehaviourKind
from mgrl_cli.telemetry import AgentState

EPISODE = 20
"""Steps of every episode here."""


@pytest.fixture
def agent_of():
    agents = []

    def build(
        *assignments: str, kind: str = "meta-train", number: int = 0, **options: object
    ) -> OffPolicyAgent:
        config = resolve_config(
            kind=kind,
            preset="smoke",
            assignments=(
                *("policy.hidden=8", "critic.hidden=8", "windows.batch=4", "windows.steps=6"),
                *("exploration.random_steps=0", "schedule.updates_start=0"),
                *("schedule.round_steps=60", "evaluation.interval=0", "agents=2"),
                *assignments,
            ),
            options={
                "envs": [{"id": "pendulum", "kwargs": {"max_episode_steps": EPISODE}}],
                **options,
            },
        )
        network = ObjectiveNetwork(objective_shape(config))
        params = network.initialise(np.random.default_rng(0))
        agents.append(OffPolicyAgent(agent_specs(config)[number], config, network, params))
        return agents[-1]

    yield build
    for agent in agents:
        agent.close()


def play_round(agent: OffPolicyAgent, index: int, round_steps: int = 60) -> None:
    agent.begin_round()
    agent.play(index * round_steps, 0)


def kinds(agent: OffPolicyAgent) -> list[int]:
    """How each step so far was chosen."""
    return [int(kind) for episode in agent.new_episodes for kind in episode.behaviour_kind]


def test_a_life_begins_with_random_steps_to_the_step(agent_of) -> None:
    agent = agent_of("exploration.random_steps=50")
    agent.play(80, 0)
    assert kinds(agent) == [BehaviourKind.RANDOM] * 50 + [BehaviourKind.POLICY] * 30


def test_updates_begin_in_the_round_that_ends_at_their_start(agent_of) -> None:
    agent = agent_of("schedule.updates_start=120")
    learning = []
    for index in (1, 2, 3):
        play_round(agent, index)
        learning.append(agent.is_learning)
    assert learning == [False, True, True]


def test_an_agent_that_has_not_played_does_not_learn(agent_of) -> None:
    assert not agent_of("schedule.updates_start=0").is_learning


def test_every_step_says_which_objective_and_life_it_belongs_to(agent_of) -> None:
    agent = agent_of("meta.lifetime=80")  # the first of two agents: its first life ends at 40
    for index in (1, 2):
        agent.begin_round()
        agent.play(index * 60, 100 + index)
    versions = [set(episode.objective_version.tolist()) for episode in agent.new_episodes]
    assert versions == [{101}] * 3 + [{102}] * 3
    assert [episode.life for episode in agent.new_episodes] == [0] * 3 + [1] * 3


@pytest.mark.parametrize(("number", "lives"), [(0, [0, 1, 1, 2, 2, 3]), (1, [0, 0, 1, 1, 2, 2])])
def test_lives_end_at_the_first_round_past_their_length(
    agent_of, number: int, lives: list[int]
) -> None:
    """Lifetime 120, two agents: first lives of 60 and 120 steps, later ones of 120."""
    agent = agent_of("meta.lifetime=120", number=number)
    seen = []
    for index in range(1, 7):
        play_round(agent, index)
        seen.append(agent.counters.life)
    assert seen == lives


def test_without_a_lifetime_and_in_a_meta_test_there_is_one_life(agent_of) -> None:
    for agent in (agent_of(), agent_of("meta.lifetime=60", kind="meta-test")):
        for index in range(1, 5):
            play_round(agent, index)
        assert agent.counters.life == 0


def grown_up(agent_of, reset: str) -> OffPolicyAgent:
    """An agent with moved parameters, about to begin its second life."""
    agent = agent_of(
        *("meta.lifetime=120", f"meta.reset={reset}", "meta.anneal_steps=1000"),
        *("exploration.random_steps=40", "schedule.updates_start=40"),
    )
    play_round(agent, 1)
    for j in range(4):
        agent.learn(j)
    return agent


def test_reset_policy_renews_the_policy_alone_and_learns_on(agent_of) -> None:
    agent = grown_up(agent_of, "policy")
    learner = agent.learner
    policy, critic = learner.policy_params.clone(), learner.critic_params.clone()
    critic_target = learner.critic_target.clone()
    agent.begin_round()

    assert agent.counters.life == 1
    assert not torch.equal(learner.policy_params, policy)
    assert torch.equal(learner.policy_target, learner.policy_params)
    assert torch.equal(learner.critic_params, critic)
    assert torch.equal(learner.critic_target, critic_target)
    assert agent.replay.num_steps == 60
    assert agent.is_learning
    assert agent.objective_share == 1.0
    agent.play(120, 0)
    assert kinds(agent)[60:] == [BehaviourKind.POLICY] * 60


def test_reset_agent_renews_everything_and_explores_again(agent_of) -> None:
    agent = grown_up(agent_of, "agent")
    learner = agent.learner
    policy, critic = learner.policy_params.clone(), learner.critic_params.clone()
    agent.begin_round()

    assert agent.counters.life == 1
    assert not torch.equal(learner.policy_params, policy)
    assert not torch.equal(learner.critic_params, critic)
    assert torch.equal(learner.critic_target, learner.critic_params)
    assert agent.replay.num_steps == 0
    assert not agent.is_learning
    assert agent.objective_share == 1.0
    assert agent.state == AgentState.RESTARTED
    agent.play(120, 0)
    assert kinds(agent)[60:] == [BehaviourKind.RANDOM] * 40 + [BehaviourKind.POLICY] * 20
    assert agent.is_learning
    # Steps and episodes are those of the run, not of the life.
    assert (agent.counters.env_steps, agent.counters.episodes) == (120, 6)


def test_states_follow_the_life(agent_of) -> None:
    agent = agent_of(
        *("exploration.random_steps=60", "schedule.updates_start=120", "meta.anneal_steps=200"),
        steps=240,
    )
    states = [agent.state]
    for index in range(1, 5):
        play_round(agent, index)
        states.append(agent.state)
    assert states == [
        AgentState.EXPLORING,
        AgentState.EXPLORING,
        AgentState.ANNEALING,
        AgentState.ANNEALING,
        AgentState.FINISHED,
    ]


def test_evaluations_are_due_at_the_first_round_end_past_each_interval(agent_of) -> None:
    agent = agent_of("evaluation.interval=100", "evaluation.episodes=1")
    evaluated = []
    for index in range(1, 8):
        play_round(agent, index)
        agent.evaluate_if_due()
        if agent.statistics.summary()["evaluation"] is not None:
            evaluated.append(agent.counters.env_steps)
    assert evaluated == [120, 240, 300, 420]


def test_one_that_ran_past_several_intervals_is_evaluated_once(agent_of) -> None:
    agent = agent_of("evaluation.interval=10", "evaluation.episodes=1")
    play_round(agent, 1)
    agent.evaluate_if_due()
    first = agent.statistics.summary()["evaluation"]
    agent.evaluate_if_due()
    assert first is not None
    assert agent.statistics.summary()["evaluation"] == first
    assert agent.statistics.latest["evaluation"] == first


def test_an_evaluation_is_the_mean_of_noise_free_episodes_and_is_not_training(agent_of) -> None:
    agent = agent_of("evaluation.interval=60", "evaluation.episodes=3", "exploration.noise=5")
    play_round(agent, 1)
    before = (agent.counters.env_steps, agent.replay.num_steps, len(agent.new_episodes))
    seeds = np.random.default_rng(agent.streams.evaluation.bit_generator.seed_seq)
    environment = make(agent.spec.env.id, agent.spec.env.kwargs)
    expected = []
    for _ in range(3):  # an independent loop, one episode at a time
        obs = environment.reset(seed=int(seeds.integers(2**31)))
        total, ended = 0.0, False
        while not ended:
            obs, reward, terminated, truncated = environment.step(agent.learner.act(obs))
            total, ended = total + reward, terminated or truncated
        expected.append(total)
    environment.close()
    agent.evaluate_if_due()
    assert agent.statistics.summary()["evaluation"] == pytest.approx(np.mean(expected))
    assert (agent.counters.env_steps, agent.replay.num_steps, len(agent.new_episodes)) == before


def test_no_interval_means_no_evaluation(agent_of) -> None:
    agent = agent_of("evaluation.interval=0")
    play_round(agent, 1)
    agent.evaluate_if_due()
    assert agent.statistics.summary()["evaluation"] is None


def test_rules_of_one_seed_share_networks_episodes_and_evaluation_seeds(agent_of) -> None:
    options = {"kind": "meta-test", "rules": ["learned", "ddpg", "reinforce"], "seeds": 2}
    # Numbers: learned 0 and 1, ddpg 2 and 3, reinforce 4 and 5.
    learned, ddpg, reinforce = (agent_of(number=number, **options) for number in (0, 2, 4))
    other_seed = agent_of(number=1, **options)
    for agent in (learned, ddpg, reinforce, other_seed):
        play_round(agent, 1)
    for twin in (ddpg, reinforce):
        assert torch.equal(twin.learner.policy_params, learned.learner.policy_params)
        assert torch.equal(twin.learner.critic_params, learned.learner.critic_params)
        for mine, its in zip(learned.new_episodes, twin.new_episodes, strict=True):
            assert np.array_equal(mine.obs, its.obs)
    assert not np.array_equal(other_seed.new_episodes[0].obs, learned.new_episodes[0].obs)

    for agent in (learned, ddpg):
        for j in range(2):
            agent.learn(j)
    assert not torch.equal(ddpg.learner.policy_params, learned.learner.policy_params)
    # By now the policies differ; what they are evaluated on does not.
    draws = [agent.streams.evaluation.integers(2**31) for agent in (learned, ddpg, reinforce)]
    assert draws[0] == draws[1] == draws[2]
    assert other_seed.streams.evaluation.integers(2**31) != draws[0]


@pytest.mark.parametrize(("interval", "expected"), [(2, [0, 2, 4]), (3, [0, 3]), (1, range(6))])
def test_policy_and_targets_move_only_every_few_updates(
    agent_of, interval: int, expected: list[int]
) -> None:
    agent = agent_of(f"schedule.policy_interval={interval}")
    play_round(agent, 1)
    learner = agent.learner
    watched = {
        "policy": lambda: learner.policy_params,
        "policy target": lambda: learner.policy_target,
        "critic target": lambda: learner.critic_target,
        "critic": lambda: learner.critic_params,
    }
    moved: dict[str, list[int]] = {name: [] for name in watched}
    for j in range(6):
        before = {name: get().clone() for name, get in watched.items()}
        agent.learn(j)
        for name, get in watched.items():
            if not torch.equal(get(), before[name]):
                moved[name].append(j)
    for name in ("policy", "policy target", "critic target"):
        assert moved[name] == list(expected), name
    assert moved["critic"] == list(range(6))


def test_a_meta_gradient_is_clipped_or_of_unit_norm(agent_of) -> None:
    norms = {}
    for scale, limit in (("clip", 1e9), ("clip", 1e-6), ("unit", 1e-6)):
        agent = agent_of(f"meta.gradient_scale={scale}", f"meta.clip_norm={limit}")
        play_round(agent, 1)
        before = agent.learner.policy_params.clone()
        gradient = agent.meta_gradient(meta_step=1)
        norms[scale, limit] = gradient.double().norm().item()  # in float32 it is 1e-6 off
        raw = agent.statistics.summary()["meta_gradient_norm"]
        assert torch.equal(agent.learner.policy_params, before)  # the step is virtual
    assert norms["clip", 1e9] == pytest.approx(raw)
    assert raw > 1e-6
    assert norms["clip", 1e-6] == pytest.approx(1e-6, rel=1e-4)
    assert norms["unit", 1e-6] == pytest.approx(1.0, rel=1e-4)


# torch loads its forward-mode rules at first use, by a function that it deprecates itself.
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_several_virtual_steps_draw_a_batch_each(agent_of) -> None:
    agent = agent_of("meta.inner_steps=3")
    play_round(agent, 1)
    twin = agent_of("meta.inner_steps=3")
    play_round(twin, 1)
    agent.meta_gradient(meta_step=1)
    twin._windows(4 * 4)  # K + 1 batches of B windows
    assert agent.streams.replay.integers(2**31) == twin.streams.replay.integers(2**31)


def test_some_meta_steps_also_measure_gain_and_cosine(agent_of) -> None:
    agent = agent_of()
    play_round(agent, 1)
    agent.meta_gradient(meta_step=1)
    assert agent.statistics.summary()["gain"] is None
    agent.meta_gradient(meta_step=20)
    assert isinstance(agent.statistics.summary()["gain"], float)
    assert -1.0 <= agent.statistics.summary()["cosine"] <= 1.0


def test_a_round_is_one_row_of_its_own(agent_of) -> None:
    agent = agent_of("meta.anneal_steps=240", number=1)
    play_round(agent, 1)
    for j in range(3):
        agent.learn(j)
    agent.end_round()
    row = agent.metrics_row()
    expected = {
        "agent_id": 1,
        "environment": "pendulum",
        "rule": "learned",
        "seed": 1,
        "round": 1,
        "life": 0,
        "env_steps": 60,
        "updates": 3,
        "episodes": 3,
        "annealing": 0.25,
        "skipped_updates": 0,
        "evaluation": None,
    }
    assert {key: row[key] for key in expected} == expected
    returns = [float(episode.reward.sum(dtype=np.float64)) for episode in agent.new_episodes]
    assert row["mean_return"] == pytest.approx(np.mean(returns))
    play_round(agent, 2)
    assert agent.metrics_row()["critic_loss"] is None  # nothing learned in this round yet
    later = [float(episode.reward.sum(dtype=np.float64)) for episode in agent.new_episodes[3:]]
    assert agent.metrics_row()["mean_return"] == pytest.approx(np.mean(later))


def test_a_round_that_ends_leaves_the_next_at_its_beginning(agent_of) -> None:
    agent = agent_of()
    play_round(agent, 1)
    agent.counters.has_played, agent.counters.round_updates = True, 60
    agent.end_round()
    counters = agent.counters
    assert (counters.rounds, counters.has_played, counters.round_updates) == (1, False, 0)
    assert agent.metrics_row()["mean_return"] is not None  # until the next one begins
    agent.begin_round()
    assert agent.metrics_row()["mean_return"] is None


def test_evaluation_n_plays_the_same_episodes_however_it_was_reached(agent_of, monkeypatch) -> None:
    def seeds_of_evaluation_three(*env_steps: int) -> list[int]:
        """Return the seeds played when evaluations fall due at these env steps."""
        agent, played = agent_of("evaluation.interval=100", "evaluation.episodes=2"), []
        monkeypatch.setattr(
            player_module,
            "play_noise_free",
            lambda _env, _act, seed, _on_step: played.append(seed) or 0.0,
        )
        for steps in env_steps:
            agent.counters.env_steps = steps
            agent.evaluate_if_due()
        return played[-2:]

    assert seeds_of_evaluation_three(100, 200, 300) == seeds_of_evaluation_three(100, 399)
    assert seeds_of_evaluation_three(100, 200, 300) != seeds_of_evaluation_three(100, 200)
