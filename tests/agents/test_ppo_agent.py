import random

import gymnasium
import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3", reason="the rule ppo needs the extra 'baselines'")

from stable_baselines3 import PPO

from mgrl_cli.agents.counters import Counters
from mgrl_cli.agents.health import DIVERGED
from mgrl_cli.agents.population import agent_specs
from mgrl_cli.agents.ppo_agent import PpoAgent
from mgrl_cli.agents.saved_agent import restore_agent, save_agent
from mgrl_cli.agents.streams import Streams, draw_seed
from mgrl_cli.presets import resolve_config
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.telemetry import AgentState

ROLLOUT = 128


@pytest.fixture
def agent_of():
    agents = []

    def build(*assignments: str, env: str = "pendulum", seed: int = 0, **kwargs: float) -> PpoAgent:
        config = resolve_config(
            kind="meta-test",
            preset="smoke",
            assignments=(f"ppo.rollout_steps={ROLLOUT}", *assignments),
            options={
                "envs": [{"id": env, "kwargs": kwargs}],
                "rules": ["ppo"],
                "seed": seed,
                "steps": 10_000,
            },
        )
        agents.append(PpoAgent(agent_specs(config)[0], config))
        return agents[-1]

    yield build
    for agent in agents:
        agent.close()


def networks(agent: PpoAgent) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in agent.tensors().items()}


def deterministic_returns(model: PPO, env: gymnasium.Env, seeds: list[int]) -> list[float]:
    returns = []
    for seed in seeds:
        obs, _ = env.reset(seed=seed)
        total, is_over = 0.0, False
        while not is_over:
            obs, reward, terminated, truncated, _ = env.step(
                model.predict(obs, deterministic=True)[0]
            )
            total += float(reward)
            is_over = terminated or truncated
        returns.append(total)
    return returns


def direct(env_id: str, seed: int, steps: int, **settings: int) -> PPO:
    return PPO("MlpPolicy", gymnasium.make(env_id), seed=seed, device="cpu", **settings).learn(
        steps
    )


@pytest.mark.parametrize(
    ("env", "env_id"), [("pendulum", "mgrl/Pendulum-v0"), ("cartpole", "mgrl/CartPoleBalance-v0")]
)
def test_it_returns_exactly_what_the_library_run_directly_returns(agent_of, env, env_id):
    """Episodes end by a limit in one and by falling in the other, rollouts amid them in both."""
    agent = agent_of(env=env)
    torch.manual_seed(5)  # what others draw meanwhile is nothing to it
    for target in (100, 200, 500):
        agent.begin_round()
        agent.play(target, 0)
        agent.evaluate_if_due()
        torch.rand(3), np.random.random(3), random.random()
    seed = draw_seed(Streams(0, 0).networks)
    model = direct(env_id, seed, 4 * ROLLOUT, n_steps=ROLLOUT)
    assert agent.counters.env_steps == model.num_timesteps == 512
    expected = {f"ppo.{name}": part for name, part in model.policy.state_dict().items()}
    assert networks(agent) == {name: part.numpy().tobytes() for name, part in expected.items()}
    seeds = [3, 4]
    evaluated = agent.player.evaluate(agent.act, seeds)
    assert evaluated == deterministic_returns(model, gymnasium.make(env_id), seeds)


@pytest.mark.slow
def test_at_the_librarys_defaults_it_returns_what_the_library_returns(agent_of):
    agent = agent_of("ppo.rollout_steps=2048")
    agent.play(4096, 0)
    model = direct("mgrl/Pendulum-v0", draw_seed(Streams(0, 0).networks), 4096)
    expected = [part.numpy().tobytes() for part in model.policy.state_dict().values()]
    assert list(networks(agent).values()) == expected


def test_the_generators_of_the_process_are_left_as_they_were(agent_of):
    agent = agent_of()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    agent.play(ROLLOUT, 0)
    drawn = random.random(), np.random.random(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert drawn == (random.random(), np.random.random(), torch.rand(1).item())


def test_it_counts_steps_by_rollouts_and_whole_episodes(agent_of):
    agent = agent_of()
    agent.begin_round()
    agent.play(250, 0)
    counters = agent.counters
    assert (counters.env_steps, counters.updates, counters.episodes) == (256, 2, 1)
    assert agent.statistics.summary()["mean_return"] == counters.returns[0]
    assert (agent.new_episodes, agent.replay.num_steps) == ([], 0)


def saved_and_log(agent: PpoAgent, folder):
    log = ReplayLog.create(folder / "agent-000", obs_size=3, act_size=1, attributes={})
    log.commit()
    return save_agent(agent), ReplayReader(folder / "agent-000")


def test_it_is_restored_by_playing_again_and_lives_on_exactly(agent_of, tmp_path):
    agent, again = agent_of(), agent_of()
    agent.play(300, 0)
    saved, log = saved_and_log(agent, tmp_path)
    restore_agent(again, saved, log)
    assert again.counters == agent.counters
    assert again.counters is not agent.counters
    for each in (agent, again):
        each.play(900, 0)
        each.evaluate_if_due()
    assert networks(again) == networks(agent)
    assert again.counters == agent.counters
    assert again.streams.state() == agent.streams.state()


@pytest.mark.parametrize("env_steps", [ROLLOUT + 1, 10_000 + ROLLOUT, 10**15])
def test_a_number_of_steps_that_it_cannot_have_played_is_refused(agent_of, env_steps):
    agent = agent_of()
    with pytest.raises(ValueError, match="expected whole rollouts"):
        agent.restore_tensors(agent.tensors(), Counters(env_steps=env_steps))
    assert agent.counters.env_steps == 0


def test_networks_that_its_play_does_not_lead_to_end_in_quarantine(agent_of, tmp_path):
    agent, again = agent_of(), agent_of()
    agent.play(ROLLOUT, 0)
    agent.tensors()["ppo.log_std"].add_(0.01)
    restore_agent(again, *saved_and_log(agent, tmp_path))
    assert "'ppo.log_std' is not what was saved" in again.health.quarantine
    assert again.counters == agent.counters
    again.play(10_000, 0)
    assert again.counters.env_steps == ROLLOUT


def test_an_episode_that_fails_is_cut_short_and_counted(agent_of, scripted):
    """Episodes have ten steps, the fourth and the seventh fail at their third."""
    scripted.failing_episodes = frozenset({4, 7})
    agent = agent_of(env="Scripted-v0")
    agent.begin_round()
    agent.play(ROLLOUT, 0)
    # 128 = 2 · 3 + 12 · 10 + 2: two cut short, twelve whole
    assert agent.counters.env_steps == ROLLOUT
    assert agent.counters.episodes == 12
    assert agent.statistics.summary()["failed_episodes"] == 2
    assert scripted.made == 4  # training, evaluation, and one more after each failure
    assert not agent.health.quarantine


def test_a_failing_environment_ends_in_quarantine_and_not_in_a_loop(agent_of, scripted):
    scripted.failing_episodes = frozenset(range(3, 1000))
    agent = agent_of("supervision.max_failed_episodes=5", env="Scripted-v0")
    agent.begin_round()
    agent.play(10_000, 0)
    assert "5 episodes in a row failed" in agent.health.quarantine
    assert agent.statistics.summary()["failed_episodes"] == 5
    assert scripted.episodes == 7


def assert_diverged(agent: PpoAgent, reason: str) -> None:
    assert agent.health.quarantine.startswith(f"{DIVERGED}: {reason}")
    assert len(agent.health.quarantine.splitlines()) == 1
    assert agent.state == AgentState.QUARANTINED


@pytest.mark.parametrize(
    ("reward", "updates", "reason"),
    [
        (1e25, 3, "3 policy updates in a row were not finite"),  # the loss alone is infinite
        (3e38, 1, "ppo's networks are not finite"),
    ],
)
def test_rewards_that_no_network_bears_end_in_quarantine(
    agent_of, scripted, tmp_path, reward, updates, reason
):
    agent, again = (agent_of(env="Scripted-v0", reward=reward) for _ in range(2))
    agent.begin_round()
    agent.play(10_000, 0)
    assert_diverged(agent, reason)
    assert (agent.counters.env_steps, agent.counters.updates) == (updates * ROLLOUT, updates)
    is_finite = np.isfinite(agent.act(np.zeros(2, np.float32))).all()
    assert is_finite == (reward < 1e30)
    restore_agent(again, *saved_and_log(agent, tmp_path))
    assert again.health == agent.health
    assert networks(again) == networks(agent)


def test_one_update_that_taught_nothing_is_counted_and_forgiven(agent_of, scripted):
    agent = agent_of(env="Scripted-v0", reward=1e25)
    agent.begin_round()
    agent.play(2 * ROLLOUT, 0)
    assert agent.health.skipped_policy_updates == 2
    assert agent.statistics.summary()["skipped_updates"] == 2
    agent.player.training()._env.unwrapped.reward = 1.0
    agent.play(3 * ROLLOUT, 0)
    assert agent.health.skipped_policy_updates == 0
    assert not agent.health.quarantine


def test_observations_that_no_network_bears_end_in_quarantine(agent_of, scripted):
    """Finite in float32, but their weighted sums are not."""
    agent = agent_of(env="Scripted-v0", obs=3e38)
    agent.tensors()["ppo.mlp_extractor.policy_net.0.weight"].mul_(100)
    before = networks(agent)
    agent.begin_round()
    agent.play(10_000, 0)
    assert_diverged(agent, "ppo broke off: ")
    assert (agent.counters.env_steps, agent.counters.updates) == (0, 0)
    assert networks(agent) == before
    assert agent.player.evaluate(agent.act, [0]) == []
    assert "the policy overflowed" in agent.player.last_failure


def test_what_comes_after_a_failure_is_repeatable(agent_of, scripted):
    """An environment made anew has no random state: it gets a seed of the agent's."""
    scripted.failing_episodes = frozenset({4})
    found = []
    for _ in range(2):
        scripted.episodes = 0
        agent = agent_of(env="Scripted-v0")
        agent.play(ROLLOUT, 0)
        found.append(networks(agent))
    assert found[0] == found[1]
