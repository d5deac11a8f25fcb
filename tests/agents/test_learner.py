"""The learner against torch's own modules and optimiser, built apart from it."""

import numpy as np
import pytest
import torch
from torch import nn

from envs.registry import make
from mgrl_cli.agents.episodes import Exploration, play_episode
from mgrl_cli.agents.learner import Learner
from mgrl_cli.algorithm.batches import Transitions, Windows, masked_mean, transitions_of
from mgrl_cli.algorithm.meta_gradient import meta_gradient_by_double_backward
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.algorithm.objectives import CriticObjective, LearnedObjectiveLoss, ReinforceObjective
from mgrl_cli.config import RunConfig
from mgrl_cli.presets import resolve_config
from mgrl_cli.replay.ring import ReplayRing

OBS_SIZE, ACT_SIZE, HIDDEN = 3, 2, 16
LENGTHS, STEPS = [6, 1, 4, 6, 3], 6
WITHOUT_NORM = (
    *("policy.layer_norm=false", "policy.initialisation=fan_in"),
    *("critic.layer_norm=false", "critic.initialisation=fan_in"),
)


def config_of(*assignments: str) -> RunConfig:
    return resolve_config(
        kind="meta-train",
        preset="smoke",
        assignments=(
            f"policy.hidden={HIDDEN}",
            f"critic.hidden={HIDDEN}",
            "policy.last_layer_scale=1.0",
            *assignments,
        ),
        options={"envs": [{"id": "pendulum"}]},
    )


def learner_of(*assignments: str, seed: int = 0) -> Learner:
    return Learner(config_of(*assignments), OBS_SIZE, ACT_SIZE, np.random.default_rng(seed))


@pytest.fixture
def windows(rng) -> Windows:
    """Masked windows, every second one ending in a terminal step."""
    lengths, time = np.array(LENGTHS)[:, None], np.arange(STEPS)
    is_valid = time < lengths
    shape = (len(LENGTHS), STEPS)
    return Windows(
        obs=rng.standard_normal((shape[0], STEPS + 1, OBS_SIZE)).astype(np.float32),
        action=rng.uniform(-1, 1, (*shape, ACT_SIZE)).astype(np.float32),
        reward=rng.standard_normal(shape).astype(np.float32) * is_valid,
        terminated=(time == lengths - 1) & (np.arange(shape[0])[:, None] % 2 == 1),
        is_valid=is_valid,
    )


@pytest.fixture
def noise(rng) -> np.ndarray:
    """Standard normal, so that 0.2 · noise is clipped at 0.5 now and then."""
    return rng.standard_normal((len(LENGTHS) * STEPS, ACT_SIZE), dtype=np.float32)


@pytest.fixture
def network() -> ObjectiveNetwork:
    return ObjectiveNetwork()


@pytest.fixture
def alpha(network, rng) -> torch.Tensor:
    return network.initialise(rng)


# --- A twin of the learner from nn.Module and torch.optim ----------------------------------------


def module_of(views: dict[str, torch.Tensor]) -> nn.Sequential:
    """Linear → ReLU (→ LayerNorm), twice, then Linear, with the parameters of one network."""
    linears = [
        nn.Linear(*views[f"{name}.weight"].shape) for name in ("linear_1", "linear_2", "output")
    ]
    has_norms = "norm_1.gain" in views
    norms = [nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)] if has_norms else []
    with torch.no_grad():
        for name, linear in zip(("linear_1", "linear_2", "output"), linears, strict=True):
            linear.weight.copy_(views[f"{name}.weight"].T)
            linear.bias.copy_(views[f"{name}.bias"])
        for name, norm in zip(("norm_1", "norm_2"), norms, strict=False):
            norm.weight.copy_(views[f"{name}.gain"])
            norm.bias.copy_(views[f"{name}.bias"])
    return nn.Sequential(
        linears[0], nn.ReLU(), *norms[:1], linears[1], nn.ReLU(), *norms[1:], linears[2]
    )


def flat(module: nn.Sequential) -> torch.Tensor:
    """Parameters of a module in the order of our flat vectors: weights are stored [in, out]."""
    parts = [p.detach().T if p.ndim == 2 else p.detach() for p in module.parameters()]
    return torch.cat([part.reshape(-1) for part in parts])


def flat_gradient(module: nn.Sequential) -> torch.Tensor:
    parts = [p.grad.T if p.ndim == 2 else p.grad for p in module.parameters()]
    return torch.cat([part.reshape(-1) for part in parts])


class TwinLearner:
    """TD3's critic step and a policy step, written with modules."""

    def __init__(self, learner: Learner) -> None:
        self.policy = module_of(learner.policy.layout.views(learner.policy_params))
        self.critics = [
            module_of(learner.critic.layout.views(params)) for params in learner.critic_params
        ]
        self.policy_target = module_of(learner.policy.layout.views(learner.policy_target))
        self.critic_targets = [
            module_of(learner.critic.layout.views(params)) for params in learner.critic_target
        ]
        self.policy_optimizer = torch.optim.Adam(self.policy.parameters(), lr=3e-4)
        both = [parameter for critic in self.critics for parameter in critic.parameters()]
        self.critic_optimizer = torch.optim.Adam(both, lr=1e-3)

    def critic_loss(self, drawn: Transitions, noise: np.ndarray) -> torch.Tensor:
        batch = drawn.tensors()
        with torch.no_grad():
            smoothing = (0.2 * torch.from_numpy(noise)).clamp(-0.5, 0.5)
            next_action = (self.policy_target(batch.next_obs).tanh() + smoothing).clamp(-1, 1)
            pairs = torch.cat([batch.next_obs, next_action], dim=1)
            q1, q2 = (critic(pairs)[:, 0] for critic in self.critic_targets)
            y = batch.reward + 0.99 * (~batch.terminated) * torch.minimum(q1, q2)
        pairs = torch.cat([batch.obs, batch.action], dim=1)[batch.is_valid]
        y = y[batch.is_valid]
        return sum(nn.functional.mse_loss(critic(pairs)[:, 0], y) for critic in self.critics)

    def update_critic(self, batch: Transitions, noise: np.ndarray) -> float:
        loss = self.critic_loss(batch, noise)
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        return loss.item()

    def update_policy(self, windows: Windows, *, clip_norm: float = 1.0) -> float:
        """One DDPG step."""
        obs = torch.from_numpy(windows.obs[:, :-1][windows.is_valid])
        pairs = torch.cat([obs, self.policy(obs).tanh()], dim=1)
        loss = -self.critics[0](pairs).mean()
        self.policy_optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), clip_norm)
        self.policy_optimizer.step()
        return loss.item()


def assert_steps_agree(got: torch.Tensor, expected: torch.Tensor, learning_rate: float) -> None:
    """Adam divides by the gradient's size, which also blows up the rounding of tiny gradients."""
    assert (got - expected).abs().max().item() < 0.02 * learning_rate


@pytest.mark.parametrize("settings", [(), WITHOUT_NORM], ids=["plain", "without-norm"])
def test_critic_updates_are_those_of_torch_modules_and_adam(windows, noise, settings):
    learner = learner_of(*settings)
    # Targets lag behind: what they say must not be what the online networks say.
    learner.policy_target = learner_of(*settings, seed=1).policy_params
    learner.critic_target = learner_of(*settings, seed=1).critic_params
    twin = TwinLearner(learner)
    before = learner.critic_params.clone()
    batch = transitions_of(windows)
    for number in range(3):
        loss, applied = learner.update_critic(batch, noise)
        assert applied
        assert loss == pytest.approx(twin.update_critic(batch, noise), rel=1e-4)
        for params, critic in zip(learner.critic_params, twin.critics, strict=True):
            assert_steps_agree(params, flat(critic), 1e-3)
        if number == 0:  # Adam hides a constant factor of the gradient; its moments do not
            expected = torch.stack([flat_gradient(critic) for critic in twin.critics])
            got = 10 * learner.tensors()["critic.first_moment"]
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)
            squares = 1000 * learner.tensors()["critic.second_moment"]
            torch.testing.assert_close(squares, expected**2, rtol=1e-2, atol=1e-4)
    assert (learner.critic_params - before).abs().max() > 1e-3


def test_critic_updates_leave_policy_and_targets_alone(windows, noise):
    learner = learner_of()
    others = (learner.policy_params, learner.policy_target, learner.critic_target)
    before = [tensor.clone() for tensor in others]
    learner.update_critic(transitions_of(windows), noise)
    assert all(torch.equal(*pair) for pair in zip(others, before, strict=True))


@pytest.mark.parametrize("settings", [(), WITHOUT_NORM], ids=["plain", "without-norm"])
def test_policy_updates_are_those_of_torch_modules_and_adam(windows, settings):
    learner = learner_of(*settings)
    twin = TwinLearner(learner)
    before = learner.policy_params.clone()
    for _ in range(3):
        update = learner.update_policy(windows, CriticObjective(), 1.0)
        assert update.applied
        assert update.loss == pytest.approx(twin.update_policy(windows), rel=1e-4)
        assert_steps_agree(learner.policy_params, flat(twin.policy), 3e-4)
    assert (learner.policy_params - before).abs().max() > 3e-4


@pytest.mark.parametrize("clip_norm", [1e-3, 1e3])
def test_the_policys_gradient_is_clipped(windows, clip_norm):
    learner = learner_of(f"policy.clip_norm={clip_norm}")
    twin = TwinLearner(learner)
    twin.update_policy(windows, clip_norm=clip_norm)
    norm = flat_gradient(twin.policy).norm().item()
    assert (norm == pytest.approx(clip_norm, rel=1e-3)) == (clip_norm == 1e-3)
    learner.update_policy(windows, CriticObjective(), 1.0)
    assert 10 * learner.tensors()["policy.first_moment"].norm().item() == pytest.approx(
        norm, rel=1e-4
    )


def test_a_clip_norm_of_zero_clips_nothing(windows):
    learner, twin = learner_of("policy.clip_norm=0"), TwinLearner(learner_of())

    def steep(evidence):
        return -1e6 * evidence.q_value()

    learner.update_policy(windows, steep, 1.0)
    twin.update_policy(windows, clip_norm=1e9)
    gradient = 10 * learner.tensors()["policy.first_moment"]
    torch.testing.assert_close(gradient, 1e6 * flat_gradient(twin.policy), rtol=1e-3, atol=1.0)
    assert gradient.norm() > 1e3


def test_the_ddpg_step_climbs_q(windows):
    learner = learner_of()
    losses = [learner.update_policy(windows, CriticObjective(), 1.0).loss for _ in range(20)]
    assert losses[-1] < losses[0]


class Mixture:
    """p ℓ + (1 - p) (-Q), as one objective."""

    def __init__(self, learned, share):
        self.learned, self.share = learned, share

    def __call__(self, evidence):
        return self.share * self.learned(evidence) - (1 - self.share) * evidence.q_value()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_annealing_mixes_the_critic_in(windows, network, alpha, share):
    objective = LearnedObjectiveLoss(network, alpha)
    annealed, mixed = learner_of(), learner_of()
    first = annealed.update_policy(windows, objective, share)
    second = mixed.update_policy(windows, Mixture(objective, share), 1.0)
    assert first.loss == pytest.approx(second.loss, rel=1e-5)
    assert_steps_agree(annealed.policy_params, mixed.policy_params, 3e-4)


def test_annealing_by_the_learning_rate_takes_smaller_steps_along_the_objective(
    windows, network, alpha
):
    # p = 1/3: (10 - 1) / 999 of the learning rate, and nothing of the critic
    objective = LearnedObjectiveLoss(network, alpha)
    whole, young, newborn = (learner_of("meta.anneal_by=learning_rate") for _ in range(3))
    start = whole.policy_params.clone()
    updates = [
        learner.update_policy(windows, objective, share)
        for learner, share in ((whole, 1.0), (young, 1 / 3), (newborn, 0.0))
    ]
    assert len({update.loss for update in updates}) == 1
    assert torch.equal(newborn.policy_params, start)
    step, short = whole.policy_params - start, young.policy_params - start
    torch.testing.assert_close(short, 9 / 999 * step, rtol=0, atol=2e-7)
    moments = [learner.tensors()["policy.first_moment"] for learner in (whole, young, newborn)]
    assert torch.equal(moments[0], moments[1])
    assert torch.equal(moments[0], moments[2])
    plain = learner_of()
    plain.update_policy(windows, objective, 1.0)
    assert torch.equal(plain.policy_params, whole.policy_params)


def test_action_slack_is_the_mean_of_one_minus_squares(windows):
    learner = learner_of()
    batch = windows.tensors()
    actions = learner.policy(learner.policy_params, batch.obs[:, :-1])[batch.is_valid]
    update = learner.update_policy(windows, CriticObjective(), 1.0)
    assert update.action_slack == pytest.approx((1 - actions**2).mean().item(), rel=1e-5)


def test_pre_activations_beyond_the_limit_are_pulled_back(windows):
    """With an objective that is indifferent the penalty is all that moves the policy."""

    def indifferent(evidence):
        return 0.0 * evidence.policy_action.sum(dim=-1)

    learner, free = learner_of("policy.pre_activation_limit=0.05"), learner_of()
    before = learner.policy_params.clone()
    obs = torch.from_numpy(windows.obs[:, :-1][windows.is_valid])

    def excess():
        z = learner.policy.pre_activation(learner.policy_params, obs)
        return (z.abs() - 0.05).clamp(min=0).square().mean().item()

    start = excess()
    for _ in range(10):
        loss = learner.update_policy(windows, indifferent, 1.0).loss
        free.update_policy(windows, indifferent, 1.0)
    assert excess() < start
    assert loss == 0.0  # the penalty is not part of what is reported
    assert torch.equal(free.policy_params, before)


def test_the_penalty_adds_to_the_objectives_gradient(windows):
    learner = learner_of("policy.pre_activation_limit=0.05", "policy.clip_norm=1e6")
    module = module_of(learner.policy.layout.views(learner.policy_params))
    critic = module_of(learner.critic.layout.views(learner.critic_params[0]))
    obs = torch.from_numpy(windows.obs[:, :-1][windows.is_valid])
    z = module(obs)
    penalty = torch.clamp(z.abs() - 0.05, min=0).square().mean()
    (penalty - critic(torch.cat([obs, z.tanh()], dim=1)).mean()).backward()
    expected = flat_gradient(module)
    learner.update_policy(windows, CriticObjective(), 1.0)
    torch.testing.assert_close(
        10 * learner.tensors()["policy.first_moment"], expected, rtol=1e-3, atol=1e-6
    )


# --- Targets with hand-set critics ----------------------------------------------------------------


def set_constant(learner: Learner, params: torch.Tensor, values: tuple[float, float]) -> None:
    """Make both critics constant functions."""
    params.zero_()
    for twin, value in zip(params, values, strict=True):
        learner.critic.layout.views(twin)["output.bias"].fill_(value)


def loss_of_one_step(learner: Learner, *, terminated: bool) -> float:
    """Loss of both critics, each 0 everywhere, on one step of reward 1; targets see 5 and 7."""
    set_constant(learner, learner.critic_params, (0.0, 0.0))
    set_constant(learner, learner.critic_target, (7.0, 5.0))
    batch = Transitions(
        obs=np.zeros((1, OBS_SIZE), np.float32),
        action=np.zeros((1, ACT_SIZE), np.float32),
        reward=np.ones(1, np.float32),
        next_obs=np.zeros((1, OBS_SIZE), np.float32),
        terminated=np.array([terminated]),
        is_valid=np.array([True]),
    )
    loss, _ = learner.update_critic(batch, np.zeros((1, ACT_SIZE), np.float32))
    return loss


def test_only_a_terminal_step_cuts_the_bootstrap():
    # y = 1 + 0.99 · min(7, 5) = 5.95, loss 2 · 5.95² = 70.805;  terminal: y = 1, loss 2
    assert loss_of_one_step(learner_of(), terminated=False) == pytest.approx(70.805)
    assert loss_of_one_step(learner_of(), terminated=True) == pytest.approx(2.0)


def test_the_terminal_bonus_is_a_switch():
    # y = 1 + 1 = 2, loss 2 · 2² = 8;  nothing changes elsewhere
    learner = learner_of("critic.terminal_bonus=true")
    assert loss_of_one_step(learner, terminated=True) == pytest.approx(8.0)
    assert loss_of_one_step(learner, terminated=False) == pytest.approx(70.805)


@pytest.mark.parametrize(
    ("env_id", "timeout_is_terminal", "bootstraps"),
    [("pendulum", False, True), ("pendulum", True, False), ("cartpole", False, False)],
)
def test_a_time_limit_bootstraps_and_a_fall_does_not(env_id, timeout_is_terminal, bootstraps):
    """From the environment through replay to the target: the last step of an episode."""
    environment = make(env_id)
    rng = np.random.default_rng(0)
    learner = Learner(config_of(), environment.obs_size, environment.act_size, rng)
    episode = play_episode(environment, learner.act, Exploration(rng, 0, 0.1), 3, lambda: None)
    environment.close()
    steps = len(episode.reward)
    ring = ReplayRing(steps, environment.obs_size, environment.act_size)
    ring.append(episode)
    window = ring.sample_windows(rng, 1, steps, "inside", timeout_is_terminal=timeout_is_terminal)
    last = Transitions(*(array[-1:] for array in transitions_of(window)))
    set_constant(learner, learner.critic_params, (0.0, 0.0))
    set_constant(learner, learner.critic_target, (5.0, 5.0))
    loss, _ = learner.update_critic(last, np.zeros((1, environment.act_size), np.float32))
    y = episode.reward[-1] + (0.99 * 5.0 if bootstraps else 0.0)
    assert loss == pytest.approx(2 * y**2, rel=1e-5)


def test_targets_follow_slowly():
    learner = learner_of()
    learner.policy_params += 1.0
    learner.critic_params -= 2.0
    policy_target, critic_target = learner.policy_target.clone(), learner.critic_target.clone()
    learner.update_targets()
    # 0.005 of the way: + 0.005 · 1 and - 0.005 · 2
    torch.testing.assert_close(learner.policy_target, policy_target + 0.005)
    torch.testing.assert_close(learner.critic_target, critic_target - 0.01)


def test_padding_does_not_touch_the_critics(windows, noise):
    plain, other = learner_of(), learner_of()
    is_padding = ~windows.is_valid
    obs = windows.obs.copy()
    obs[:, 1:][is_padding] = 9.0
    elsewhere = windows._replace(
        obs=obs,
        action=np.where(is_padding[..., None], np.float32(0.9), windows.action),
        reward=np.where(is_padding, np.float32(1e3), windows.reward),
    )
    first, _ = plain.update_critic(transitions_of(windows), noise)
    second, _ = other.update_critic(transitions_of(elsewhere), noise)
    assert first == pytest.approx(second, rel=1e-5)
    assert_steps_agree(plain.critic_params, other.critic_params, 1e-3)


def test_the_mean_over_padding_is_a_switch(windows, noise):
    """20 of 30 steps are valid: losses and gradients shrink to that share."""
    share = sum(LENGTHS) / (len(LENGTHS) * STEPS)
    ours, reference = learner_of(), learner_of("windows.mean_over_padding=true")
    batch = transitions_of(windows)
    small, _ = reference.update_critic(batch, noise)
    large, _ = ours.update_critic(batch, noise)
    assert small == pytest.approx(share * large, rel=1e-5)
    gradients = [learner.tensors()["critic.first_moment"] for learner in (reference, ours)]
    torch.testing.assert_close(gradients[0], share * gradients[1], rtol=1e-4, atol=1e-7)

    ours, reference = learner_of(), learner_of("windows.mean_over_padding=true")
    small = reference.update_policy(windows, CriticObjective(), 1.0).loss
    large = ours.update_policy(windows, CriticObjective(), 1.0).loss
    assert small == pytest.approx(share * large, rel=1e-5)


# --- What is not finite ---------------------------------------------------------------------------


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_poisoned_critic_update_leaves_no_trace(windows, noise, poison):
    learner, twin = learner_of(), learner_of()
    batch = transitions_of(windows)
    learner.update_critic(batch, noise)
    twin.update_critic(batch, noise)
    reward = batch.reward.copy()
    reward[0] = poison
    loss, applied = learner.update_critic(batch._replace(reward=reward), noise)
    assert not applied
    assert not np.isfinite(loss)
    assert torch.equal(learner.critic_params, twin.critic_params)
    # Adam's moments and step count are untouched too: the next step is the same.
    learner.update_critic(batch, noise)
    twin.update_critic(batch, noise)
    assert torch.equal(learner.critic_params, twin.critic_params)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_poisoned_policy_update_leaves_no_trace(windows, poison):
    learner, twin = learner_of(), learner_of()
    for each in (learner, twin):
        assert each.update_policy(windows, CriticObjective(), 1.0).applied
    update = learner.update_policy(
        windows, lambda evidence: poison * evidence.policy_action.sum(dim=-1), 1.0
    )
    assert not update.applied
    assert torch.equal(learner.policy_params, twin.policy_params)
    for each in (learner, twin):
        each.update_policy(windows, CriticObjective(), 1.0)
    assert torch.equal(learner.policy_params, twin.policy_params)


# --- Acting, new lives, diagnostics ---------------------------------------------------------------


def test_acting_is_the_policy_on_one_observation():
    learner = learner_of()
    obs = np.array([0.1, -2.0, 3.0], dtype=np.float32)
    module = module_of(learner.policy.layout.views(learner.policy_params))
    action = learner.act(obs)
    assert action.dtype == np.float32
    assert action.shape == (ACT_SIZE,)
    np.testing.assert_allclose(
        action, module(torch.from_numpy(obs)).tanh().detach().numpy(), rtol=1e-5, atol=1e-6
    )


def test_the_initial_networks_depend_on_the_stream_alone():
    first, again, other = learner_of(), learner_of(), learner_of(seed=1)
    assert torch.equal(first.policy_params, again.policy_params)
    assert torch.equal(first.critic_params, again.critic_params)
    assert not torch.equal(first.policy_params, other.policy_params)
    assert torch.equal(first.policy_target, first.policy_params)
    assert torch.equal(first.critic_target, first.critic_params)


def test_a_renewed_policy_is_fresh_and_keeps_the_critic(windows):
    learner = learner_of()
    learner.update_policy(windows, CriticObjective(), 1.0)
    old, critic = learner.policy_params.clone(), learner.critic_params.clone()
    learner.renew_policy(np.random.default_rng(5))
    assert not torch.allclose(learner.policy_params, old)
    assert torch.equal(learner.policy_target, learner.policy_params)
    assert torch.equal(learner.critic_params, critic)
    # A fresh Adam: its first step has the size of the learning rate wherever there is a gradient.
    before = learner.policy_params.clone()
    learner.update_policy(windows, CriticObjective(), 1.0)
    steps = (learner.policy_params - before).abs()
    assert steps.max().item() == pytest.approx(3e-4, rel=0.01)
    assert steps.quantile(0.9).item() == pytest.approx(3e-4, rel=0.01)


def test_a_renewed_critic_is_fresh_and_keeps_the_policy(windows, noise):
    learner = learner_of()
    learner.update_critic(transitions_of(windows), noise)
    old, policy = learner.critic_params.clone(), learner.policy_params.clone()
    learner.renew_critic(np.random.default_rng(5))
    assert not torch.allclose(learner.critic_params, old)
    assert torch.equal(learner.critic_target, learner.critic_params)
    assert torch.equal(learner.policy_params, policy)


def test_the_last_layers_scale_is_a_setting():
    plain, small = learner_of(), learner_of("policy.last_layer_scale=0.1")
    weights = [
        each.policy.layout.views(each.policy_params)["output.weight"] for each in (plain, small)
    ]
    torch.testing.assert_close(weights[1], 0.1 * weights[0])


def test_the_meta_gradient_is_that_of_the_present_networks(windows, network, alpha):
    learner = learner_of("meta.inner_step=unit", "meta.inner_step_size=0.1")
    batches = [windows._replace(obs=windows.obs + 0.5), windows]
    result = learner.meta_gradient(network, alpha, batches)
    problem = learner.meta_problem(network)
    assert problem.virtual_step.kind == "unit"
    assert problem.virtual_step.size == 0.1
    drawn = [each.tensors() for each in batches]
    plain = meta_gradient_by_double_backward(problem, alpha, learner.policy_params, drawn)
    error = (result.gradient - plain.gradient).norm() / plain.gradient.norm()
    assert error < 1e-3  # float32


def test_the_gain_is_what_the_virtual_step_wins(windows, network, alpha):
    learner = learner_of()
    batches = [windows, windows]
    result = learner.meta_gradient(network, alpha, batches)
    obs = torch.from_numpy(windows.obs[:, :-1][windows.is_valid])

    def mean_q(phi):
        critic = module_of(learner.critic.layout.views(learner.critic_params[0]))
        policy = module_of(learner.policy.layout.views(phi))
        return critic(torch.cat([obs, policy(obs).tanh()], dim=1)).mean().item()

    # J = -mean Q, so J before minus J after is the rise of Q.
    rise = mean_q(result.virtual_policy) - mean_q(learner.policy_params)
    assert rise != 0
    assert learner.gain(network, result, batches) == pytest.approx(rise, rel=1e-2, abs=1e-6)


def test_the_cosine_compares_directions_with_the_critics(windows, network):
    learner = learner_of()
    phi = learner.policy_params.clone().requires_grad_()
    loss = learner.meta_problem(network).meta_loss(phi, [windows.tensors()])
    (critics,) = torch.autograd.grad(loss, phi)
    across = torch.linspace(-1.0, 1.0, len(critics))
    across -= critics * torch.dot(across, critics) / critics.square().sum()
    across *= critics.norm() / across.norm()
    for gradient, expected in (
        (critics, 1.0),
        (-3.0 * critics, -1.0),
        (critics + across, 0.5**0.5),
        (torch.zeros_like(critics), 0.0),
    ):
        cosine = learner.cosine_with_critic(windows, gradient)
        assert cosine == pytest.approx(expected, abs=1e-5)


def test_diagnostics_change_nothing(windows, network, alpha):
    learner, twin = learner_of(), learner_of()
    learner.cosine_with_critic(windows, torch.ones_like(learner.policy_params))
    learner.gain(network, learner.meta_gradient(network, alpha, [windows] * 2), [windows] * 2)
    for each in (learner, twin):
        each.update_policy(windows, CriticObjective(), 1.0)
    assert torch.equal(learner.policy_params, twin.policy_params)
    assert torch.equal(learner.critic_params, twin.critic_params)


def test_reinforce_drives_the_policy_through_the_same_update(windows):
    """Its gradient is that of mean (a - π)² · Â with the learner's own values in Â."""
    learner = learner_of("policy.clip_norm=1e6")
    objective = ReinforceObjective(discount=0.99)
    phi = learner.policy_params.clone().requires_grad_()
    batch = windows.tensors()
    actions = learner.policy(phi, batch.obs)
    values = learner.q_first(batch.obs, actions).detach()
    delta = batch.reward + 0.99 * ~batch.terminated * values[:, 1:] - values[:, :-1]
    advantage = torch.zeros_like(delta)
    for b, length in enumerate(LENGTHS):
        for t in range(length):
            discounts = (0.99 * 0.97) ** torch.arange(length - t)
            advantage[b, t] = (discounts * delta[b, t:length]).sum()
    distance = (batch.action - actions[:, :-1]).square().mean(dim=-1)
    loss = masked_mean(distance * advantage, batch.is_valid)
    (expected,) = torch.autograd.grad(loss, phi)
    assert learner.update_policy(windows, objective, 1.0).loss == pytest.approx(
        loss.item(), rel=1e-4
    )
    torch.testing.assert_close(
        10 * learner.tensors()["policy.first_moment"], expected, rtol=1e-3, atol=1e-6
    )
