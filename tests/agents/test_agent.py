import pytest

from mgrl_cli.agents.off_policy import OffPolicyAgent
from mgrl_cli.agents.population import agent_specs, fresh_objective, objective_shape
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.presets import resolve_config

EPISODE = 200
"""Steps of every pendulum episode."""


@pytest.fixture
def agent_of():
    agents = []

    def build(*assignments: str, kind: str = "meta-train", number: int = 0, env: str = "pendulum"):
        config = resolve_config(
            kind=kind,
            preset="smoke",
            assignments=("policy.hidden=8", "critic.hidden=8", *assignments),
            options={"envs": [{"id": env}]},
        )
        network = ObjectiveNetwork(objective_shape(config))
        spec = agent_specs(config)[number]
        agents.append(OffPolicyAgent(spec, config, network, fresh_objective(config)))
        return agents[-1]

    yield build
    for agent in agents:
        agent.close()


def test_annealing_follows_the_agents_own_env_steps(agent_of):
    young, old = agent_of("meta.anneal_steps=800"), agent_of("meta.anneal_steps=800", number=1)
    shares = [old.objective_share]
    for steps in (200, 600, 1000):
        old.play(steps, 0)
        shares.append(old.objective_share)
    # p = min(1, env_steps / 800)
    assert shares == [0.0, 0.25, 0.75, 1.0]
    assert young.objective_share == 0.0


def test_updates_do_not_move_the_annealing(agent_of):
    agent = agent_of("meta.anneal_steps=800")
    agent.begin_round()
    agent.play(EPISODE, 0)
    for j in range(4):
        agent.learn(j)
    assert agent.objective_share == 0.25


def test_nothing_is_annealed_in_a_meta_test_or_on_request(agent_of):
    assert agent_of(kind="meta-test").objective_share == 1.0
    assert agent_of("meta.anneal_steps=0").objective_share == 1.0


def test_an_agent_plays_whole_episodes_and_rests_where_it_overshot(agent_of):
    agent = agent_of()
    played = []
    for target in (150, 200, 250, 400, 401):
        agent.play(target, 0)
        played.append(agent.counters.env_steps)
    assert played == [200, 200, 400, 400, 600]


def test_the_policy_moves_at_every_second_update(agent_of):
    agent = agent_of()
    agent.begin_round()
    agent.play(EPISODE, 0)
    moved = []
    for j in range(4):
        before = agent.learner.policy_params.clone()
        agent.learn(j)
        moved.append(not agent.learner.policy_params.equal(before))
    assert moved == [True, False, True, False]
    assert agent.counters.updates == 4


def test_the_terminal_bonus_reaches_the_reinforce_baseline(agent_of):
    """One switch for both, since the reference code has the bonus in both."""
    losses = {}
    for bonus in ("false", "true"):
        agent = agent_of(
            f"critic.terminal_bonus={bonus}",
            'rules=["reinforce"]',
            kind="meta-test",
            env="cartpole",
        )
        agent.begin_round()
        agent.play(100, 0)
        windows = agent._windows(64)
        assert windows.terminated.any()
        losses[bonus] = agent.learner.update_policy(windows, agent._objective, 1.0).loss
    assert losses["true"] != losses["false"]


@pytest.mark.parametrize("batch", ["windows", "transitions"])
@pytest.mark.parametrize("timeout_is_terminal", ["false", "true"])
def test_what_a_time_limit_means_reaches_every_batch(agent_of, batch, timeout_is_terminal):
    """Pendulum never terminates: all that can end its episodes is the limit."""
    agent = agent_of(
        f"critic.timeout_is_terminal={timeout_is_terminal}",
        f'critic.batch="{batch}"',
        "windows.batch=200",
    )
    agent.play(EPISODE, 0)
    for drawn in (agent._windows(200), agent._critic_batch()):
        assert drawn.terminated.any().item() == (timeout_is_terminal == "true")


def test_a_new_agent_without_replay_waits_for_its_first_episode(agent_of):
    """Episodes of 200 steps overshoot rounds of 60: it rests right after its replay was cleared."""
    agent = agent_of(
        "schedule.round_steps=60",
        "schedule.updates_start=0",
        "meta.lifetime=120",
        "meta.reset=agent",
    )
    learned = []
    for index in range(1, 5):
        agent.begin_round()
        agent.play(60 * index, 0)
        learned.append((agent.counters.life, agent.is_learning))
        if agent.is_learning:
            agent.learn(0)
    assert learned == [(0, True), (1, False), (1, False), (1, True)]


def test_evaluation_leaves_training_alone(agent_of):
    """It has environments and seeds of its own: the next training episode is the same."""
    plain, evaluated = agent_of(), agent_of()
    for agent in (plain, evaluated):
        agent.begin_round()
        agent.play(600, 0)
    evaluated.evaluate_if_due()
    assert evaluated.statistics.summary()["evaluation"] is not None
    for agent in (plain, evaluated):
        agent.play(800, 0)
    assert (plain.new_episodes[-1].obs == evaluated.new_episodes[-1].obs).all()
