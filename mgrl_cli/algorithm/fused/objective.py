"""The learned objective and its second derivatives as compiled CPU kernels, without autograd.

The plain `ObjectiveNetwork` dispatches thousands of tiny torch operations for one meta-gradient.
Here the same numbers come from four compiled passes over packed tiles (`passes`), one
thread, float32 or float64. numba, the extra "fast", is imported at the first use; where it is
missing or `supports` says no, the plain path stays. This module knows nothing of policies.

With L(a) = Σ w ℓ(a), the first passes give ℓ and c = ∂L/∂a. The mixed gradient ∇⟨c, u⟩ in α and in
a is the derivative of ∇L along u; one tangent of the forward pass and one of the reverse pass give
it (Pearlmutter 1994, https://doi.org/10.1162/neco.1994.6.1.147).
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from mgrl_cli.algorithm.fused.memory import array_of
from mgrl_cli.algorithm.fused.sources import digest_of, is_numba_installed
from mgrl_cli.algorithm.fused.tape import Batch, Tape
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork, ObjectiveSignals

if TYPE_CHECKING:
    from mgrl_cli.algorithm.fused.passes import Passes

_Array = npt.NDArray[Any]
_WIDTH, _SIGNALS = 32, 8
_KERNELS = ("action", "head", "kernels", "layers", "layout", "lstm", "packing", "passes")
SOURCES = (
    "objective_network.py",
    "parameters.py",
    *(f"fused/{name}.py" for name in (*_KERNELS, "scalar_math", "signals", "vectors")),
)
"""What the kernels are made of: their own modules and where they take constants from."""


def supports(network: ObjectiveNetwork, params: Tensor) -> bool:
    """Return whether the kernels compute this network.

    It asks for them, has the default widths, and its parameters are float32 or 64 on a CPU.
    """
    shape = network.shape
    return (
        network.compiled
        and is_numba_installed()
        and (shape.width, shape.signal_features) == (_WIDTH, _SIGNALS)
        and params.device.type == "cpu"
        and params.dtype in (torch.float32, torch.float64)
    )


@cache
def passes() -> "Passes":
    """Return the compiled passes; needs numba."""
    from mgrl_cli.algorithm.fused.passes import compile_passes

    return compile_passes(digest_of(*SOURCES))


def _forward(
    network: ObjectiveNetwork,
    params: Tensor,
    action: Tensor,
    policy_action: Tensor,
    signals: ObjectiveSignals,
) -> tuple[Tensor, Tape]:
    """Return the losses and the tape of the forward pass."""
    batch = Batch(
        array_of(action),
        array_of(policy_action),
        array_of(signals.reward),
        array_of(signals.value),
        array_of(signals.next_value),
        array_of(signals.terminated),
        array_of(signals.is_valid),
    )
    alpha = params.detach().numpy()
    tape = Tape(network.shape, (*batch.policy_action.shape, alpha.dtype))
    tape.buffers.params[...] = alpha
    losses = np.empty(batch.reward.shape, alpha.dtype)
    passes().forward(tape.buffers.params, tape.options, batch, tape.buffers, losses)
    return torch.from_numpy(losses), tape


def _adjoint(tape: Tape, weights: Tensor) -> Tensor:
    """Return c = ∂(Σ weights · ℓ)/∂policy_action; the tape keeps the adjoints."""
    *shape, dtype = tape.key
    c = np.empty(shape, dtype)
    passes().adjoint(tape.buffers.params, tape.buffers, array_of(weights), c)
    return torch.from_numpy(c)


def loss_and_action_gradient(
    network: ObjectiveNetwork,
    params: Float[Tensor, " param"],
    action: Float[Tensor, "batch time act"],
    policy_action: Float[Tensor, "batch time act"],
    signals: ObjectiveSignals,
    weights: Float[Tensor, "batch time"],
) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time act"], Tape]:
    """Return ℓ, c = ∂(Σ weights · ℓ)/∂policy_action and the tape for `mixed_gradient`.

    Args:
        network: which objective; `supports` must hold.
        params: α.
        action: replayed actions.
        policy_action: π(s).
        signals: as for the network itself.
        weights: `is_valid` as numbers for the sum that a virtual step descends.
    """
    losses, tape = _forward(network, params, action, policy_action, signals)
    return losses, _adjoint(tape, weights), tape


def mixed_gradient(
    tape: Tape, u: Float[Tensor, "batch time act"]
) -> tuple[Float[Tensor, " param"], Float[Tensor, "batch time act"]]:
    """Return ∇_α ⟨c, u⟩ and ∇_a ⟨c, u⟩, where c is what the tape's evaluation returned.

    May be called again with another u; the tape's α, actions and weights do not change.
    """
    gradient, action_part = mixed(tape, array_of(u))
    return torch.from_numpy(gradient), torch.from_numpy(action_part)


def mixed(tape: Tape, u: _Array) -> tuple[_Array, _Array]:
    """Return what `mixed_gradient` does, as arrays."""
    *shape, dtype = tape.key
    buffers, action_part = tape.buffers, np.empty(shape, dtype)
    passes().tangent(buffers.params, tape.options, buffers, u)
    passes().mixed(buffers.params, buffers, buffers.gradient, action_part)
    return buffers.gradient.copy(), action_part


def pass_loads(network: ObjectiveNetwork) -> list[Callable[[], None]]:
    """Return one function per float32 kernel that compiles it or loads it from numba's cache.

    Empty where they are not supported. What takes longest comes first: a quarter of a minute.
    """
    if not supports(network, torch.empty(0)):
        return []
    tape = Tape(network.shape, (1, 2, 1, np.dtype(np.float32)))
    params, action = tape.buffers.params, np.zeros((1, 2, 1), np.float32)
    steps = action[:, :, 0].copy()
    is_valid = steps == 0
    batch = Batch(action, action, steps, steps, steps, is_valid, is_valid)
    return [
        lambda: passes().mixed(params, tape.buffers, tape.buffers.gradient, action),
        lambda: passes().forward(params, tape.options, batch, tape.buffers, steps),
        lambda: passes().tangent(params, tape.options, tape.buffers, action),
        lambda: passes().adjoint(params, tape.buffers, steps, action),
    ]


class _FusedLosses(torch.autograd.Function):
    """ℓ as a function of the policy's actions, differentiable once."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Tensor:
        """Evaluate (policy_action, network, params, action, signals) and keep the tape."""
        policy_action, network, params, action, signals = args
        losses, ctx.tape = _forward(network, params, action, policy_action, signals)
        return losses

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401
        *grad_outputs: Any,  # noqa: ANN401
    ) -> tuple[Tensor | None, ...]:
        """Return the gradient in the policy's actions."""
        return _adjoint(ctx.tape, grad_outputs[0]), None, None, None, None


def fused_losses(
    network: ObjectiveNetwork,
    params: Float[Tensor, " param"],
    action: Float[Tensor, "batch time act"],
    policy_action: Float[Tensor, "batch time act"],
    signals: ObjectiveSignals,
) -> Float[Tensor, "batch time"]:
    """Return ℓ, differentiable once and in `policy_action` only (a real policy update)."""
    losses = _FusedLosses.apply(policy_action, network, params, action, signals)
    return cast(Tensor, losses)
