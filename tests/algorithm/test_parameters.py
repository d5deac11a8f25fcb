import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from mgrl_cli.algorithm.parameters import (
    ParameterLayout,
    layer_norm,
    layer_norm_shapes,
    linear_shapes,
)
from tests.algorithm import oracles
from tests.algorithm.problems import normal

# torch scripts its forward-mode formulas at first use and warns that it will stop doing so.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")

LAYOUT = ParameterLayout({"a.weight": (2, 3), "a.bias": (3,), "n.gain": (2,), "free": (1,)})


def test_a_vector_is_cut_in_order_row_by_row():
    # 2·3 + 3 + 2 + 1 = 12 numbers
    assert LAYOUT.size == 12
    views = LAYOUT.views(torch.arange(12.0))
    assert views["a.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert views["a.bias"].tolist() == [6, 7, 8]
    assert views["n.gain"].tolist() == [9, 10]
    assert views["free"].tolist() == [11]


def test_leading_axes_are_kept():
    stacked = torch.stack([torch.arange(12.0), 100 + torch.arange(12.0)])
    views = LAYOUT.views(stacked)
    assert views["a.weight"].shape == (2, 2, 3)
    assert views["a.bias"][1].tolist() == [106, 107, 108]


def test_views_share_memory_with_the_vector():
    params = torch.zeros(12)
    LAYOUT.views(params)["a.bias"].fill_(1.0)
    assert params.nonzero().flatten().tolist() == [6, 7, 8]


def test_a_vector_of_another_size_is_refused():
    with pytest.raises(RuntimeError):
        LAYOUT.views(torch.zeros(13))


def test_gradients_flow_through_views_to_their_place():
    params = torch.zeros(12, requires_grad=True)
    (gradient,) = torch.autograd.grad(LAYOUT.views(params)["n.gain"].sum(), params)
    assert gradient.nonzero().flatten().tolist() == [9, 10]


def test_packing_undoes_views():
    params = torch.arange(12.0)
    shuffled = dict(reversed(LAYOUT.views(params).items()))
    assert torch.equal(LAYOUT.pack(shuffled), params)


def test_fresh_weights_are_glorot_uniform_gains_one_and_the_rest_zero():
    layout = ParameterLayout(
        {**linear_shapes("big", 200, 100), **layer_norm_shapes("norm", 100), "free": (3,)}
    )
    views = layout.views(layout.initialise(np.random.default_rng(1)))
    limit = (6 / 300) ** 0.5
    weight = views["big.weight"]
    assert weight.abs().max().item() == pytest.approx(limit, rel=1e-3)
    assert weight.abs().max().item() <= limit
    # Uniform on ±limit has variance limit²/3; 20,000 draws know it to within 2 %.
    assert weight.var().item() == pytest.approx(limit**2 / 3, rel=0.02)
    assert abs(weight.mean().item()) < 4 * limit / 20_000**0.5
    assert (views["norm.gain"] == 1).all()
    assert not any(views[name].any() for name in ("big.bias", "norm.bias", "free"))


def test_fan_in_is_what_torchs_linear_layers_begin_with():
    """The same bound for weights and biases, the same spread, the same number of parameters."""
    layout = ParameterLayout({**linear_shapes("big", 200, 3000), **layer_norm_shapes("norm", 9)})
    views = layout.views(layout.initialise(np.random.default_rng(1), "fan_in"))
    torch.manual_seed(1)
    linear = torch.nn.Linear(200, 3000)
    assert layout.size == sum(p.numel() for p in linear.parameters()) + 18
    limit = 200**-0.5
    for ours, theirs in ((views["big.weight"], linear.weight), (views["big.bias"], linear.bias)):
        for drawn in (ours, theirs.detach()):
            assert 0.995 * limit < drawn.abs().max().item() <= limit * (1 + 1e-6)
            # Uniform on ±limit has variance limit²/3; 3,000 draws know it to within 6 %.
            assert drawn.var().item() == pytest.approx(limit**2 / 3, rel=0.06)
    assert (views["norm.gain"] == 1).all()
    assert not views["norm.bias"].any()


def test_a_seed_fixes_the_initial_parameters():
    layout = ParameterLayout(linear_shapes("layer", 2, 3))
    first = layout.initialise(np.random.default_rng(4))
    again = layout.initialise(np.random.default_rng(4))
    other = layout.initialise(np.random.default_rng(5))
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # Drawn by NumPy, row by row: uniform on ±sqrt(6/5).
    limit = (6 / 5) ** 0.5
    drawn = np.random.default_rng(4).uniform(-limit, limit, size=6).astype(np.float32)
    assert first[:6].tolist() == drawn.tolist()


def test_layer_norm_of_worked_numbers():
    # mean 3, population variance (4 + 0 + 4)/3 = 8/3; (5-3)/sqrt(8/3) = 1.224745
    x = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64)
    gain = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)
    bias = torch.tensor([0.0, 7.0, 1.0], dtype=torch.float64)
    expected = [-1.224745, 7.0, 2 * 1.224745 + 1]
    assert layer_norm(x, gain, bias).tolist() == pytest.approx(expected, abs=1e-5)


def test_layer_norm_agrees_with_loops_and_with_torch(rng):
    x, gain, bias = normal(rng, 5, 7), normal(rng, 7), normal(rng, 7)
    got = layer_norm(x, gain, bias)
    rows = [oracles.layer_norm(row, gain.numpy(), bias.numpy()) for row in x.numpy()]
    torch.testing.assert_close(got, torch.from_numpy(np.stack(rows)))
    torch.testing.assert_close(got, torch.nn.functional.layer_norm(x, (7,), gain, bias))


def test_layer_norm_is_right_in_reverse_over_forward_mode(rng):
    """The order of differentiation in which torch's own LayerNorm was found to be wrong."""
    x, direction, gain, bias = (normal(rng, 7) for _ in range(4))
    target = normal(rng, 7)

    def loss(values):
        return (layer_norm(values, gain, bias) * target).tanh().sum()

    leaf = x.clone().requires_grad_()
    with forward_ad.dual_level():
        slope = forward_ad.unpack_dual(loss(forward_ad.make_dual(leaf, direction))).tangent
        (over_forward,) = torch.autograd.grad(slope, leaf)
    hessian = torch.autograd.functional.hessian(loss, x)
    torch.testing.assert_close(over_forward, hessian @ direction)
