"""The compiled objective against the plain one, in every number that training uses."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mgrl_cli.algorithm.fused.objective import (
    fused_losses,
    loss_and_action_gradient,
    mixed_gradient,
    supports,
)
from mgrl_cli.algorithm.fused.sources import is_numba_installed
from mgrl_cli.algorithm.meta_gradient import VirtualStep, meta_gradient
from mgrl_cli.algorithm.objective_network import (
    SIGNAL_INPUTS,
    ObjectiveNetwork,
    ObjectiveShape,
    ObjectiveSignals,
)
from tests.algorithm.problems import meta_setup

pytestmark = [
    pytest.mark.skipif(not is_numba_installed(), reason="needs numba, the extra 'fast'"),
    # The first run on a machine compiles for each dtype; later ones load numba's cache.
    pytest.mark.timeout(600),
]

Case = tuple[ObjectiveNetwork, Tensor, Tensor, Tensor, ObjectiveSignals, Tensor, Tensor]


def _case(
    batch: int, steps: int, dimensions: int, *, dtype: torch.dtype = torch.float64, **shape: Any
) -> Case:
    """Return windows of every length from 1 up, non-uniform weights and a direction u."""
    generator = torch.Generator().manual_seed(batch * 100 + steps)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=dtype)

    network = ObjectiveNetwork(ObjectiveShape(**shape))
    params = network.initialise(np.random.default_rng(1)).to(dtype)
    params = params + 0.1 * normal(len(params))
    lengths = torch.arange(batch) % steps + 1
    is_valid = torch.arange(steps) < lengths[:, None]
    terminated = torch.zeros(batch, steps, dtype=torch.bool)
    terminated[torch.arange(batch), lengths - 1] = torch.arange(batch) % 2 == 0
    signals = ObjectiveSignals(
        normal(batch, steps), 3 * normal(batch, steps), normal(batch, steps), terminated, is_valid
    )
    weights = (normal(batch, steps).square() + 0.1) * is_valid
    size = (batch, steps, dimensions)
    action, chosen = normal(*size).tanh(), normal(*size).tanh()
    return network, params, action, chosen, signals, weights, normal(*size)


def _plain(case: Case) -> tuple[Tensor, ...]:
    network, params, action, chosen, signals, weights, u = case
    alpha, leaf = params.clone().requires_grad_(), chosen.clone().requires_grad_()
    losses = network(alpha, action, leaf, signals)
    (c,) = torch.autograd.grad((weights * losses).sum(), leaf, create_graph=True)
    mixed = torch.autograd.grad((c * u).sum(), (alpha, leaf))
    return losses.detach(), c.detach(), *mixed


def _fused(case: Case) -> tuple[Tensor, ...]:
    losses, c, tape = loss_and_action_gradient(*case[:-1])
    return losses, c, *mixed_gradient(tape, case[-1])


def _assert_same(case: Case, limit: float) -> None:
    for name, fused, plain in zip(
        ("losses", "c", "alpha", "action"), _fused(case), _plain(case), strict=True
    ):
        error = (fused - plain).norm()
        assert error <= limit * plain.norm(), f"{name}: error {error:.1e} of {plain.norm():.1e}"


@pytest.mark.parametrize("size", [(20, 20, 6), (5, 7, 2), (1, 1, 1), (17, 3, 1), (16, 8, 2)])
@pytest.mark.parametrize("padding_first", [False, True])
def test_losses_and_both_derivatives_equal_autograd(
    size: tuple[int, int, int], padding_first: bool
) -> None:
    _assert_same(_case(*size, padding_first=padding_first), 1e-12)


_ABLATIONS: list[dict[str, Any]] = [
    {"without": ("time",)},
    {"without": ("next_value",)},
    {"without": ("value",)},
    {"without": ("time", "next_value", "value")},
    {"normalise": False},
    {"normalise": False, "terminal_value": "mean", "without": ("value",)},
]


@pytest.mark.parametrize("ablation", _ABLATIONS, ids=str)
def test_ablated_losses_and_both_derivatives_equal_autograd(ablation: dict[str, Any]) -> None:
    case = _case(17, 6, 2, **ablation)
    _assert_same(case, 1e-12)
    whole = (ObjectiveNetwork(), *case[1:])
    assert (_fused(case)[0] - _fused(whole)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["time", "next_value", "value"])
def test_an_input_left_out_has_no_gradient(name: Any) -> None:
    case = _case(5, 6, 2, without=(name,))
    gradient = case[0].layout.views(_fused(case)[2])["signal.linear_1.weight"]
    silent = SIGNAL_INPUTS.index(name)
    assert gradient.ne(0).any(dim=1).tolist() == [i != silent for i in range(4)]


def test_fully_valid_windows_and_the_mean_as_terminal_value() -> None:
    case = _case(6, 5, 2, terminal_value="mean", bound=3.0)
    is_valid = torch.ones(6, 5, dtype=torch.bool)
    signals = case[4]._replace(is_valid=is_valid)
    weights = torch.rand(6, 5, dtype=torch.float64)
    _assert_same((*case[:4], signals, weights, case[6]), 1e-12)


@pytest.mark.parametrize("size", [(16, 20, 6), (3, 5, 1)])
def test_float32_is_as_accurate_as_float32_allows(size: tuple[int, int, int]) -> None:
    _assert_same(_case(*size, dtype=torch.float32), 1e-5)


def test_action_hessian_product_equals_a_finite_difference() -> None:
    case = _case(4, 6, 2)
    _, _, tape = loss_and_action_gradient(*case[:-1])
    _, hessian_u = mixed_gradient(tape, case[-1])
    step = 1e-6

    def gradient_at(chosen: Tensor) -> Tensor:
        return loss_and_action_gradient(*case[:3], chosen, *case[4:6])[1]

    forward, backward = case[3] + step * case[-1], case[3] - step * case[-1]
    difference = (gradient_at(forward) - gradient_at(backward)) / (2 * step)
    torch.testing.assert_close(hessian_u, difference, rtol=1e-5, atol=1e-6)


def test_second_run_gives_the_same_bits_and_leaves_live_tapes_alone() -> None:
    case, other = _case(20, 9, 2), _case(20, 9, 2, padding_first=True)
    first = _fused(case)
    _, _, tape = loss_and_action_gradient(*case[:-1])
    _fused(other)
    again = mixed_gradient(tape, case[-1])
    assert all(torch.equal(a, b) for a, b in zip(first, _fused(case), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first[2:], again, strict=True))


def test_tape_does_not_see_later_changes_of_the_objective() -> None:
    case = _case(4, 5, 1)
    expected = _fused(case)[2]
    _, _, tape = loss_and_action_gradient(*case[:-1])
    case[1].zero_()
    assert torch.equal(mixed_gradient(tape, case[-1])[0], expected)


def test_policy_update_gets_the_gradient_of_any_upstream_loss() -> None:
    network, params, action, chosen, signals, weights, _ = _case(5, 6, 3)
    gradients: list[Tensor] = []
    for losses_of in (fused_losses, ObjectiveNetwork.__call__):
        leaf = chosen.clone().requires_grad_()
        losses = losses_of(network, params, action, leaf, signals)
        (weights * losses.square()).sum().backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-11, atol=1e-13)


def test_not_a_number_is_not_hidden() -> None:
    network, params, action, chosen, signals, weights, _ = _case(3, 4, 2)
    chosen[1, 0, 0] = torch.nan
    losses, _, _ = loss_and_action_gradient(network, params, action, chosen, signals, weights)
    assert losses[1, 0].isnan()
    assert losses[0].isfinite().all()


def test_other_widths_are_left_to_the_plain_path() -> None:
    narrow = ObjectiveNetwork(ObjectiveShape(width=16), compiled=True)
    assert not supports(narrow, torch.zeros(narrow.layout.size))
    assert supports(ObjectiveNetwork(compiled=True), torch.zeros(15_497))
    assert not supports(ObjectiveNetwork(), torch.zeros(15_497))


@pytest.mark.parametrize("kind", ["sum", "unit"])
@pytest.mark.parametrize("inner_steps", [1, 2])
def test_meta_gradient_is_the_same_with_and_without_kernels(
    rng: np.random.Generator, inner_steps: int, kind: Any
) -> None:
    setup = meta_setup(rng, VirtualStep(size=1e-3, kind=kind), inner_steps=inner_steps)
    plain = meta_gradient(*setup)
    compiled = replace(setup.problem, objective=ObjectiveNetwork(compiled=True))
    assert supports(compiled.objective, setup.alpha)
    fused = meta_gradient(compiled, *setup[1:])
    torch.testing.assert_close(fused.gradient, plain.gradient, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(fused.virtual_policy, plain.virtual_policy, rtol=1e-11, atol=1e-13)
