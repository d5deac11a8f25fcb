"""Adam on a flat vector, against torch's optimiser and a step worked by hand."""

import pytest
import torch

from mgrl_cli.algorithm.adam import Adam, is_finite_squared


def test_the_first_step_is_the_learning_rate_against_the_sign():
    # m = 0.1 g, v = 0.001 g²; both corrected are g and g², so the step is 0.5 · g / (|g| + ε).
    adam = Adam(torch.tensor([1.0, 1.0]), 0.5)
    adam.descend(torch.tensor([4.0, -0.25]))
    assert adam.params.tolist() == pytest.approx([0.5, 1.5], rel=1e-6)
    assert adam.first_moment.tolist() == pytest.approx([0.4, -0.025])
    assert adam.second_moment.tolist() == pytest.approx([0.016, 0.0000625])
    assert adam.steps.item() == 1


def test_many_steps_are_those_of_torchs_optimiser(rng):
    start = torch.from_numpy(rng.standard_normal(300).astype("float32"))
    ours, theirs = Adam(start.clone(), 3e-3), start.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=3e-3, betas=(0.9, 0.999), eps=1e-8, fused=True)
    for _ in range(20):
        gradient = torch.from_numpy(rng.standard_normal(300).astype("float32"))
        ours.descend(gradient)
        theirs.grad = gradient
        optimizer.step()
    assert torch.equal(ours.params, theirs.detach())
    state = optimizer.state[theirs]
    assert torch.equal(ours.second_moment, state["exp_avg_sq"])
    assert torch.equal(ours.steps, state["step"])


@pytest.mark.parametrize(
    ("value", "is_fine"), [(1e18, True), (1e20, False), (torch.inf, False), (torch.nan, False)]
)
def test_a_gradient_whose_square_overflows_may_not_enter(value, is_fine):
    assert is_finite_squared(torch.tensor([0.0, value])) is is_fine


def test_a_factor_scales_the_step_and_not_the_moments(rng):
    start = torch.from_numpy(rng.standard_normal(50).astype("float32"))
    quarter, other = Adam(start.clone(), 0.5), Adam(start.clone(), 0.125)
    for _ in range(3):
        gradient = torch.from_numpy(rng.standard_normal(50).astype("float32"))
        quarter.descend(gradient, 0.25)
        other.descend(gradient)
    assert torch.equal(quarter.params, other.params)
    assert torch.equal(quarter.second_moment, other.second_moment)
    before = quarter.params.clone()
    quarter.descend(gradient, 0.0)
    assert torch.equal(quarter.params, before)
    assert quarter.steps.item() == 4
