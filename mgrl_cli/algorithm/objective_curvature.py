"""All the meta-gradient needs of L_α: derivatives of Σ_valid ℓ_α in action space.

c = ∂Σℓ/∂a at a = π(s);        ∇_α ⟨c, u⟩ and ∇_a ⟨c, u⟩ for a direction u
"""

from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mgrl_cli.algorithm.fused.objective import (
    loss_and_action_gradient,
    mixed_gradient,
    supports,
)
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.algorithm.objectives import PolicyEvidence


@runtime_checkable  # the tests check types at run time
class ObjectiveCurvature(Protocol):
    """c at one batch, and its derivatives along any direction."""

    @property
    def action_gradient(self) -> Float[Tensor, "batch time act"]:
        """c, a constant."""
        ...

    def mixed_gradient(
        self, direction: Float[Tensor, "batch time act"]
    ) -> tuple[Float[Tensor, " param"], Float[Tensor, "batch time act"]]:
        """Return ∇_α ⟨c, u⟩ and ∇_a ⟨c, u⟩; to be called once."""
        ...


@final
class AutogradCurvature:
    """Derivatives by differentiating the plain objective network twice."""

    def __init__(
        self, network: ObjectiveNetwork, params: Float[Tensor, " param"], evidence: PolicyEvidence
    ) -> None:
        windows = evidence.windows
        self._alpha = params.detach().requires_grad_()
        self._action = evidence.policy_action.detach().requires_grad_()
        losses = network(self._alpha, windows.action, self._action, evidence.signals)
        total = torch.where(windows.is_valid, losses, torch.zeros_like(losses)).sum()
        (self._gradient,) = torch.autograd.grad(total, self._action, create_graph=True)

    @property
    def action_gradient(self) -> Float[Tensor, "batch time act"]:
        """C."""
        return self._gradient.detach()

    def mixed_gradient(
        self, direction: Float[Tensor, "batch time act"]
    ) -> tuple[Float[Tensor, " param"], Float[Tensor, "batch time act"]]:
        """Return ∇_α ⟨c, u⟩ and ∇_a ⟨c, u⟩."""
        contraction = torch.sum(self._gradient * direction)
        alpha_part, action_part = torch.autograd.grad(contraction, (self._alpha, self._action))
        return alpha_part, action_part


@final
class FusedCurvature:
    """The same derivatives from compiled kernels."""

    def __init__(
        self, network: ObjectiveNetwork, params: Float[Tensor, " param"], evidence: PolicyEvidence
    ) -> None:
        windows = evidence.windows
        _, self._gradient, self._tape = loss_and_action_gradient(
            network,
            params,
            windows.action,
            evidence.policy_action,
            evidence.signals,
            windows.is_valid.to(params.dtype),
        )

    @property
    def action_gradient(self) -> Float[Tensor, "batch time act"]:
        """C."""
        return self._gradient

    def mixed_gradient(
        self, direction: Float[Tensor, "batch time act"]
    ) -> tuple[Float[Tensor, " param"], Float[Tensor, "batch time act"]]:
        """Return ∇_α ⟨c, u⟩ and ∇_a ⟨c, u⟩."""
        return mixed_gradient(self._tape, direction)


def objective_curvature(
    network: ObjectiveNetwork, params: Float[Tensor, " param"], evidence: PolicyEvidence
) -> ObjectiveCurvature:
    """Return the derivatives of Σ_valid ℓ_α on the evidence."""
    if supports(network, params):
        return FusedCurvature(network, params, evidence)
    return AutogradCurvature(network, params, evidence)
