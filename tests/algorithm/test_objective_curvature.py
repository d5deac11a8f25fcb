import pytest
import torch

from mgrl_cli.algorithm.networks import CriticNetwork
from mgrl_cli.algorithm.objective_curvature import objective_curvature
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork, ObjectiveShape
from mgrl_cli.algorithm.objectives import PolicyEvidence
from tests.algorithm.problems import STEPS, normal, perturbed, random_windows, uniform_actions

STEP = 1e-7


@pytest.fixture
def case(rng):
    """An objective, its parameters and evidence with masked windows."""
    network = ObjectiveNetwork(ObjectiveShape(width=8, signal_features=3))
    alpha = perturbed(network.initialise(rng), rng)
    critic = CriticNetwork(3, 2, 8)
    theta = perturbed(critic.initialise_twins(rng), rng)
    windows = random_windows(rng)
    actions = uniform_actions(rng, len(windows.reward), STEPS + 1, 2)
    return (
        network,
        alpha,
        PolicyEvidence(windows, actions, lambda obs, action: critic.first(theta, obs, action)),
    )


def total_loss(network, alpha, evidence, action):
    losses = network(alpha, evidence.windows.action, action, evidence.signals)
    return losses[evidence.windows.is_valid].sum().item()


def test_the_action_gradient_is_the_slope_of_the_summed_loss(case, rng):
    network, alpha, evidence = case
    direction = normal(rng, *evidence.policy_action.shape)
    rise, fall = (
        total_loss(network, alpha, evidence, evidence.policy_action + step * direction)
        for step in (STEP, -STEP)
    )
    gradient = objective_curvature(network, alpha, evidence).action_gradient
    slope = (gradient * direction).sum().item()
    assert (rise - fall) / (2 * STEP) == pytest.approx(slope, rel=1e-6)
    assert not gradient.requires_grad
    assert not gradient[~evidence.windows.is_valid].any()


def test_mixed_gradients_are_slopes_of_the_contraction(case, rng):
    network, alpha, evidence = case
    u = normal(rng, *evidence.policy_action.shape)
    alpha_part, action_part = objective_curvature(network, alpha, evidence).mixed_gradient(u)

    def contraction(alpha_step, action_step):
        moved = PolicyEvidence(
            evidence.windows,
            torch.nn.functional.pad(evidence.policy_action + action_step, (0, 0, 0, 1)),
            lambda obs, action: torch.zeros(()),
        )
        moved.signals = evidence.signals  # values are constants of both derivatives
        return (objective_curvature(network, alpha + alpha_step, moved).action_gradient * u).sum()

    alpha_direction = normal(rng, *alpha.shape)
    rise, fall = (contraction(step * alpha_direction, 0.0) for step in (STEP, -STEP))
    slope = torch.dot(alpha_part, alpha_direction).item()
    assert ((rise - fall) / (2 * STEP)).item() == pytest.approx(slope, rel=1e-5)

    action_direction = normal(rng, *u.shape)
    rise, fall = (contraction(0.0, step * action_direction) for step in (STEP, -STEP))
    slope = (action_part * action_direction).sum().item()
    assert ((rise - fall) / (2 * STEP)).item() == pytest.approx(slope, rel=1e-5)
