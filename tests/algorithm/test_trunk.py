"""The derivatives that are written out, against autograd on the plain form."""

import numpy as np
import pytest
import torch

from mgrl_cli.algorithm.fused.sources import is_numba_installed
from mgrl_cli.algorithm.fused.trunk import ArrayTape, FusedTape, supports
from mgrl_cli.algorithm.parameters import TrunkSizes
from mgrl_cli.algorithm.trunk import TorchTape, Trunk
from tests.algorithm.problems import normal, perturbed
from tests.conftest import HIDDEN

ROWS, WIDTH_IN, WIDTH_OUT = 70, 3, 2  # more than a tile of 64 rows; both widths need padding

needs_numba = pytest.mark.skipif(not is_numba_installed(), reason="needs numba, the extra 'fast'")
# The first run on a machine compiles for each dtype; later ones load numba's cache.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(params=[1, 2], ids=["one-net", "twins"])
def nets(request):
    return request.param


@pytest.fixture(params=[(3, HIDDEN), (19, 5)], ids=["whole", "padded"])
def widths(request):
    """Of inputs and hidden layers: the kernels take eight at a time, and what is left."""
    return request.param


@pytest.fixture(params=["torch", pytest.param("kernels", marks=needs_numba)])
def form(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["norm", "without-norm"])
def case(request, rng, nets, widths, form):
    """A trunk, parameters [net, param] and inputs."""
    trunk = Trunk(*widths, WIDTH_OUT, layer_norm=request.param, compiled=form == "kernels")
    params = torch.stack([perturbed(trunk.layout.initialise(rng), rng) for _ in range(nets)])
    expected = FusedTape if form == "kernels" else TorchTape
    assert isinstance(trunk.forward(params, normal(rng, 1, widths[0])), expected)
    return trunk, params, normal(rng, ROWS, widths[0])


def test_both_forms_have_the_same_values(case):
    trunk, params, x = case
    output = trunk.forward(params, x).output
    assert output.shape == (len(params), ROWS, WIDTH_OUT)
    torch.testing.assert_close(output, trunk(params, x))


def test_without_layer_norm_the_plain_form_is_that_of_torch_modules(rng):
    trunk = Trunk(WIDTH_IN, HIDDEN, WIDTH_OUT, layer_norm=False)
    params = perturbed(trunk.layout.initialise(rng, "fan_in"), rng)
    views = trunk.layout.views(params)
    assert list(views) == [
        f"{layer}.{part}"
        for layer in ("linear_1", "linear_2", "output")
        for part in ("weight", "bias")
    ]
    h = x = normal(rng, ROWS, WIDTH_IN)
    for layer in ("linear_1", "linear_2"):
        h = torch.nn.functional.linear(h, views[f"{layer}.weight"].T, views[f"{layer}.bias"]).relu()
    h = torch.nn.functional.linear(h, views["output.weight"].T, views["output.bias"])
    torch.testing.assert_close(trunk(params.unsqueeze(0), x)[0], h)


def test_the_parameter_gradient_is_autograds(case, rng):
    trunk, params, x = case
    cotangent = normal(rng, len(params), ROWS, WIDTH_OUT)
    leaf = params.clone().requires_grad_()
    (expected,) = torch.autograd.grad(trunk(leaf, x), leaf, grad_outputs=cotangent)
    got = trunk.forward(params, x).vjp(cotangent)
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("last", [1, 2, None])
def test_the_gradient_in_the_last_inputs_is_autograds(case, rng, last):
    trunk, params, x = case
    last = last or x.shape[1]
    cotangent = normal(rng, len(params), ROWS, WIDTH_OUT)
    got = trunk.forward(params, x).input_vjp(cotangent, last)
    for net in range(len(params)):
        leaf = x.clone().requires_grad_()
        output = trunk(params[net : net + 1], leaf)
        (expected,) = torch.autograd.grad(output, leaf, grad_outputs=cotangent[net : net + 1])
        torch.testing.assert_close(got[net], expected[:, -last:], rtol=1e-11, atol=1e-13)


def test_the_directional_derivative_is_that_of_finite_differences(case, rng):
    trunk, params, x = case
    direction = normal(rng, *params.shape)
    got = trunk.forward(params, x).jvp(direction)
    step = 1e-7
    difference = trunk(params + step * direction, x) - trunk(params - step * direction, x)
    torch.testing.assert_close(got, difference / (2 * step), rtol=1e-6, atol=1e-6)


def test_forward_and_backward_products_are_transposed(case, rng):
    """⟨cotangent, J·direction⟩ = ⟨Jᵀ·cotangent, direction⟩, to rounding."""
    trunk, params, x = case
    tape = trunk.forward(params, x)
    direction = normal(rng, *params.shape)
    cotangent = normal(rng, len(params), ROWS, WIDTH_OUT)
    left = (cotangent * tape.jvp(direction)).sum().item()
    right = (tape.vjp(cotangent) * direction).sum().item()
    assert left == pytest.approx(right, rel=1e-11)


def test_products_can_be_taken_again_from_one_tape(case, rng):
    trunk, params, x = case
    tape = trunk.forward(params, x)
    cotangent = normal(rng, len(params), ROWS, WIDTH_OUT)
    first = tape.vjp(cotangent)
    tape.jvp(params)
    tape.input_vjp(cotangent, 1)
    assert torch.equal(tape.vjp(cotangent), first)


@pytest.mark.parametrize("beyond", [0, 1])
def test_more_last_inputs_than_there_are_are_refused(case, beyond):
    trunk, params, x = case
    last = beyond and x.shape[1] + beyond
    with pytest.raises(ValueError, match=f"the last {last} inputs of {x.shape[1]}"):
        trunk.forward(params, x).input_vjp(torch.zeros(len(params), ROWS, WIDTH_OUT), last)


@needs_numba
def test_rows_do_not_meet_in_a_tile(case):
    """A row's result must not depend on its neighbours, nor on what a buffer held before."""
    trunk, params, x = case
    whole = trunk.forward(params, x).output
    for row in (0, 63, 64, ROWS - 1):
        alone = trunk.forward(params, x[row : row + 1]).output
        torch.testing.assert_close(alone[:, 0], whole[:, row], rtol=1e-13, atol=0)


@needs_numba
def test_two_tapes_in_use_do_not_share_buffers(rng, nets):
    trunk = Trunk(WIDTH_IN, HIDDEN, WIDTH_OUT, compiled=True)
    params = torch.stack([perturbed(trunk.layout.initialise(rng), rng) for _ in range(nets)])
    x, cotangent = normal(rng, ROWS, WIDTH_IN), normal(rng, nets, ROWS, WIDTH_OUT)
    tape = trunk.forward(params, x)
    before = tape.vjp(cotangent)
    another = trunk.forward(-params, 2.0 * x)
    assert torch.equal(tape.vjp(cotangent), before)
    del another


@needs_numba
def test_what_the_memory_held_before_changes_nothing(rng):
    trunk = Trunk(WIDTH_IN, HIDDEN, WIDTH_OUT, compiled=True)
    params = perturbed(trunk.layout.initialise(rng), rng).unsqueeze(0)
    x, cotangent = normal(rng, ROWS, WIDTH_IN), normal(rng, 1, ROWS, WIDTH_OUT)

    def everything(params, x, cotangent):
        tape = trunk.forward(params, x)
        derivatives = tape.vjp(cotangent), tape.input_vjp(cotangent, 2), tape.jvp(params)
        return torch.cat([each.flatten() for each in (tape.output, *derivatives)])

    before = everything(params, x, cotangent)
    nowhere = cotangent.repeat(2, 3, 1) * torch.nan
    assert everything(params.repeat(2, 1) * torch.nan, x.repeat(3, 1), nowhere).isnan().all()
    assert torch.equal(everything(params, x, cotangent), before)


@needs_numba
@pytest.mark.parametrize("number", [1, 63, 64, ROWS - 1, ROWS])
def test_derivatives_of_the_first_rows_are_those_where_the_others_count_nothing(rng, nets, number):
    sizes = TrunkSizes(WIDTH_IN, HIDDEN, WIDTH_OUT, layer_norm=True)
    trunk = Trunk(WIDTH_IN, HIDDEN, WIDTH_OUT)
    params, direction = (
        torch.stack([perturbed(trunk.layout.initialise(rng), rng) for _ in range(nets)]).numpy()
        for _ in range(2)
    )
    x, cotangent = normal(rng, ROWS, WIDTH_IN), normal(rng, nets, ROWS, WIDTH_OUT).numpy()
    tape = ArrayTape(params, x.numpy(), sizes)
    first = np.ascontiguousarray(cotangent[:, :number])
    cotangent[:, number:] = 0
    np.testing.assert_array_equal(tape.vjp(first), tape.vjp(cotangent))
    slope, whole = (tape.input_vjp(each, WIDTH_IN) for each in (first, cotangent))
    np.testing.assert_array_equal(slope, whole[:, :number])
    np.testing.assert_array_equal(tape.jvp(direction, number), tape.jvp(direction)[:, :number])


@needs_numba
def test_what_kernels_do_not_support_takes_torch():
    trunk = Trunk(2, HIDDEN, 1, compiled=True)
    params = torch.zeros(1, trunk.layout.size, dtype=torch.bfloat16)
    assert not supports(params)
    tape = trunk.forward(params, torch.zeros(1, 2, dtype=torch.bfloat16))
    assert isinstance(tape, TorchTape)


@needs_numba
@pytest.mark.parametrize("layer_norm", [True, False])
def test_kernels_pass_on_what_is_not_a_number(rng, layer_norm):
    """A zero in its place would hide from Adam that something is wrong."""
    compiled, plain = (
        Trunk(WIDTH_IN, HIDDEN, WIDTH_OUT, layer_norm=layer_norm, compiled=compiled)
        for compiled in (True, False)
    )
    params = perturbed(plain.layout.initialise(rng), rng).unsqueeze(0)
    x, cotangent = normal(rng, ROWS, WIDTH_IN), normal(rng, 1, ROWS, WIDTH_OUT)
    x[5, 1] = torch.nan
    for derivative, numbers in (("vjp", ()), ("input_vjp", (WIDTH_IN,))):
        found, expected = (
            getattr(trunk.forward(params, x), derivative)(cotangent, *numbers)
            for trunk in (compiled, plain)
        )
        torch.testing.assert_close(found, expected, equal_nan=True)


@needs_numba
def test_rows_of_another_width_or_number_are_refused(rng):
    """The kernels themselves would read and write beyond their arrays."""
    trunk = Trunk(WIDTH_IN, HIDDEN, WIDTH_OUT, compiled=True)
    params = trunk.layout.initialise(rng).unsqueeze(0)
    with pytest.raises(ValueError, match=f"expected {WIDTH_IN}"):
        trunk.forward(params, torch.zeros(ROWS, WIDTH_IN + 1))
    tape = trunk.forward(params, torch.zeros(ROWS, WIDTH_IN))
    for derivative in (tape.vjp, lambda cotangent: tape.input_vjp(cotangent, WIDTH_IN)):
        with pytest.raises(ValueError, match=f"expected {WIDTH_OUT}"):
            derivative(torch.zeros(1, ROWS, WIDTH_OUT + 1))
        for nets, rows in ((1, ROWS + 1), (2, ROWS)):
            with pytest.raises(ValueError, match=f"the tape has 1 at {ROWS}"):
                derivative(torch.zeros(nets, rows, WIDTH_OUT))
    with pytest.raises(ValueError, match="of 2 networks"):
        tape.jvp(params.repeat(2, 1))


def test_kernels_are_used_only_where_they_are_asked_for(rng):
    trunk = Trunk(2, HIDDEN, 1)
    params = torch.zeros(1, trunk.layout.size)
    assert isinstance(trunk.forward(params, torch.zeros(1, 2)), TorchTape)


@needs_numba
def test_kernels_that_differ_in_a_constant_differ_in_name():
    """By its name alone numba links a function from a cache that another process has filled."""
    from mgrl_cli.algorithm.fused.kernels import matmul
    from mgrl_cli.algorithm.fused.trunk_layers import LayerShape, layer_kernels
    from mgrl_cli.algorithm.fused.trunk_passes import compile_trunk_passes

    products = [matmul(64, 8, 1), matmul(64, 1, 8), matmul(8, 1, 64)]
    shapes = [LayerShape(units, has_norm) for units in (8, 15, 16) for has_norm in (True, False)]
    layers = [set(layer_kernels(shape)) for shape in shapes]  # one may serve two purposes
    passes = [compile_trunk_passes(shape, "") for shape in shapes]
    kernels = [*products, *(kernel for kernels in (*layers, *passes) for kernel in kernels)]
    names = [kernel.py_func.__qualname__ for kernel in kernels]
    assert len(set(names)) == len(names)
