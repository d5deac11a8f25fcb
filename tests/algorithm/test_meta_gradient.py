"""The meta-gradient against finite differences, gradcheck and the plain double backward."""

import numpy as np
import pytest
import torch

from mgrl_cli.algorithm.batches import WindowTensors
from mgrl_cli.algorithm.meta_gradient import (
    SHORTEST_UNIT_GRADIENT,
    VirtualStep,
    clipped,
    meta_gradient,
    meta_gradient_by_double_backward,
    unit,
)
from mgrl_cli.algorithm.objective_network import ObjectiveShape, ObjectiveSignals
from tests.algorithm import oracles
from tests.algorithm.problems import (
    LENGTHS,
    Setup,
    as_arrays,
    meta_setup,
    normal,
    relative_error,
)

# torch scripts its forward-mode formulas at first use and warns that it will stop doing so.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")

VIRTUAL_STEPS = {
    "sum": VirtualStep(size=3e-4, kind="sum"),
    "unit": VirtualStep(size=0.1, kind="unit"),
}
each_kind = pytest.mark.parametrize("kind", ["sum", "unit"])
each_number_of_steps = pytest.mark.parametrize("inner_steps", [1, 2, 3])


def setup_of(rng, kind, inner_steps=1, **kwargs) -> Setup:
    return meta_setup(rng, VIRTUAL_STEPS[kind], inner_steps=inner_steps, **kwargs)


class Trajectory:
    """J(α) from the definition: virtual steps by first-order autograd, with values held fixed.

    The values V_t are constants of the objective although φ_k depends on α, so what the
    meta-gradient means is the derivative of J with the values of the unperturbed run.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._signals: list[ObjectiveSignals] = []
        self.evaluate(setup.alpha)

    def _signals_at(self, k: int, phi: torch.Tensor, windows: WindowTensors) -> ObjectiveSignals:
        if k == len(self._signals):  # the unperturbed run
            problem = self._setup.problem
            actions = problem.policy(phi, windows.obs)
            values = problem.critic.first(problem.critic_params, windows.obs, actions).detach()
            self._signals.append(
                ObjectiveSignals(
                    windows.reward, values[:, :-1], values[:, 1:], windows.terminated,
                    windows.is_valid,
                )
            )  # fmt: skip
        return self._signals[k]

    def evaluate(self, alpha: torch.Tensor) -> float:
        """Return J at `alpha`."""
        problem, phi = self._setup.problem, self._setup.phi.clone()
        for k, windows in enumerate(self._setup.batches[1:]):
            phi.requires_grad_()
            actions = problem.policy(phi, windows.obs[:, :-1])
            signals = self._signals_at(k, phi, windows)
            losses = problem.objective(alpha, windows.action, actions, signals)
            (g,) = torch.autograd.grad(losses[windows.is_valid].sum(), phi)
            step = g / g.norm() if problem.virtual_step.kind == "unit" else g
            phi = phi.detach() - problem.virtual_step.size * step
        self.final_policy = phi
        q = [
            problem.critic.first(problem.critic_params, obs, problem.policy(phi, obs))
            for obs in (windows.obs[:, :-1][windows.is_valid] for windows in self._setup.batches)
        ]
        return -torch.cat(q).mean().item()


@each_kind
@each_number_of_steps
def test_central_differences_at_full_size_agree(rng, kind, inner_steps):
    setup = setup_of(rng, kind, inner_steps)
    assert setup.alpha.numel() == 15_497
    trajectory = Trajectory(setup)
    result = meta_gradient(setup.problem, setup.alpha, setup.phi, setup.batches)
    torch.testing.assert_close(result.virtual_policy, trajectory.final_policy)
    # Steps this short stay on one side of the kinks of ReLU; longer ones do not.
    step = 1e-8
    for _ in range(3):
        direction = normal(rng, 15_497)
        forward = trajectory.evaluate(setup.alpha + step * direction)
        backward = trajectory.evaluate(setup.alpha - step * direction)
        slope = torch.dot(result.gradient, direction).item()
        assert (forward - backward) / (2 * step) == pytest.approx(slope, rel=1e-5)


class MetaLoss(torch.autograd.Function):
    """J(α) by its definition, with a given gradient as its derivative."""

    @staticmethod
    def forward(ctx, alpha, trajectory, gradient):
        ctx.gradient = gradient
        with torch.enable_grad():  # torch switches it off in here
            return alpha.new_tensor(trajectory.evaluate(alpha))

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output * ctx.gradient, None, None


@each_kind
@pytest.mark.parametrize("inner_steps", [1, 2])
def test_gradcheck_of_a_shrunken_objective(rng, kind, inner_steps):
    """By torch's own numerical differentiation: one number of every tensor, and all together."""
    shape = ObjectiveShape(width=4, signal_features=2)
    setup = setup_of(rng, kind, inner_steps, shape=shape, hidden=4)
    # One window of a single step, one of three; `obs` has a time index more.
    small = [
        WindowTensors(windows.obs[1:3, :4], *(tensor[1:3, :3] for tensor in windows[1:-1]))
        for windows in setup.batches
    ]
    setup = setup._replace(batches=small)
    trajectory = Trajectory(setup)
    gradient = meta_gradient(setup.problem, setup.alpha, setup.phi, small).gradient

    def meta_loss(alpha):
        return MetaLoss.apply(alpha, trajectory, gradient)

    layout = setup.problem.objective.layout
    sizes = [view.numel() for view in layout.views(setup.alpha).values()]
    ends = np.cumsum(sizes)
    chosen = torch.from_numpy(rng.integers(ends - sizes, ends))

    def meta_loss_of_chosen(values):
        return meta_loss(setup.alpha.index_copy(0, chosen, values))

    tolerances = {"eps": 1e-7, "atol": 1e-6, "rtol": 1e-4}
    values = setup.alpha[chosen].requires_grad_()
    assert torch.autograd.gradcheck(meta_loss_of_chosen, values, **tolerances)
    alpha = setup.alpha.clone().requires_grad_()
    assert torch.autograd.gradcheck(meta_loss, alpha, fast_mode=True, **tolerances)


@each_kind
@each_number_of_steps
def test_the_contraction_equals_the_double_backward(rng, kind, inner_steps):
    setup = setup_of(rng, kind, inner_steps)
    arguments = (setup.problem, setup.alpha, setup.phi, setup.batches)
    contracted = meta_gradient(*arguments)
    plain = meta_gradient_by_double_backward(*arguments)
    assert plain.gradient.norm() > 1e-6
    assert relative_error(contracted.gradient, plain.gradient) <= 1e-10
    assert relative_error(contracted.virtual_policy, plain.virtual_policy) <= 1e-10
    assert relative_error(contracted.inner_gradient, plain.inner_gradient) <= 1e-10
    assert contracted.inner_gradient_norm == pytest.approx(plain.inner_gradient_norm)


@pytest.mark.parametrize("terminal_value", ["zero", "mean"])
@pytest.mark.parametrize("padding_first", [False, True])
def test_the_contraction_holds_for_every_objective_variant(rng, terminal_value, padding_first):
    shape = ObjectiveShape(
        width=8, signal_features=3, terminal_value=terminal_value, padding_first=padding_first
    )
    setup = setup_of(rng, "unit", 2, shape=shape)
    arguments = (setup.problem, setup.alpha, setup.phi, setup.batches)
    plain = meta_gradient_by_double_backward(*arguments).gradient
    assert relative_error(meta_gradient(*arguments).gradient, plain) <= 1e-10


@pytest.mark.parametrize(
    "ablation", [{"without": ("time",)}, {"without": ("next_value", "value")}, {"normalise": False}]
)
def test_the_contraction_holds_for_ablated_objectives(rng, ablation):
    shape = ObjectiveShape(width=8, signal_features=3, **ablation)
    setup = setup_of(rng, "unit", 1, shape=shape)
    arguments = (setup.problem, setup.alpha, setup.phi, setup.batches)
    plain = meta_gradient_by_double_backward(*arguments).gradient
    assert relative_error(meta_gradient(*arguments).gradient, plain) <= 1e-10


@each_kind
@pytest.mark.parametrize("inner_steps", [1, 3])
def test_the_contraction_holds_without_layer_norm(rng, kind, inner_steps):
    setup = setup_of(rng, kind, inner_steps, layer_norm=False)
    arguments = (setup.problem, setup.alpha, setup.phi, setup.batches)
    plain = meta_gradient_by_double_backward(*arguments).gradient
    assert plain.norm() > 1e-6
    assert relative_error(meta_gradient(*arguments).gradient, plain) <= 1e-10


@each_kind
@each_number_of_steps
def test_float32_agrees_with_float64(rng, kind, inner_steps):
    setup = setup_of(rng, kind, inner_steps)
    exact = meta_gradient(setup.problem, setup.alpha, setup.phi, setup.batches)
    problem = type(setup.problem)(
        policy=setup.problem.policy,
        critic=setup.problem.critic,
        objective=setup.problem.objective,
        critic_params=setup.problem.critic_params.float(),
        virtual_step=setup.problem.virtual_step,
    )
    batches = [
        WindowTensors(*(x.float() if x.is_floating_point() else x for x in windows[:-1]))
        for windows in setup.batches
    ]
    single = meta_gradient(problem, setup.alpha.float(), setup.phi.float(), batches)
    assert single.gradient.dtype == torch.float32
    assert relative_error(single.gradient.double(), exact.gradient) < 1e-4


@each_kind
def test_padding_does_not_matter(rng, kind):
    setup = setup_of(rng, kind, 2)
    elsewhere = []
    for windows in setup.batches:
        is_padding = ~windows.is_valid
        obs = windows.obs.clone()
        obs[:, 1:][is_padding] = 30.0
        elsewhere.append(
            windows._replace(
                obs=obs,
                action=torch.where(is_padding[..., None], -0.4, windows.action),
                reward=torch.where(is_padding, 1e4, windows.reward),
                terminated=windows.terminated | is_padding,
            )
        )
    before = meta_gradient(setup.problem, setup.alpha, setup.phi, setup.batches)
    after = meta_gradient(setup.problem, setup.alpha, setup.phi, elsewhere)
    assert relative_error(after.gradient, before.gradient) < 1e-12
    assert relative_error(after.virtual_policy, before.virtual_policy) < 1e-12


@each_kind
def test_scale_and_offset_of_rewards_do_not_matter(rng, kind):
    setup = setup_of(rng, kind)
    moved = [w._replace(reward=50 * w.reward - 20) for w in setup.batches]
    before = meta_gradient(setup.problem, setup.alpha, setup.phi, setup.batches).gradient
    after = meta_gradient(setup.problem, setup.alpha, setup.phi, moved).gradient
    assert relative_error(after, before) < 1e-6


def test_only_the_critic_looks_at_the_first_batch(rng):
    """Its rewards and actions do not matter; its states do."""
    setup = setup_of(rng, "sum")
    extra, inner = setup.batches
    before = meta_gradient(setup.problem, setup.alpha, setup.phi, setup.batches).gradient
    other = extra._replace(reward=extra.reward + 1, action=-extra.action)
    same = meta_gradient(setup.problem, setup.alpha, setup.phi, [other, inner]).gradient
    assert torch.equal(same, before)
    moved = extra._replace(obs=extra.obs + 1)
    different = meta_gradient(setup.problem, setup.alpha, setup.phi, [moved, inner]).gradient
    assert relative_error(different, before) > 1e-3


def test_the_meta_loss_is_minus_the_mean_value_over_all_batches(rng):
    setup = setup_of(rng, "sum", 2)
    expected = oracles.meta_loss(
        as_arrays(setup.problem.policy.layout, setup.phi),
        as_arrays(setup.problem.critic.layout, setup.problem.critic_params[0]),
        torch.cat([windows.obs for windows in setup.batches]).numpy(),
        3 * LENGTHS,
    )
    got = setup.problem.meta_loss(setup.phi, setup.batches).item()
    assert got == pytest.approx(expected, rel=1e-12)


@each_kind
def test_descending_the_meta_gradient_makes_the_trained_policy_better(rng, kind):
    setup = setup_of(rng, kind)
    trajectory = Trajectory(setup)
    gradient = meta_gradient(setup.problem, setup.alpha, setup.phi, setup.batches).gradient
    before = trajectory.evaluate(setup.alpha)
    assert trajectory.evaluate(setup.alpha - 1e-4 * unit(gradient)) < before


@each_kind
def test_the_virtual_step_has_the_stated_length(rng, kind):
    setup = setup_of(rng, kind)
    result = meta_gradient(setup.problem, setup.alpha, setup.phi, setup.batches)
    # sum: η ‖g‖;  unit: η whatever ‖g‖
    norm = result.inner_gradient_norm if kind == "sum" else 1.0
    length = (result.virtual_policy - setup.phi).norm().item()
    assert length == pytest.approx(VIRTUAL_STEPS[kind].size * norm, rel=1e-9)


def test_the_unit_step_does_not_depend_on_the_scale_of_the_objective(rng):
    """A steeper objective gives the same virtual policy: what is left to learn is direction."""
    setup = setup_of(rng, "unit")
    steeper = setup.alpha.clone()
    setup.problem.objective.layout.views(steeper)["head.output.weight"].mul_(3.0)
    one, three = (
        meta_gradient(setup.problem, alpha, setup.phi, setup.batches)
        for alpha in (setup.alpha, steeper)
    )
    # Not exactly: tanh bounds the losses at ±1000.
    assert three.inner_gradient_norm > 2.9 * one.inner_gradient_norm
    torch.testing.assert_close(three.virtual_policy, one.virtual_policy, rtol=1e-3, atol=1e-4)


def test_an_objective_that_asks_for_nothing_can_still_learn(rng):
    """Zero last layer: the inner gradient is zero, and a step of unit length would not exist."""
    setup = setup_of(rng, "unit")
    setup.problem.objective.layout.views(setup.alpha)["head.output.weight"].zero_()
    arguments = (setup.problem, setup.alpha, setup.phi, setup.batches)
    result = meta_gradient(*arguments)
    assert result.inner_gradient_norm == 0
    assert torch.equal(result.virtual_policy, setup.phi)
    assert torch.isfinite(result.gradient).all()
    assert result.gradient.norm() > 1e-3
    plain = meta_gradient_by_double_backward(*arguments).gradient
    assert relative_error(result.gradient, plain) <= 1e-10


@pytest.mark.parametrize("length", [5.0, 0.1 * SHORTEST_UNIT_GRADIENT])
def test_the_scaled_step_and_its_transposed_derivative_agree(rng, length):
    problem = setup_of(rng, "unit").problem
    gradient = (length * unit(normal(rng, 7))).requires_grad_()
    v = normal(rng, 7)
    (expected,) = torch.autograd.grad(problem.scaled(gradient), gradient, grad_outputs=v)
    torch.testing.assert_close(problem.scaled_vjp(gradient.detach(), v), expected)


def test_inputs_are_left_alone(rng):
    setup = setup_of(rng, "unit", 2)
    kept = (setup.alpha.clone(), setup.phi.clone(), setup.problem.critic_params.clone())
    meta_gradient(setup.problem, setup.alpha, setup.phi, setup.batches)
    now = (setup.alpha, setup.phi, setup.problem.critic_params)
    assert all(torch.equal(*pair) for pair in zip(now, kept, strict=True))
    assert not any(tensor.requires_grad for tensor in now)


def test_clipping_of_worked_numbers():
    # ‖(3, 4)‖ = 5: down to norm 1 it is (0.6, 0.8); below a limit of 10 it stays
    gradient = torch.tensor([3.0, 4.0])
    assert clipped(gradient, limit=1.0).tolist() == pytest.approx([0.6, 0.8])
    assert clipped(gradient, limit=10.0).tolist() == [3.0, 4.0]
    assert clipped(torch.zeros(2), limit=1.0).tolist() == [0.0, 0.0]


def test_unit_norm_of_worked_numbers():
    assert unit(torch.tensor([3.0, 4.0])).tolist() == pytest.approx([0.6, 0.8])
    assert unit(torch.tensor([0.0, -1e-10])).tolist() == pytest.approx([0.0, -1.0])
    assert unit(torch.zeros(2)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_not_finite_stays_visible(poison):
    """Clipping must not launder it: the caller skips the update."""
    gradient = torch.tensor([1.0, poison])
    assert not torch.isfinite(clipped(gradient, limit=1.0)).all()
    assert not torch.isfinite(unit(gradient)).all()
