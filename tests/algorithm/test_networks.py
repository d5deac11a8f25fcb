import numpy as np
import pytest
import torch
from torch import nn

from mgrl_cli.algorithm.networks import CriticNetwork, PolicyNetwork
from tests.algorithm import oracles
from tests.algorithm.problems import as_arrays, normal, perturbed, uniform_actions


@pytest.mark.parametrize(
    ("obs_size", "act_size", "policy_size", "critic_size"),
    [(8, 2, 128_102, 128_451), (11, 3, 129_503, 129_851), (17, 6, 132_656, 133_001)],
    ids=["lunar", "hopper", "cheetah"],
)
def test_sizes_at_350_hidden_units(obs_size, act_size, policy_size, critic_size):
    # lunar policy: 8·350+350 + 700 + 350·350+350 + 700 + 350·2+2 = 128,102
    assert PolicyNetwork(obs_size, act_size, 350).layout.size == policy_size
    assert CriticNetwork(obs_size, act_size, 350).layout.size == critic_size


def test_sizes_without_layer_norm_are_those_of_torch_modules():
    # lunar at 256: 8·256+256 + 256·256+256 + 256·2+2 = 68,610; the critic 68,865
    for network, sizes in (
        (PolicyNetwork(8, 2, 256, layer_norm=False), (8, 2)),
        (CriticNetwork(8, 2, 256, layer_norm=False), (10, 1)),
    ):
        layers = [nn.Linear(sizes[0], 256), nn.Linear(256, 256), nn.Linear(256, sizes[1])]
        expected = sum(p.numel() for layer in layers for p in layer.parameters())
        assert network.layout.size == expected
    assert PolicyNetwork(8, 2, 256, layer_norm=False).layout.size == 68_610
    assert CriticNetwork(8, 2, 256, layer_norm=False).layout.size == 68_865


def test_the_initialisation_is_passed_on():
    policy, critic = PolicyNetwork(3, 2, 9), CriticNetwork(3, 2, 9)
    drawn = policy.initialise(np.random.default_rng(0), initialisation="fan_in")
    views = policy.layout.views(drawn)
    assert views["linear_1.bias"].any()
    assert views["linear_1.weight"].abs().max().item() <= 3**-0.5
    scaled = policy.initialise(
        np.random.default_rng(0), initialisation="fan_in", last_layer_scale=0.5
    )
    last = policy.layout.views(scaled)
    torch.testing.assert_close(last["output.weight"], 0.5 * views["output.weight"])
    assert torch.equal(last["output.bias"], views["output.bias"])
    for twin in critic.initialise_twins(np.random.default_rng(0), "fan_in"):
        assert critic.layout.views(twin)["output.bias"].any()


def test_the_policy_agrees_with_loops(rng):
    network = PolicyNetwork(3, 2, 9)
    params = perturbed(network.initialise(rng), rng)
    obs = normal(rng, 4, 5, 3)
    parameters = as_arrays(network.layout, params)
    expected = [[oracles.policy_action(parameters, step) for step in row] for row in obs.numpy()]
    torch.testing.assert_close(network(params, obs), torch.from_numpy(np.array(expected)))


def test_the_pre_activation_is_what_tanh_sees(rng):
    network = PolicyNetwork(3, 2, 9)
    params = perturbed(network.initialise(rng), rng)
    obs = normal(rng, 4, 3)
    torch.testing.assert_close(
        network(params, obs), torch.tanh(network.pre_activation(params, obs))
    )


def test_a_single_observation_needs_no_batch_axis(rng):
    network = PolicyNetwork(3, 2, 9)
    params = network.initialise(rng)
    obs = normal(rng, 4, 3).float()
    torch.testing.assert_close(network(params, obs[2]), network(params, obs)[2])


def test_twin_critics_agree_with_loops(rng):
    network = CriticNetwork(3, 2, 9)
    params = perturbed(network.initialise_twins(rng), rng)
    obs, action = normal(rng, 6, 3), uniform_actions(rng, 6, 2)
    expected = [
        [
            oracles.q_value(as_arrays(network.layout, twin), *pair)
            for pair in zip(obs.numpy(), action.numpy(), strict=True)
        ]
        for twin in params
    ]
    torch.testing.assert_close(network.twins(params, obs, action), torch.tensor(expected).double())


def test_the_first_critic_is_the_first_twin_whatever_the_leading_axes(rng):
    network = CriticNetwork(3, 2, 9)
    params = perturbed(network.initialise_twins(rng), rng)
    obs, action = normal(rng, 4, 5, 3), uniform_actions(rng, 4, 5, 2)
    flat = network.twins(params, obs.flatten(0, 1), action.flatten(0, 1))[0]
    torch.testing.assert_close(network.first(params, obs, action), flat.view(4, 5))


def test_policies_see_the_first_critic_alone(rng):
    network = CriticNetwork(3, 2, 9)
    params = network.initialise_twins(rng).requires_grad_()
    value = network.first(params, torch.ones(4, 3), torch.ones(4, 2)).sum()
    (gradient,) = torch.autograd.grad(value, params)
    assert gradient[0].abs().sum() > 0
    assert gradient[1].abs().sum() == 0


def test_twins_start_different(rng):
    first, second = CriticNetwork(3, 2, 9).initialise_twins(rng)
    assert (first != second).float().mean() > 0.5


def test_the_scale_of_the_last_layer_touches_nothing_else():
    network = PolicyNetwork(3, 2, 9)
    plain = network.layout.views(network.initialise(np.random.default_rng(3)))
    scaled = network.layout.views(
        network.initialise(np.random.default_rng(3), last_layer_scale=0.1)
    )
    torch.testing.assert_close(scaled["output.weight"], 0.1 * plain["output.weight"])
    others = [name for name in plain if name != "output.weight"]
    assert all(torch.equal(scaled[name], plain[name]) for name in others)


def test_the_policys_written_out_derivatives_are_autograds(rng):
    network = PolicyNetwork(3, 2, 9)
    params = perturbed(network.initialise(rng), rng)
    obs, cotangent, pre_cotangent = normal(rng, 5, 3), normal(rng, 5, 2), normal(rng, 5, 2)
    tape = network.forward(params, obs)
    leaf = params.clone().requires_grad_()
    action, pre_activation = network(leaf, obs), network.pre_activation(leaf, obs)
    torch.testing.assert_close(tape.action, action.detach())
    torch.testing.assert_close(tape.pre_activation, pre_activation.detach())

    (through_action,) = torch.autograd.grad(action, leaf, cotangent, retain_graph=True)
    (through_both,) = torch.autograd.grad(
        (action, pre_activation), leaf, (cotangent, pre_cotangent)
    )
    torch.testing.assert_close(network.vjp(tape, cotangent), through_action)
    torch.testing.assert_close(network.vjp(tape, cotangent, pre_cotangent), through_both)

    direction = normal(rng, *params.shape)
    jacobian = torch.autograd.functional.jacobian(lambda phi: network(phi, obs), params)
    torch.testing.assert_close(network.jvp(tape, direction), jacobian @ direction)


def test_the_critics_written_out_derivatives_are_autograds(rng):
    network = CriticNetwork(3, 2, 9)
    params = perturbed(network.initialise_twins(rng), rng)
    obs, action, cotangent = normal(rng, 5, 3), uniform_actions(rng, 5, 2), normal(rng, 2, 5)
    tape = network.forward(params, obs, action)
    leaf = params.clone().requires_grad_()
    q = network.twins(leaf, obs, action)
    torch.testing.assert_close(tape.q, q.detach())
    (expected,) = torch.autograd.grad(q, leaf, cotangent)
    torch.testing.assert_close(network.vjp(tape, cotangent), expected)
    for twin in (0, 1):
        action_leaf = action.clone().requires_grad_()
        q = network.twins(params, obs, action_leaf)[twin]
        (slope,) = torch.autograd.grad(q, action_leaf, cotangent[twin])
        torch.testing.assert_close(network.action_vjp(tape, cotangent)[twin], slope)


def test_one_critic_alone_has_a_written_out_form_too(rng):
    network = CriticNetwork(3, 2, 9)
    params = perturbed(network.initialise_twins(rng), rng)
    obs, action = normal(rng, 5, 3), uniform_actions(rng, 5, 2)
    alone = network.forward(params[:1], obs, action).q
    torch.testing.assert_close(alone[0], network.first(params, obs, action))


def test_the_first_critic_once_is_the_first_critic_with_its_slope_in_the_action(rng):
    network = CriticNetwork(3, 2, 9)
    params = perturbed(network.initialise_twins(rng), rng)
    obs, action, weights = normal(rng, 4, 5, 3), uniform_actions(rng, 4, 5, 2), normal(rng, 4, 5)
    values, slopes = [], []
    for evaluate in (network.first, network.first_once):
        leaf = action.clone().requires_grad_()
        q = evaluate(params, obs, leaf)
        (slope,) = torch.autograd.grad((weights * q).sum(), leaf)
        values.append(q.detach())
        slopes.append(slope)
    torch.testing.assert_close(values[1], values[0])
    torch.testing.assert_close(slopes[1], slopes[0])
