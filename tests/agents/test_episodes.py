import numpy as np
import pytest

from envs.control import ControlEnvironment
from envs.registry import make
from mgrl_cli.agents.episodes import Exploration, play_episode, play_noise_free
from mgrl_cli.replay.schema import BehaviourKind, Episode, check_episode


@pytest.fixture(params=["pendulum", "cartpole", "reacher"])
def environment(request):
    made = make(request.param)
    yield made
    made.close()


@pytest.fixture
def pendulum():
    made = make("pendulum")
    yield made
    made.close()


def policy(environment: ControlEnvironment):
    """A fixed, saturated policy: some of its actions lie near the bounds."""
    weights = np.random.default_rng(5).standard_normal((environment.obs_size, environment.act_size))
    return lambda obs: np.tanh(obs @ weights).astype(np.float32)


def nothing() -> None:
    pass


def played(
    environment, *, random_steps=0, noise=0.1, seed=11, stream=0, on_step=nothing
) -> Episode:
    return play_episode(
        environment,
        policy(environment),
        Exploration(np.random.default_rng(stream), random_steps=random_steps, noise=noise),
        seed,
        on_step,
    )


def assert_equal(first: Episode, second: Episode) -> None:
    for name, a, b in zip(Episode._fields, first, second, strict=True):
        assert np.array_equal(a, b), name


def test_an_episode_can_be_stored_as_it_is(environment):
    episode = played(environment, random_steps=5)
    check_episode(episode, environment.obs_size, environment.act_size)
    assert episode.seed == 11


def test_an_episode_ends_once_and_for_a_reason(environment):
    episode = played(environment)
    ends = episode.terminated | episode.truncated
    assert ends.tolist() == [False] * (len(ends) - 1) + [True]
    if environment.id == "mgrl/CartPoleBalance-v0":
        assert episode.terminated[-1]
        assert not episode.truncated[-1]
        assert len(ends) < environment.max_episode_steps
    else:
        assert episode.truncated[-1]
        assert not episode.terminated[-1]
        assert len(ends) == environment.max_episode_steps


def test_the_record_alone_replays_the_episode(environment):
    episode = played(environment, random_steps=3, noise=0.5)
    twin = make(environment.id)
    observations = [twin.reset(seed=episode.seed)]
    rewards = []
    for action in episode.action:
        result = twin.step(action)
        observations.append(result.obs)
        rewards.append(result.reward)
    twin.close()
    assert np.array_equal(np.stack(observations), episode.obs)
    assert np.array_equal(np.asarray(rewards, dtype=np.float32), episode.reward)
    assert (result.terminated, result.truncated) == (
        episode.terminated[-1],
        episode.truncated[-1],
    )


def test_a_record_of_random_physics_replays_too():
    randomise = {"mass_kg": (0.5, 2.0)}
    environment, twin = make("pendulum", randomise=randomise), make("pendulum", randomise=randomise)
    played(environment, seed=1)  # the twin has no such past
    episode = played(environment)
    observations = [twin.reset(seed=episode.seed)]
    observations += [twin.step(action).obs for action in episode.action]
    environment.close()
    twin.close()
    assert np.array_equal(np.stack(observations), episode.obs)


def test_the_clipped_action_is_executed_and_both_are_recorded(environment):
    episode = played(environment, noise=1.5)
    is_outside = np.abs(episode.raw_action) > 1
    assert is_outside.any()
    assert np.array_equal(episode.action, np.clip(episode.raw_action, -1, 1))


def test_exploration_is_the_policys_action_plus_scaled_noise(environment):
    episode = played(environment, noise=0.25, stream=4)
    act = policy(environment)
    means = np.stack([act(obs) for obs in episode.obs[:-1]])
    assert np.array_equal(episode.behaviour_mean, means)
    noise = np.random.default_rng(4).standard_normal(means.shape, dtype=np.float32)
    np.testing.assert_allclose(episode.raw_action, means + 0.25 * noise, rtol=1e-6, atol=1e-7)
    assert (episode.behaviour_kind == BehaviourKind.POLICY).all()


def test_without_noise_the_policy_acts(environment):
    episode = played(environment, noise=0.0)
    assert np.array_equal(episode.raw_action, episode.behaviour_mean)


def test_the_random_phase_can_end_inside_an_episode(pendulum):
    episode = played(pendulum, random_steps=150, noise=0.0)
    kinds = episode.behaviour_kind
    assert kinds.tolist() == [BehaviourKind.RANDOM] * 150 + [BehaviourKind.POLICY] * 50
    random = episode.raw_action[:150]
    assert not episode.behaviour_mean[:150].any()
    assert np.array_equal(episode.action[:150], random)
    # Uniform on [-1, 1]: mean 0 ± 4 · 0.58/sqrt(150), variance 1/3.
    assert np.abs(random).max() <= 1.0
    assert abs(random.mean()) < 0.19
    assert random.var() == pytest.approx(1 / 3, rel=0.3)


@pytest.mark.parametrize("random_steps", [0, -40])
def test_a_random_phase_that_is_over_adds_no_random_step(pendulum, random_steps):
    episode = played(pendulum, random_steps=random_steps)
    assert (episode.behaviour_kind == BehaviourKind.POLICY).all()


def test_seed_and_stream_fix_the_episode(environment):
    kwargs = {"random_steps": 4, "noise": 0.3}
    first = played(environment, **kwargs)
    assert_equal(played(environment, **kwargs), first)
    assert not np.array_equal(played(environment, seed=12, **kwargs).obs[0], first.obs[0])
    assert not np.array_equal(played(environment, stream=1, **kwargs).action[0], first.action[0])


def test_a_noise_free_return_is_that_of_an_episode_without_noise(environment):
    episode = played(environment, noise=0.0, seed=21)
    total = play_noise_free(environment, policy(environment), 21, nothing)
    assert total == pytest.approx(float(episode.reward.sum(dtype=np.float64)), rel=1e-5)
