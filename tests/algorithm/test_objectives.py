import math

import numpy as np
import pytest
import torch

from mgrl_cli.algorithm.batches import BehaviourTensors, WindowTensors, masked_mean
from mgrl_cli.algorithm.networks import CriticNetwork, PolicyNetwork
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork, ObjectiveSignals
from mgrl_cli.algorithm.objectives import (
    CriticObjective,
    ImportanceWeightedReinforce,
    LearnedObjectiveLoss,
    PolicyEvidence,
    ReinforceObjective,
    annealed_learning_rate,
    annealed_loss,
    generalised_advantage,
    pre_activation_penalty_gradient,
)
from mgrl_cli.errors import UsageError
from tests.algorithm import oracles
from tests.algorithm.problems import (
    LENGTHS,
    STEPS,
    normal,
    oracle_signals,
    perturbed,
    random_signals,
    random_windows,
)


class Case:
    """A policy, a critic and windows."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.policy = PolicyNetwork(3, 2, 8)
        self.critic = CriticNetwork(3, 2, 8)
        self.phi = perturbed(self.policy.initialise(rng), rng).requires_grad_()
        self.theta = perturbed(self.critic.initialise_twins(rng), rng)
        self.windows = random_windows(rng)

    def q_first(self, obs, action):
        return self.critic.first(self.theta, obs, action)

    def evidence(self) -> PolicyEvidence:
        actions = self.policy(self.phi, self.windows.obs)
        return PolicyEvidence(self.windows, actions, self.q_first)


@pytest.fixture
def case(rng) -> Case:
    return Case(rng)


def signals_of(reward, value, next_value, terminated, is_valid) -> ObjectiveSignals:
    floats = [torch.tensor([x], dtype=torch.float64) for x in (reward, value, next_value)]
    return ObjectiveSignals(*floats, torch.tensor([terminated]), torch.tensor([is_valid]))


def test_advantage_of_worked_numbers_without_a_terminal_step():
    # γ 0.5, λ 0.5, γλ 0.25; δ = r + 0.5 V' - V:
    # δ_2 = 4 + 0.5·2 - 3 = 2;  δ_1 = 0 + 0.5·3 - 1 = 0.5;  δ_0 = 1 + 0.5·1 - 2 = -0.5
    # Â_2 = 2;  Â_1 = 0.5 + 0.25·2 = 1;  Â_0 = -0.5 + 0.25·1 = -0.25
    signals = signals_of([1, 0, 4], [2, 1, 3], [1, 3, 2], [False] * 3, [True] * 3)
    advantage = generalised_advantage(signals, discount=0.5, trace_decay=0.5)
    assert advantage.tolist() == [[-0.25, 1.0, 2.0]]


def test_advantage_of_worked_numbers_with_a_terminal_step():
    # The same, ending at t = 1 (V' cut), t = 2 is padding: δ_1 = 0 + 0 - 1 = -1, δ_0 = -0.5;
    # Â_1 = -1;  Â_0 = -0.5 + 0.25·(-1) = -0.75.  With a bonus of 1: δ_1 = 0, Â_0 = -0.5
    signals = signals_of([1, 0, 4], [2, 1, 3], [1, 3, 2], [False, True, False], [True, True, False])
    kwargs = {"discount": 0.5, "trace_decay": 0.5}
    assert generalised_advantage(signals, **kwargs).tolist() == [[-0.75, -1.0, 0.0]]
    with_bonus = generalised_advantage(signals, **kwargs, terminal_bonus=1.0)
    assert with_bonus.tolist() == [[-0.5, 0.0, 0.0]]


@pytest.mark.parametrize("terminal_bonus", [0.0, 1.0])
def test_advantages_agree_with_the_explicit_sum(rng, terminal_bonus):
    signals = random_signals(rng)
    kwargs = {"discount": 0.99, "trace_decay": 0.97, "terminal_bonus": terminal_bonus}
    np.testing.assert_allclose(
        generalised_advantage(signals, **kwargs).numpy(),
        oracles.advantages(oracle_signals(signals), **kwargs),
        rtol=1e-11,
        atol=1e-11,
    )


def test_annealing_of_worked_numbers():
    learned, critic = torch.tensor([[8.0, -4.0]]), torch.tensor([[4.0, 0.0]])
    assert annealed_loss(learned, critic, 0.0).tolist() == [[4.0, 0.0]]
    # 0.25·8 + 0.75·4 = 5;  0.25·(-4) + 0 = -1
    assert annealed_loss(learned, critic, 0.25).tolist() == [[5.0, -1.0]]
    assert annealed_loss(learned, critic, 1.0).tolist() == [[8.0, -4.0]]


def test_the_penaltys_gradient_is_autograds(rng):
    z = 3.0 * normal(rng, 4, 5, 2).requires_grad_()
    is_valid = torch.tensor(
        [[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4, [True] * 5]
    )
    excess = (z.abs() - 2.0).clamp(min=0.0).square().mean(dim=-1)
    (expected,) = torch.autograd.grad(excess[is_valid].mean(), z)
    got = pre_activation_penalty_gradient(z.detach(), is_valid, limit=2.0)
    assert got.count_nonzero() > 10
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)


def test_the_penalty_pulls_only_what_lies_outside():
    z = torch.tensor([[[3.0, -1.0], [-4.0, 2.0], [99.0, 99.0]]])
    is_valid = torch.tensor([[True, True, False]])
    gradient = pre_activation_penalty_gradient(z, is_valid, limit=2.0)
    # 2·(|z| - 2)·sign / (2 steps · 2 dimensions)
    assert gradient.tolist() == [[[0.5, 0.0], [-1.0, 0.0], [0.0, 0.0]]]


def test_evidence_holds_the_values_of_the_policys_own_actions(case):
    policy = {n: v.detach().numpy() for n, v in case.policy.layout.views(case.phi).items()}
    critic = {n: v.numpy() for n, v in case.critic.layout.views(case.theta[0]).items()}
    values = np.zeros((len(LENGTHS), STEPS + 1))
    for b in range(len(LENGTHS)):
        for t in range(STEPS + 1):
            obs = case.windows.obs[b, t].numpy()
            values[b, t] = oracles.q_value(critic, obs, oracles.policy_action(policy, obs))
    signals = case.evidence().signals
    np.testing.assert_allclose(signals.value.numpy(), values[:, :-1], rtol=1e-10)
    np.testing.assert_allclose(signals.next_value.numpy(), values[:, 1:], rtol=1e-10)
    assert not signals.value.requires_grad
    assert not signals.next_value.requires_grad


def test_the_critic_objective_climbs_q(case):
    """Its gradient is -dQ/da · dπ/dφ, with the Jacobian of the policy built row by row."""
    windows, is_valid = case.windows, case.windows.is_valid
    loss = masked_mean(CriticObjective()(case.evidence()), is_valid)
    (gradient,) = torch.autograd.grad(loss, case.phi)

    expected = torch.zeros_like(case.phi)
    for b, t in is_valid.nonzero().tolist():
        obs = windows.obs[b, t]
        action = case.policy(case.phi, obs).detach().requires_grad_()
        (dq_da,) = torch.autograd.grad(case.q_first(obs, action), action)
        jacobian = torch.autograd.functional.jacobian(
            lambda phi, obs=obs: case.policy(phi, obs), case.phi.detach()
        )
        expected -= dq_da @ jacobian / is_valid.sum()
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_reinforce_pulls_towards_good_actions_and_away_from_bad_ones(case):
    evidence = case.evidence()
    loss = ReinforceObjective(discount=0.9, trace_decay=0.8)(evidence)
    (slope,) = torch.autograd.grad(loss.sum(), evidence.policy_action)
    advantage = oracles.advantages(oracle_signals(evidence.signals), discount=0.9, trace_decay=0.8)
    difference = (evidence.policy_action - case.windows.action).detach().numpy()
    # ℓ = mean_j (a - π)² · Â, so dℓ/dπ_j = 2 (π_j - a_j) Â / A, with A = 2 dimensions
    expected = difference * advantage[..., None]
    np.testing.assert_allclose(slope.numpy(), expected, rtol=1e-9, atol=1e-12)
    distance = (difference**2).mean(axis=-1)
    np.testing.assert_allclose(loss.detach().numpy(), distance * advantage, rtol=1e-9, atol=1e-12)


def test_no_gradient_passes_through_the_advantage(case):
    evidence = case.evidence()
    loss = ReinforceObjective(discount=0.9, trace_decay=0.8)(evidence).sum()
    (gradient,) = torch.autograd.grad(loss, case.phi)
    constant = torch.from_numpy(
        oracles.advantages(oracle_signals(evidence.signals), discount=0.9, trace_decay=0.8)
    )
    actions = case.policy(case.phi, case.windows.obs[:, :-1])
    loss = ((case.windows.action - actions).square().mean(dim=-1) * constant).sum()
    (expected,) = torch.autograd.grad(loss, case.phi)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_reinforce_has_its_own_terminal_bonus_and_trace_decay(case):
    """λ is 0.97 unless told otherwise; the bonus moves terminal windows alone."""
    evidence = case.evidence()
    plain = ReinforceObjective(discount=0.9)(evidence)
    torch.testing.assert_close(plain, ReinforceObjective(discount=0.9, trace_decay=0.97)(evidence))
    with_bonus = ReinforceObjective(discount=0.9, terminal_bonus=1.0)(evidence)
    is_moved = ((with_bonus - plain).abs() > 1e-9).any(dim=1)
    assert is_moved.tolist() == case.windows.terminated.any(dim=1).tolist()


def test_the_learned_loss_is_the_network_on_the_evidence(case, rng):
    network = ObjectiveNetwork()
    alpha = perturbed(network.initialise(rng), rng)
    evidence = case.evidence()
    expected = oracles.objective_losses(
        {n: v.numpy() for n, v in network.layout.views(alpha).items()},
        case.windows.action.numpy(),
        evidence.policy_action.detach().numpy(),
        oracle_signals(evidence.signals),
    )
    losses = LearnedObjectiveLoss(network, alpha)(evidence).detach().numpy()
    is_valid = case.windows.is_valid.numpy()
    np.testing.assert_allclose(losses[is_valid], expected[is_valid], rtol=1e-9)


def test_the_learned_loss_follows_parameters_that_change_in_place(case, rng):
    network = ObjectiveNetwork()
    alpha = perturbed(network.initialise(rng), rng)
    loss = LearnedObjectiveLoss(network, alpha)
    before = loss(case.evidence())
    alpha.add_(0.1)
    after = loss(case.evidence())
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, LearnedObjectiveLoss(network, alpha.clone())(case.evidence()))


def test_the_policys_gradient_ignores_padding(case, rng):
    network = ObjectiveNetwork()
    objectives = (
        LearnedObjectiveLoss(network, perturbed(network.initialise(rng), rng)),
        CriticObjective(),
        ReinforceObjective(discount=0.9),
    )
    windows = case.windows
    is_padding = ~windows.is_valid
    obs = windows.obs.clone()
    obs[:, 1:][is_padding] = 50.0
    elsewhere = windows._replace(
        obs=obs,
        action=torch.where(is_padding[..., None], 0.7, windows.action),
        reward=torch.where(is_padding, -1e4, windows.reward),
        terminated=windows.terminated | is_padding,
    )
    for objective in objectives:
        gradients = []
        for each in (windows, elsewhere):
            case.windows = each
            loss = masked_mean(objective(case.evidence()), each.is_valid)
            gradients.extend(torch.autograd.grad(loss, case.phi))
        assert gradients[0].any()
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=1e-15)


# --- Importance weights --------------------------------------------------------------------------


def two_steps(log_behaviour, is_valid=(True, True)) -> tuple[PolicyEvidence, torch.Tensor]:
    """One action dimension, π(s) = 0, a = (1, 2), r = (2, 4), V = 0; and the actions as a leaf."""
    windows = WindowTensors(
        obs=torch.zeros(1, 3, 1, dtype=torch.float64),
        action=torch.ones(1, 2, 1, dtype=torch.float64),
        reward=torch.tensor([[2.0, 4.0]], dtype=torch.float64),
        terminated=torch.zeros(1, 2, dtype=torch.bool),
        is_valid=torch.tensor([is_valid]),
        behaviour=BehaviourTensors(
            torch.tensor([[[1.0], [2.0]]], dtype=torch.float64),
            torch.tensor([log_behaviour], dtype=torch.float64),
        ),
    )
    actions = torch.zeros(1, 3, 1, dtype=torch.float64, requires_grad=True)
    return PolicyEvidence(windows, actions, lambda obs, _: 0.0 * obs.sum(-1)), actions


# log N(1; 0, 1) and log N(2; 0, 1)
LOG_DENSITIES = (-0.5 - 0.5 * math.log(2 * math.pi), -2.0 - 0.5 * math.log(2 * math.pi))
# Behaviour under which the two steps' ratios are 1/2 and 6
LOG_BEHAVIOUR = [LOG_DENSITIES[0] + math.log(2), LOG_DENSITIES[1] - math.log(6)]


@pytest.mark.parametrize(("weight_clip", "second"), [(None, 3.0), (2.0, 2.0), (10.0, 3.0)])
def test_importance_weighted_losses_of_worked_numbers(weight_clip, second):
    # γ 0.5, λ 1: Â_1 = 4, Â_0 = 2 + 0.5·4 = 4. ρ̄_0 = 1/2, ρ̄_1 = 1/2 · 6 = 3, or the clip.
    # dℓ/dπ = -ρ̄ Â (a - π)/σ²: -½·4·1 = -2 and -ρ̄_1·4·2
    objective = ImportanceWeightedReinforce(
        discount=0.5, trace_decay=1.0, noise=1.0, weight_clip=weight_clip
    )
    evidence, actions = two_steps(LOG_BEHAVIOUR)
    losses = objective(evidence)
    expected = [-2.0 * LOG_DENSITIES[0], -4.0 * second * LOG_DENSITIES[1]]
    assert losses[0].tolist() == pytest.approx(expected)
    (slope,) = torch.autograd.grad(losses.sum(), actions)
    assert slope.flatten().tolist() == pytest.approx([-2.0, -8.0 * second, 0.0])


def test_a_weight_beyond_all_numbers_is_clipped_or_shows():
    evidence, _ = two_steps([LOG_DENSITIES[0] - 2000.0, LOG_DENSITIES[1]])
    settings = {"discount": 0.5, "trace_decay": 1.0, "noise": 1.0}
    clipped = ImportanceWeightedReinforce(**settings, weight_clip=10.0)(evidence)
    expected = [-40.0 * LOG_DENSITIES[0], -40.0 * LOG_DENSITIES[1]]
    assert clipped[0].tolist() == pytest.approx(expected)
    assert ImportanceWeightedReinforce(**settings)(evidence)[0].tolist() == [math.inf, math.inf]


def test_an_infinite_weight_before_padding_stays_where_it_is():
    evidence, actions = two_steps([LOG_DENSITIES[0] - 2000.0, 0.0], is_valid=(True, False))
    objective = ImportanceWeightedReinforce(discount=0.5, noise=1.0)
    losses = objective(evidence)
    assert losses[0].tolist() == [math.inf, 0.0]
    (slope,) = torch.autograd.grad(losses.sum(), actions)
    assert slope.flatten().tolist() == [-math.inf, 0.0, 0.0]


@pytest.mark.parametrize("weight_clip", [None, 1.5])
def test_importance_weighted_losses_agree_with_loops(case, rng, weight_clip):
    raw_action = case.windows.action + 0.3 * normal(rng, *case.windows.action.shape)
    log_density = 0.5 * normal(rng, len(LENGTHS), STEPS) * case.windows.is_valid
    case.windows = case.windows._replace(behaviour=BehaviourTensors(raw_action, log_density))
    evidence = case.evidence()
    losses = ImportanceWeightedReinforce(
        discount=0.9, trace_decay=0.8, noise=0.7, weight_clip=weight_clip, terminal_bonus=1.0
    )(evidence)
    advantage = oracles.advantages(
        oracle_signals(evidence.signals), discount=0.9, trace_decay=0.8, terminal_bonus=1.0
    )
    expected = oracles.importance_weighted_losses(
        raw_action.numpy(),
        evidence.policy_action.detach().numpy(),
        log_density.numpy(),
        advantage,
        LENGTHS,
        noise=0.7,
        weight_clip=weight_clip,
    )
    np.testing.assert_allclose(losses.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_no_gradient_passes_through_weights_and_advantages(case, rng):
    """The slope is that of -log N times a constant, the loss over the log density."""
    raw_action = case.windows.action + 0.3 * normal(rng, *case.windows.action.shape)
    behaviour = BehaviourTensors(raw_action, torch.zeros_like(case.windows.reward))
    case.windows = case.windows._replace(behaviour=behaviour)
    evidence = case.evidence()
    losses = ImportanceWeightedReinforce(discount=0.9, noise=0.7)(evidence)
    (slope,) = torch.autograd.grad(losses.sum(), evidence.policy_action)
    gaussian = torch.distributions.Normal(evidence.policy_action.detach(), 0.7)
    constant = losses.detach() / gaussian.log_prob(raw_action).sum(-1)
    expected = constant[..., None] * (raw_action - evidence.policy_action.detach()) / 0.7**2
    torch.testing.assert_close(slope, expected)


def test_weights_need_windows_with_behaviour(case):
    with pytest.raises(UsageError, match="windows with their behaviour"):
        ImportanceWeightedReinforce(discount=0.9, noise=0.1)(case.evidence())


def test_the_annealed_learning_rate_of_worked_numbers():
    # (10^{3p} - 1) / 999: 0 at the beginning, 9/999 after a third, 1 at the end
    rates = [annealed_learning_rate(share) for share in (0.0, 1 / 3, 2 / 3, 1.0)]
    assert rates == pytest.approx([0.0, 9 / 999, 99 / 999, 1.0])
    assert rates[0] == 0.0
    assert rates[-1] == 1.0
