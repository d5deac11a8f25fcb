import numpy as np
import pytest
import torch
from torch.distributions import Normal

from mgrl_cli.agents.vpg_learner import Epoch, VpgLearner
from mgrl_cli.config.rules import VpgConfig
from mgrl_cli.replay.ring import StoredEpisode

OBS, ACT = 3, 2
RNG = np.random.default_rng(0)


def learner_of(**settings: object) -> VpgLearner:
    return VpgLearner(VpgConfig(**settings), OBS, ACT, np.random.default_rng(1))


def episode_of(steps: int, *, terminated: bool) -> StoredEpisode:
    at_end = np.arange(1, steps + 1) == steps
    raw_action = RNG.normal(size=(steps, ACT)).astype(np.float32)
    return StoredEpisode(
        obs=RNG.normal(size=(steps + 1, OBS)).astype(np.float32),
        raw_action=raw_action,
        reward=RNG.normal(size=steps).astype(np.float32),
        terminated=at_end & terminated,
    )


@pytest.fixture
def episodes() -> list[StoredEpisode]:
    return [
        episode_of(steps, terminated=terminated)
        for steps, terminated in ((5, True), (1, False), (7, True))
    ]


@pytest.mark.parametrize("timeout_is_terminal", [True, False])
def test_an_epoch_is_what_numpy_loops_make_of_its_episodes(episodes, timeout_is_terminal):
    settings = VpgConfig(timeout_is_terminal=timeout_is_terminal, discount=0.9, trace_decay=0.8)
    learner = VpgLearner(settings, OBS, ACT, np.random.default_rng(1))
    advantages, targets = [], []
    for episode in episodes:
        steps = len(episode.reward)
        value = learner.value(learner.value_params, torch.from_numpy(episode.obs)).numpy()
        bootstraps = not timeout_is_terminal and not episode.terminated[-1]
        after_end = value[-1] if bootstraps else 0.0
        next_value = [*value[1:-1], after_end]
        for t in range(steps):
            delta = [episode.reward[k] + 0.9 * next_value[k] - value[k] for k in range(steps)]
            advantages.append(sum((0.9 * 0.8) ** (k - t) * delta[k] for k in range(t, steps)))
            to_go = sum(0.9 ** (k - t) * episode.reward[k] for k in range(t, steps))
            targets.append(to_go + 0.9 ** (steps - t) * after_end)
    advantage = np.array(advantages)
    epoch = learner.epoch_of(episodes)
    expected = (advantage - advantage.mean()) / advantage.std()
    np.testing.assert_allclose(epoch.advantage.numpy(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(epoch.value_target.numpy(), targets, rtol=1e-4, atol=1e-5)
    assert epoch.obs.shape == (13, OBS)
    for rows, whole in (("obs", epoch.obs), ("raw_action", epoch.raw_action)):
        stacked = np.concatenate([getattr(e, rows)[: len(e.reward)] for e in episodes])
        assert (whole.numpy() == stacked).all()


def test_the_networks_have_the_published_sizes_and_first_deviation():
    learner = learner_of()
    assert learner.policy_params.numel() == 3 * 64 + 64 + 64 * 32 + 32 + 32 * 2 + 2 + 2
    assert learner.value_params.numel() == 3 * 64 + 64 + 64 * 32 + 32 + 32 + 1
    np.testing.assert_allclose(learner.deviation, np.exp([-0.5, -0.5]), rtol=1e-6)


def test_the_policys_loss_is_the_mean_of_advantage_times_log_density(episodes):
    learner = learner_of()
    epoch = learner.epoch_of(episodes)
    mean = torch.stack([torch.from_numpy(learner.act(row)) for row in epoch.obs.numpy()])
    density = Normal(mean, torch.from_numpy(learner.deviation)).log_prob(epoch.raw_action)
    expected = -(epoch.advantage * density.sum(dim=1)).mean()
    torch.testing.assert_close(learner.policy_loss(learner.policy_params, epoch), expected)


def test_an_epoch_makes_one_policy_step_and_all_value_steps(episodes):
    learner = learner_of(value_steps=7)
    epoch = learner.epoch_of(episodes)
    before = learner.policy_params.clone()
    beats = []
    update = learner.learn(epoch, lambda: beats.append(1))
    assert len(beats) == 7
    assert (update.policy_applied, update.value_applied) == (True, True)
    tensors = learner.tensors()
    assert tensors["policy.adam_steps"] == 1
    assert tensors["value.adam_steps"] == 7
    # Adam's first step has the length of the learning rate in every entry whose gradient is not 0.
    moved = (learner.policy_params - before).abs()
    assert moved.max().item() == pytest.approx(3e-4, rel=1e-2)
    assert learner.value_loss(learner.value_params, epoch) < update.value_loss


def test_what_is_not_finite_changes_nothing():
    learner = learner_of()
    before = {name: tensor.clone() for name, tensor in learner.tensors().items()}
    steps = 4
    epoch = Epoch(
        obs=torch.zeros(steps, OBS),
        raw_action=torch.zeros(steps, ACT),
        advantage=torch.full((steps,), torch.nan),
        value_target=torch.full((steps,), torch.inf),
    )
    update = learner.learn(epoch)
    assert (update.policy_applied, update.value_applied) == (False, False)
    assert all(tensor.equal(before[name]) for name, tensor in learner.tensors().items())
