"""The derivatives that are written out, against autograd on the plain form."""

import pytest
import torch

from mgrl_cli.algorithm.trunk import Trunk
from tests.algorithm.problems import normal, perturbed

ROWS, WIDTH_IN, HIDDEN, WIDTH_OUT = 5, 3, 8, 2


@pytest.fixture(params=[1, 2], ids=["one-net", "twins"])
def case(request, rng):
    """A trunk, parameters [net, param] and inputs."""
    trunk = Trunk(WIDTH_IN, HIDDEN, WIDTH_OUT)
    params = torch.stack(
        [perturbed(trunk.layout.initialise(rng), rng) for _ in range(request.param)]
    )
    return trunk, params, normal(rng, ROWS, WIDTH_IN)


def test_both_forms_have_the_same_values(case):
    trunk, params, x = case
    output = trunk.forward(params, x).output
    assert output.shape == (len(params), ROWS, WIDTH_OUT)
    torch.testing.assert_close(output, trunk(params, x))


def test_the_parameter_gradient_is_autograds(case, rng):
    trunk, params, x = case
    cotangent = normal(rng, len(params), ROWS, WIDTH_OUT)
    leaf = params.clone().requires_grad_()
    (expected,) = torch.autograd.grad(trunk(leaf, x), leaf, grad_outputs=cotangent)
    got = trunk.vjp(trunk.forward(params, x), cotangent)
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-13)


def test_the_input_gradient_is_autograds(case, rng):
    trunk, params, x = case
    cotangent = normal(rng, len(params), ROWS, WIDTH_OUT)
    got = trunk.input_vjp(trunk.forward(params, x), cotangent)
    for net in range(len(params)):
        leaf = x.clone().requires_grad_()
        output = trunk(params[net : net + 1], leaf)
        (expected,) = torch.autograd.grad(output, leaf, grad_outputs=cotangent[net : net + 1])
        torch.testing.assert_close(got[net], expected, rtol=1e-11, atol=1e-13)


def test_the_directional_derivative_is_that_of_finite_differences(case, rng):
    trunk, params, x = case
    direction = normal(rng, *params.shape)
    got = trunk.jvp(trunk.forward(params, x), direction)
    step = 1e-7
    difference = trunk(params + step * direction, x) - trunk(params - step * direction, x)
    torch.testing.assert_close(got, difference / (2 * step), rtol=1e-6, atol=1e-6)


def test_forward_and_backward_products_are_transposed(case, rng):
    """⟨cotangent, J·direction⟩ = ⟨Jᵀ·cotangent, direction⟩, to rounding."""
    trunk, params, x = case
    tape = trunk.forward(params, x)
    direction = normal(rng, *params.shape)
    cotangent = normal(rng, len(params), ROWS, WIDTH_OUT)
    left = (cotangent * trunk.jvp(tape, direction)).sum().item()
    right = (trunk.vjp(tape, cotangent) * direction).sum().item()
    assert left == pytest.approx(right, rel=1e-11)


def test_products_can_be_taken_again_from_one_tape(case, rng):
    trunk, params, x = case
    tape = trunk.forward(params, x)
    cotangent = normal(rng, len(params), ROWS, WIDTH_OUT)
    first = trunk.vjp(tape, cotangent)
    trunk.jvp(tape, params)
    trunk.input_vjp(tape, cotangent)
    assert torch.equal(trunk.vjp(tape, cotangent), first)
