"""How many floating-point operations an agent-step must make, and how many a core can make.

Counted are the matrix products only, two operations per multiply-add, as a formula of the sizes.
The networks' share is what torch computes for them; ours leaves out one per cent of an agent-step:
the critic's slope in the observation, and derivatives at the windows' last observations. The
objective's is what ours computes, and nothing that it computes twice; torch's double backward
computes a few per cent more (columns of zeros). `tests/benchmarks/test_flops.py` holds the formulas
to torch's counter.
"""

import time
from typing import NamedTuple, final

import torch

from benchmarks.problems import ACT_SIZE, OBS_SIZE, Size

_WIDTH, _SIGNAL_INPUTS, _SIGNAL_FEATURES = 32, 4, 8
_MATRIX_SIZES = (384, 768, 1536)


@final
class Trunk(NamedTuple):
    """Operations per row of one network x → hidden → hidden → output."""

    inputs: int
    hidden: int
    outputs: int

    @property
    def forward(self) -> int:
        """The outputs."""
        return 2 * (self.inputs * self.hidden + self._above)

    @property
    def parameter_gradient(self) -> int:
        """A product with every layer's inputs, and the way back to the first layer's outputs."""
        return self.forward + 2 * self._above

    @property
    def input_gradient(self) -> int:
        """The way back to the inputs."""
        return self.forward

    @property
    def parameter_tangent(self) -> int:
        """The outputs' change along a change of all parameters."""
        return self.forward + 2 * self._above

    @property
    def _above(self) -> int:
        return self.hidden * self.hidden + self.hidden * self.outputs


@final
class Objective(NamedTuple):
    """Operations per step of a window of the learned objective, for some action dimensions."""

    forward: int
    adjoint: int
    """From losses to the policy's actions."""
    mixed: int
    """From a change of the actions to the gradient in α of the adjoint along it."""


def objective_flop(act_size: int) -> Objective:
    """Return the operations of one valid step."""
    square, gates = _WIDTH * _WIDTH, 4 * _WIDTH
    column = act_size * _WIDTH  # of the action network's first layer: replayed action or policy's
    action = act_size * 2 * square
    signal_inputs = _SIGNAL_INPUTS * _WIDTH
    signal = square + _WIDTH * _SIGNAL_FEATURES
    from_action, from_signal, from_state = _WIDTH * gates, _SIGNAL_FEATURES * gates, _WIDTH * gates
    head = 2 * square + _WIDTH
    # Whatever depends on the policy's action: through it adjoints and tangents go.
    path = column + action + from_action + from_state + head
    rest = column + signal_inputs + signal + from_signal
    second_adjoint = path + signal + from_signal
    # ∂⟨c, u⟩/∂W has two terms where both inputs and outputs of W vary with u, else one.
    weight_gradients = 2 * path + rest
    return Objective(
        forward=2 * (path + rest),
        adjoint=2 * path,
        mixed=2 * (path + second_adjoint + weight_gradients),
    )


@final
class StepFlop(NamedTuple):
    """Operations of the parts of an agent-step, each made once."""

    critic_update: int
    policy_update: int
    meta_gradient: int
    objective_of_policy_update: int
    """Share of the objective in `policy_update`."""
    objective_of_meta_gradient: int
    """Share of the objective in `meta_gradient`."""

    @property
    def agent_step(self) -> float:
        """One critic update with every second one's policy update and meta-gradient."""
        return self.critic_update + (self.policy_update + self.meta_gradient) / 2

    @property
    def objective_share(self) -> float:
        """The objective's share in an agent-step."""
        objective = self.objective_of_policy_update + self.objective_of_meta_gradient
        return objective / 2 / self.agent_step


def step_flop(size: Size) -> StepFlop:
    """Return the operations of one agent; one virtual step, as many transitions as window steps."""
    policy = Trunk(OBS_SIZE, size.hidden, ACT_SIZE)
    critic = Trunk(OBS_SIZE + ACT_SIZE, size.hidden, 1)
    objective = objective_flop(ACT_SIZE)
    steps = size.batch * size.steps
    observations = size.batch * (size.steps + 1)
    both = 2 * steps  # the critic judges the virtual policy on both batches
    in_policy_update = steps * (objective.forward + objective.adjoint)
    in_meta_gradient = in_policy_update + steps * objective.mixed
    descent = observations * (policy.forward + critic.forward + policy.parameter_gradient)
    judgement = both * (
        policy.forward + critic.forward + critic.input_gradient + policy.parameter_gradient
    )
    return StepFlop(
        critic_update=steps
        * (policy.forward + 2 * (2 * critic.forward + critic.parameter_gradient)),
        policy_update=descent + in_policy_update,
        meta_gradient=descent
        + observations * policy.parameter_tangent
        + judgement
        + in_meta_gradient,
        objective_of_policy_update=in_policy_update,
        objective_of_meta_gradient=in_meta_gradient,
    )


@final
class MatrixProduct:
    """A float32 product of two square matrices: what a core can do at best."""

    def __init__(self, size: int) -> None:
        self.flop = 2 * size**3
        self._a, self._b = torch.rand(2, size, size)
        self._out = torch.empty(size, size)

    def __call__(self) -> None:
        """Multiply."""
        torch.mm(self._a, self._b, out=self._out)


def fastest_matrix_product() -> MatrixProduct:
    """Return the product with the highest rate on one core, among some sizes."""
    products = [MatrixProduct(size) for size in _MATRIX_SIZES]
    return max(products, key=_rate)


def _rate(product: MatrixProduct) -> float:
    """Return operations per second, at best."""
    product()
    best_s = float("inf")
    for _ in range(5):
        began_s = time.perf_counter()
        product()
        best_s = min(best_s, time.perf_counter() - began_s)
    return product.flop / best_s
