import numpy as np
import pytest
import torch
from torch.nn.functional import layer_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mgrl_cli.algorithm.objective_network import (
    ObjectiveNetwork,
    ObjectiveShape,
    ObjectiveSignals,
    mixed_activation,
    valid_mean_and_variance,
)
from tests.algorithm import oracles
from tests.algorithm.problems import (
    LENGTHS,
    STEPS,
    as_arrays,
    oracle_signals,
    perturbed,
    random_signals,
    uniform_actions,
    validity,
)

BATCH = len(LENGTHS)


@pytest.fixture
def network() -> ObjectiveNetwork:
    return ObjectiveNetwork()


@pytest.fixture
def alpha(network, rng):
    return perturbed(network.initialise(rng), rng)


def actions(rng, act_size=2, steps=STEPS, batch=BATCH):
    """Executed and proposed actions."""
    shape = (batch, steps, act_size)
    return uniform_actions(rng, *shape), uniform_actions(rng, *shape)


def test_the_objective_has_15497_parameters(network):
    # actions 2·32+32+64 + 2·(32·32+32+64) = 2,400; signals 4·32+32 + 32·32+32 + 32·8+8 = 1,480;
    # LSTM (40+32)·128+128 = 9,344; head 2·(32·32+32+64) + 33 = 2,273; together 15,497.
    # Nothing of it depends on an environment: neither observations nor actions appear.
    assert network.layout.size == 15_497


def test_mixed_activation_of_worked_numbers():
    # ReLU on the first half, squares on the second
    x = torch.tensor([[-2.0, 3.0, -2.0, 3.0]])
    assert mixed_activation(x).tolist() == [[0.0, 3.0, 4.0, 9.0]]


def test_statistics_are_those_of_the_valid_steps():
    # mean (1 + 3 + 5)/3 = 3, population variance (4 + 0 + 4)/3
    x = torch.tensor([[1.0, 3.0], [5.0, 1e6]])
    mean, variance = valid_mean_and_variance(x, torch.tensor([[True, True], [True, False]]))
    assert mean.item() == 3.0
    assert variance.item() == pytest.approx(8 / 3)


WORKED = ObjectiveSignals(
    reward=torch.tensor([[1.0, 3.0, 7.0]], dtype=torch.float64),
    value=torch.tensor([[4.0, 8.0, 7.0]], dtype=torch.float64),
    next_value=torch.tensor([[8.0, 5.0, 7.0]], dtype=torch.float64),
    terminated=torch.tensor([[False, True, False]]),
    is_valid=torch.tensor([[True, True, False]]),
)


@pytest.mark.parametrize(("terminal_value", "shown"), [("zero", -3.0), ("mean", 0.0)])
def test_normalised_signals_of_worked_numbers(terminal_value, shown):
    # Two valid steps, T = 3. Rewards 1, 3: mean 2, deviation 1 → -1, 1.
    # Values 4, 8: mean 6, deviation 2 → -1, 1. Next values on the same scale: (8-6)/2 = 1 and,
    # at the terminal step, (0-6)/2 = -3 or the mean, 0; the stored 5 is never seen.
    shape = ObjectiveShape(terminal_value=terminal_value)
    inputs = ObjectiveNetwork(shape).normalised_signals(WORKED)
    expected = [[-1.0, 0.0, 1.0, -1.0], [1.0, 1 / 3, shown, 1.0], [0.0, 0.0, 0.0, 0.0]]
    torch.testing.assert_close(
        inputs[0], torch.tensor(expected, dtype=torch.float64), atol=1e-7, rtol=1e-7
    )


def test_constant_rewards_and_values_show_zero(network):
    five = torch.full((1, 3), 5.0)
    signals = WORKED._replace(
        reward=five, value=five, next_value=five, terminated=torch.zeros(1, 3, dtype=torch.bool)
    )
    assert (network.normalised_signals(signals)[..., [0, 2, 3]] == 0).all()


@pytest.mark.parametrize("lengths", [LENGTHS, [6] * 6, [1] * 6, [6, 5, 4, 3, 2, 1]], ids=str)
@pytest.mark.parametrize("terminal_value", ["zero", "mean"])
@pytest.mark.parametrize("padding_first", [False, True])
def test_losses_agree_with_loops(rng, lengths, terminal_value, padding_first):
    network = ObjectiveNetwork(
        ObjectiveShape(terminal_value=terminal_value, padding_first=padding_first)
    )
    alpha = perturbed(network.initialise(rng), rng)
    signals = random_signals(rng, lengths)
    action, policy_action = actions(rng)
    losses = network(alpha, action, policy_action, signals)
    expected = oracles.objective_losses(
        as_arrays(network.layout, alpha),
        action.numpy(),
        policy_action.numpy(),
        oracle_signals(signals),
        terminal_value=terminal_value,
        padding_first=padding_first,
    )
    assert torch.isfinite(losses).all()
    is_valid = signals.is_valid.numpy()
    np.testing.assert_allclose(losses.numpy()[is_valid], expected[is_valid], rtol=1e-10)


@pytest.mark.parametrize(
    "ablation",
    [
        {"without": ("time",)},
        {"without": ("next_value",)},
        {"without": ("value",)},
        {"without": ("time", "next_value", "value"), "normalise": False},
        {"normalise": False},
        {"normalise": False, "terminal_value": "mean"},
    ],
    ids=str,
)
def test_ablated_losses_agree_with_loops(rng, ablation):
    network = ObjectiveNetwork(ObjectiveShape(**ablation))
    assert network.layout.size == 15_497
    alpha = perturbed(network.initialise(rng), rng)
    signals = random_signals(rng)
    action, policy_action = actions(rng)
    got = network(alpha, action, policy_action, signals).numpy()
    expected = oracles.objective_losses(
        as_arrays(network.layout, alpha),
        action.numpy(),
        policy_action.numpy(),
        oracle_signals(signals),
        **{"terminal_value": "zero", **ablation},
    )
    is_valid = signals.is_valid.numpy()
    np.testing.assert_allclose(got[is_valid], expected[is_valid], rtol=1e-10)
    whole = ObjectiveNetwork()(alpha, action, policy_action, signals).numpy()
    assert not np.allclose(got[is_valid], whole[is_valid])


@pytest.mark.parametrize(("number", "name"), [(1, "time"), (2, "next_value"), (3, "value")])
def test_an_input_left_out_is_zero_and_its_weights_get_no_gradient(rng, number, name):
    whole, ablated = ObjectiveNetwork(), ObjectiveNetwork(ObjectiveShape(without=(name,)))
    signals = random_signals(rng)
    expected = whole.normalised_signals(signals)
    expected[..., number] = 0
    assert torch.equal(ablated.normalised_signals(signals), expected)
    alpha = perturbed(ablated.initialise(rng), rng).requires_grad_()
    losses = ablated(alpha, *actions(rng), signals)
    (gradient,) = torch.autograd.grad(losses[signals.is_valid].square().sum(), alpha)
    rows = ablated.layout.views(gradient)["signal.linear_1.weight"]
    assert rows.abs().sum(dim=1).ne(0).tolist() == [i != number for i in range(4)]


@pytest.mark.parametrize("terminal_value", ["zero", "mean"])
def test_without_normalisation_signals_are_shown_as_they_are(terminal_value):
    shape = ObjectiveShape(normalise=False, terminal_value=terminal_value)
    inputs = ObjectiveNetwork(shape).normalised_signals(WORKED)
    # The second step is terminal, so its next value is 0; the third is padding.
    assert inputs[0].tolist() == [[1.0, 0.0, 8.0, 4.0], [3.0, 1 / 3, 0.0, 8.0], [0.0] * 4]


def test_losses_stay_within_the_bound(rng):
    network = ObjectiveNetwork(ObjectiveShape(bound=2.0))
    alpha = perturbed(network.initialise(rng), rng)
    network.layout.views(alpha)["head.output.weight"].mul_(100)
    signals = random_signals(rng)
    action, policy_action = actions(rng)
    losses = network(alpha, action, policy_action, signals)
    expected = oracles.objective_losses(
        as_arrays(network.layout, alpha),
        action.numpy(),
        policy_action.numpy(),
        oracle_signals(signals),
        bound=2.0,
    )
    assert losses.abs().max() <= 2.0
    assert losses.abs().max() > 1.9
    is_valid = signals.is_valid.numpy()
    np.testing.assert_allclose(losses.numpy()[is_valid], expected[is_valid], rtol=1e-10)


def losses_by_torch_modules(network, alpha, action, policy_action, signals):
    """The same objective from torch's own LayerNorm and LSTM on packed, reversed sequences."""
    views = network.layout.views(alpha)

    def layer(name, x):
        x = x @ views[f"{name}.weight"] + views[f"{name}.bias"]
        return torch.cat([x[..., :16].relu(), x[..., 16:] ** 2], dim=-1)

    def normalise(name, x):
        return layer_norm(x, (32,), views[f"{name}.gain"], views[f"{name}.bias"])

    e = torch.stack([action, policy_action], dim=-1)
    for number in (1, 2, 3):
        e = normalise(f"action.norm_{number}", layer(f"action.linear_{number}", e))
    f = network.normalised_signals(signals)
    for number in (1, 2):
        f = layer(f"signal.linear_{number}", f)
    f = f @ views["signal.output.weight"] + views["signal.output.bias"]

    # Ours: one kernel [40 + 32, 128], gates i, g, f, o. Torch's: [128, in], gates i, f, g, o.
    i, g, forget, o = range(4)
    kernel = views["lstm.weight"].view(72, 4, 32)[:, [i, forget, g, o]].reshape(72, 128)
    bias = views["lstm.bias"].view(4, 32)[[i, forget, g, o]].clone()
    bias[1] += 1.0  # the constant that opens the forget gate
    lstm = torch.nn.LSTM(40, 32, batch_first=True, dtype=torch.float64)
    weights = {
        "weight_ih_l0": kernel[:40].T,
        "weight_hh_l0": kernel[40:].T,
        "bias_ih_l0": bias.flatten(),
        "bias_hh_l0": torch.zeros(128, dtype=torch.float64),
    }
    lengths = signals.is_valid.sum(dim=1)
    reverse = (lengths[:, None] - 1 - torch.arange(STEPS)) % STEPS
    features = torch.cat([e.mean(dim=2), f], dim=-1)
    reversed_features = torch.take_along_dim(features, reverse[..., None], dim=1)
    packed = pack_padded_sequence(
        reversed_features, lengths, batch_first=True, enforce_sorted=False
    )
    output, _ = torch.func.functional_call(lstm, weights, (packed,))
    hidden, _ = pad_packed_sequence(output, batch_first=True, total_length=STEPS)
    x = torch.take_along_dim(hidden, reverse[..., None], dim=1)
    for number in (1, 2):
        x = normalise(f"head.norm_{number}", layer(f"head.linear_{number}", x))
    x = (x @ views["head.output.weight"] + views["head.output.bias"]).squeeze(-1)
    return 1000 * torch.tanh(x / 1000)


def test_losses_and_gradients_agree_with_torch_modules(network, alpha, rng):
    signals = random_signals(rng)
    action, policy_action = actions(rng)
    results = []
    for losses_of in (network, lambda *args: losses_by_torch_modules(network, *args)):
        leaves = (alpha.clone().requires_grad_(), policy_action.clone().requires_grad_())
        losses = losses_of(leaves[0], action, leaves[1], signals)[signals.is_valid]
        results.append((losses.detach(), *torch.autograd.grad(losses.sum(), leaves)))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


def loss_and_action_gradient(network, alpha, action, policy_action, signals):
    leaf = policy_action.clone().requires_grad_()
    losses = network(alpha, action, leaf, signals)
    masked = torch.where(signals.is_valid, losses, torch.zeros_like(losses))
    (gradient,) = torch.autograd.grad(masked.sum(), leaf)
    return masked.detach(), gradient


def test_gradients_flow_into_parameters_and_the_policys_action_alone(network, alpha, rng):
    signals = random_signals(rng)
    floats = [tensor.requires_grad_() for tensor in signals[:3]]
    action, policy_action = (tensor.requires_grad_() for tensor in actions(rng))
    leaves = (alpha.requires_grad_(), policy_action, action, *floats)
    loss = network(alpha, action, policy_action, signals)[signals.is_valid].sum()
    alpha_part, policy_part, *others = torch.autograd.grad(loss, leaves, allow_unused=True)
    assert (alpha_part != 0).float().mean() > 0.9
    assert (policy_part[signals.is_valid] != 0).all()
    assert others == [None] * 4


def test_the_order_of_action_dimensions_does_not_matter(network, alpha, rng):
    signals = random_signals(rng)
    action, policy_action = actions(rng, act_size=5)
    order = torch.tensor([3, 0, 4, 1, 2])
    losses, gradient = loss_and_action_gradient(network, alpha, action, policy_action, signals)
    permuted_losses, permuted_gradient = loss_and_action_gradient(
        network, alpha, action[..., order], policy_action[..., order], signals
    )
    torch.testing.assert_close(permuted_losses, losses, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(permuted_gradient, gradient[..., order], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("act_size", [1, 2, 17])
def test_any_number_of_action_dimensions_will_do(network, alpha, rng, act_size):
    """A dimension that is there several times counts once: features are averaged."""
    signals = random_signals(rng)
    action, policy_action = actions(rng, act_size)
    losses = network(alpha, action, policy_action, signals)
    repeated = network(alpha, action.repeat(1, 1, 3), policy_action.repeat(1, 1, 3), signals)
    torch.testing.assert_close(repeated, losses, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 100.0), (250.0, 0.0), (250.0, -3000.0)])
def test_scale_and_offset_of_rewards_do_not_matter(network, alpha, rng, scale, offset):
    signals = random_signals(rng)
    moved = signals._replace(reward=scale * signals.reward + offset)
    arguments = actions(rng)
    before = loss_and_action_gradient(network, alpha, *arguments, signals)
    after = loss_and_action_gradient(network, alpha, *arguments, moved)
    # The floor under the variance, 1e-8 against about 9, is all that is left of the scale.
    for got, expected in zip(after, before, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("terminal_value", ["zero", "mean"])
def test_the_scale_of_values_does_not_matter(rng, terminal_value):
    network = ObjectiveNetwork(ObjectiveShape(terminal_value=terminal_value))
    alpha = perturbed(network.initialise(rng), rng)
    signals = random_signals(rng)
    scaled = signals._replace(value=40 * signals.value, next_value=40 * signals.next_value)
    arguments = actions(rng)
    torch.testing.assert_close(
        loss_and_action_gradient(network, alpha, *arguments, scaled),
        loss_and_action_gradient(network, alpha, *arguments, signals),
        rtol=1e-6,
        atol=1e-8,
    )


def test_an_offset_of_values_shows_at_terminal_steps_alone(rng):
    """Zero is a true value there, and far below a batch of values that are all high."""
    arguments = actions(rng)
    terminal = random_signals(rng)
    endless = terminal._replace(terminated=torch.zeros_like(terminal.terminated))
    differences = {}
    for terminal_value in ("zero", "mean"):
        network = ObjectiveNetwork(ObjectiveShape(terminal_value=terminal_value))
        alpha = perturbed(network.initialise(np.random.default_rng(1)), np.random.default_rng(1))
        for name, signals in (("terminal", terminal), ("endless", endless)):
            moved = signals._replace(value=signals.value + 9, next_value=signals.next_value + 9)
            before, _ = loss_and_action_gradient(network, alpha, *arguments, signals)
            after, _ = loss_and_action_gradient(network, alpha, *arguments, moved)
            differences[terminal_value, name] = (after - before).abs().max().item()
    assert differences.pop(("zero", "terminal")) > 1e-2
    assert max(differences.values()) < 1e-10


def test_padding_does_not_matter(network, alpha, rng):
    signals = random_signals(rng)
    action, policy_action = actions(rng)
    is_padding = ~signals.is_valid
    changed = signals._replace(
        reward=torch.where(is_padding, 1e6, signals.reward),
        value=torch.where(is_padding, -1e6, signals.value),
        next_value=torch.where(is_padding, 3e5, signals.next_value),
        terminated=signals.terminated ^ is_padding,
    )
    elsewhere = [torch.where(is_padding[..., None], -x, x) for x in (action, policy_action)]
    before = loss_and_action_gradient(network, alpha, action, policy_action, signals)
    after = loss_and_action_gradient(network, alpha, *elsewhere, changed)
    for got, expected in zip(after, before, strict=True):
        assert torch.equal(got, expected)


def test_a_window_does_not_see_beyond_its_batch_statistics(network, alpha, rng):
    """A shorter window of the same steps gives the same losses: reading starts at the last one."""
    full = random_signals(rng, [4], steps=4)
    action, policy_action = actions(rng, steps=4, batch=1)
    longer = ObjectiveSignals(
        *(torch.nn.functional.pad(tensor, (0, 2)) for tensor in full[:4]),
        is_valid=validity([4], 6),
    )
    padded = [torch.nn.functional.pad(x, (0, 0, 0, 2)) for x in (action, policy_action)]
    # Time is t/T. Without its weight nothing else differs.
    network.layout.views(alpha)["signal.linear_1.weight"][1].zero_()
    torch.testing.assert_close(
        network(alpha, *padded, longer)[:, :4], network(alpha, action, policy_action, full)
    )


@pytest.mark.parametrize(("padding_first", "taught"), [(False, 8), (True, 0)])
def test_an_episode_of_eight_steps_teaches_on_all_of_them(rng, padding_first, taught):
    network = ObjectiveNetwork(ObjectiveShape(padding_first=padding_first))
    alpha = perturbed(network.initialise(rng), rng)
    signals = random_signals(rng, [8, 20], steps=20)
    arguments = actions(rng, steps=20, batch=2)
    _, gradient = loss_and_action_gradient(network, alpha, *arguments, signals)
    has_gradient = (gradient != 0).all(dim=-1)
    assert has_gradient[0, :8].sum() == taught
    assert not has_gradient[0, 8:].any()
    assert has_gradient[1].all()


def test_padding_first_teaches_the_steps_in_excess_of_the_padding(rng):
    # 12 of 20 steps: 8 of padding are read first, then 4 real ones, steps 11 to 8
    network = ObjectiveNetwork(ObjectiveShape(padding_first=True))
    alpha = perturbed(network.initialise(rng), rng)
    arguments = actions(rng, steps=20, batch=1)
    signals = random_signals(rng, [12], steps=20)
    _, gradient = loss_and_action_gradient(network, alpha, *arguments, signals)
    is_taught = (gradient[0, :12] != 0).any(dim=-1)
    assert is_taught.nonzero().flatten().tolist() == [8, 9, 10, 11]


def test_information_flows_backwards_in_time_alone(network, alpha, rng):
    signals = random_signals(rng, [6], steps=6)
    action, policy_action = actions(rng, batch=1)
    leaf = policy_action.requires_grad_()
    losses = network(alpha, action, leaf, signals)
    (gradient,) = torch.autograd.grad(losses[0, 3], leaf)
    is_seen = (gradient[0] != 0).any(dim=-1)
    assert is_seen.tolist() == [False, False, False, True, True, True]


def test_a_zero_last_layer_asks_for_nothing(network, rng):
    alpha = network.initialise(np.random.default_rng(2), last_layer="zero").double()
    plain = network.initialise(np.random.default_rng(2)).double()
    losses, gradient = loss_and_action_gradient(network, alpha, *actions(rng), random_signals(rng))
    assert not losses.any()
    assert not gradient.any()
    # Only that layer differs, so that the first meta-step can already move it.
    differs = {
        name
        for name, view in network.layout.views(alpha).items()
        if not torch.equal(view, network.layout.views(plain)[name])
    }
    assert differs == {"head.output.weight"}
