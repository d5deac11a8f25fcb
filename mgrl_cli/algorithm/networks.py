"""Policy π_φ and twin critic Q_θ as pure functions of flat parameter vectors.

Each comes in two forms with the same values: calls that autograd differentiates to any order, and
`forward` with the first derivatives written out (see `trunk`), which is what training runs.
"""

from typing import Any, NamedTuple, cast, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from mgrl_cli.algorithm.parameters import Initialisation
from mgrl_cli.algorithm.trunk import Trunk, TrunkTape


class PolicyTape(NamedTuple):
    """A policy's forward pass, kept for its derivatives."""

    action: Float[Tensor, "rows act"]
    pre_activation: Float[Tensor, "rows act"]
    trunk: TrunkTape


class CriticTape(NamedTuple):
    """A critic's forward pass, kept for its derivatives."""

    q: Float[Tensor, "net rows"]
    trunk: TrunkTape


@final
class PolicyNetwork:
    """Deterministic policy π_φ(s) = tanh(z_φ(s)), actions in [-1, 1]."""

    def __init__(
        self,
        obs_size: int,
        act_size: int,
        hidden: int,
        *,
        layer_norm: bool = True,
        compiled: bool = False,
    ) -> None:
        """Lay out the network; see `Trunk` for the arguments."""
        self.act_size = act_size
        self._trunk = Trunk(obs_size, hidden, act_size, layer_norm=layer_norm, compiled=compiled)
        self.layout = self._trunk.layout

    def initialise(
        self,
        rng: np.random.Generator,
        *,
        initialisation: Initialisation = "glorot",
        last_layer_scale: float = 1.0,
    ) -> Float[Tensor, " param"]:
        """Return fresh φ; `last_layer_scale` multiplies the output weights (1: as drawn)."""
        params = self.layout.initialise(rng, initialisation)
        self.layout.views(params)["output.weight"].mul_(last_layer_scale)
        return params

    def pre_activation(
        self, params: Float[Tensor, " param"], obs: Float[Tensor, "*lead obs"]
    ) -> Float[Tensor, "*lead act"]:
        """Return z_φ(s), the outputs before tanh."""
        rows = obs.reshape(-1, obs.shape[-1])
        return self._trunk(params.unsqueeze(0), rows).view(*obs.shape[:-1], self.act_size)

    def __call__(
        self, params: Float[Tensor, " param"], obs: Float[Tensor, "*lead obs"]
    ) -> Float[Tensor, "*lead act"]:
        """Return the actions π_φ(s)."""
        return torch.tanh(self.pre_activation(params, obs))

    def forward(
        self, params: Float[Tensor, " param"], obs: Float[Tensor, "rows obs"]
    ) -> PolicyTape:
        """Return the actions with what their derivatives need."""
        tape = self._trunk.forward(params.unsqueeze(0), obs)
        pre_activation = tape.output.squeeze(0)
        return PolicyTape(torch.tanh(pre_activation), pre_activation, tape)

    def vjp(
        self,
        tape: PolicyTape,
        action_cotangent: Float[Tensor, "rows act"],
        pre_activation_cotangent: Float[Tensor, "rows act"] | None = None,
    ) -> Float[Tensor, " param"]:
        """Return ∂⟨action_cotangent, π⟩/∂φ, plus the same for z where a cotangent of z is given."""
        cotangent = action_cotangent * (1.0 - tape.action.square())
        if pre_activation_cotangent is not None:
            cotangent = cotangent + pre_activation_cotangent
        return tape.trunk.vjp(cotangent.unsqueeze(0)).squeeze(0)

    def jvp(
        self, tape: PolicyTape, direction: Float[Tensor, " param"]
    ) -> Float[Tensor, "rows act"]:
        """Return (∂π/∂φ) · direction at every row."""
        tangent = tape.trunk.jvp(direction.unsqueeze(0)).squeeze(0)
        return tangent * (1.0 - tape.action.square())


@final
class CriticNetwork:
    """Action-value Q_θ(s, a). Twin critics are two vectors stacked: θ has shape [2, param]."""

    def __init__(
        self,
        obs_size: int,
        act_size: int,
        hidden: int,
        *,
        layer_norm: bool = True,
        compiled: bool = False,
    ) -> None:
        """Lay out the network; see `Trunk` for the arguments."""
        self._act_size = act_size
        self._trunk = Trunk(
            obs_size + act_size, hidden, 1, layer_norm=layer_norm, compiled=compiled
        )
        self.layout = self._trunk.layout

    def initialise_twins(
        self, rng: np.random.Generator, initialisation: Initialisation = "glorot"
    ) -> Float[Tensor, "2 param"]:
        """Return fresh, different parameters θ1, θ2."""
        return torch.stack([self.layout.initialise(rng, initialisation) for _ in range(2)])

    def twins(
        self,
        params: Float[Tensor, "2 param"],
        obs: Float[Tensor, "rows obs"],
        action: Float[Tensor, "rows act"],
    ) -> Float[Tensor, "2 rows"]:
        """Return Q_θ1(s, a) and Q_θ2(s, a)."""
        return self._trunk(params, torch.cat([obs, action], dim=-1)).squeeze(-1)

    def first(
        self,
        params: Float[Tensor, "2 param"],
        obs: Float[Tensor, "*lead obs"],
        action: Float[Tensor, "*lead act"],
    ) -> Float[Tensor, "*lead"]:
        """Return Q_θ1(s, a), the critic that policies and objectives see."""
        pairs = torch.cat([obs, action], dim=-1)
        rows = pairs.reshape(-1, pairs.shape[-1])
        return self._trunk(params[:1], rows).view(pairs.shape[:-1])

    def first_once(
        self,
        params: Float[Tensor, "2 param"],
        obs: Float[Tensor, "*lead obs"],
        action: Float[Tensor, "*lead act"],
    ) -> Float[Tensor, "*lead"]:
        """Return `first`, differentiable once and in the action only, from the written-out form."""
        return cast(Tensor, _FirstOnce.apply(action, self, params, obs))

    def forward(
        self,
        params: Float[Tensor, "net param"],
        obs: Float[Tensor, "rows obs"],
        action: Float[Tensor, "rows act"],
    ) -> CriticTape:
        """Return Q of every critic in `params` with what its derivatives need."""
        tape = self._trunk.forward(params, torch.cat([obs, action], dim=-1))
        return CriticTape(tape.output.squeeze(-1), tape)

    def vjp(
        self, tape: CriticTape, q_cotangent: Float[Tensor, "net rows"]
    ) -> Float[Tensor, "net param"]:
        """Return ∂⟨q_cotangent, Q⟩/∂θ."""
        return tape.trunk.vjp(q_cotangent.unsqueeze(-1))

    def action_vjp(
        self, tape: CriticTape, q_cotangent: Float[Tensor, "net rows"]
    ) -> Float[Tensor, "net rows act"]:
        """Return ∂⟨q_cotangent, Q⟩/∂a, for each critic."""
        return tape.trunk.input_vjp(q_cotangent.unsqueeze(-1), self._act_size)


class _FirstOnce(torch.autograd.Function):
    """Q_θ1 as a function of the action alone."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Tensor:
        """Evaluate (action, network, params, obs) and keep the tape."""
        action, ctx.network, params, obs = args
        rows = obs.flatten(0, -2), action.flatten(0, -2)
        ctx.tape = ctx.network.forward(params[:1], *rows)
        return ctx.tape.q.view(action.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401
        *grad_outputs: Any,  # noqa: ANN401
    ) -> tuple[Tensor | None, ...]:
        """Return the gradient in the action."""
        (cotangent,) = grad_outputs
        slope = ctx.network.action_vjp(ctx.tape, cotangent.reshape(1, -1))
        return slope.view(*cotangent.shape, -1), None, None, None
