"""Policy π_φ and twin critic Q_θ as pure functions of flat parameter vectors.

Both are [Linear → ReLU → LayerNorm] × 2 → Linear (paper Table 3, whose "3 layers" count the output);
the policy ends in tanh. LayerNorm stands after the ReLU.
"""

from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mgrl_cli.algorithm.parameters import (
    ParameterLayout,
    layer_norm,
    layer_norm_shapes,
    linear_shapes,
)


def _trunk_shapes(width_in: int, hidden: int, width_out: int) -> dict[str, tuple[int, ...]]:
    return {
        **linear_shapes("linear_1", width_in, hidden),
        **layer_norm_shapes("norm_1", hidden),
        **linear_shapes("linear_2", hidden, hidden),
        **layer_norm_shapes("norm_2", hidden),
        **linear_shapes("output", hidden, width_out),
    }


def _trunk(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return the output layer's values; parameters [..., in, out], x [..., rows, in]."""
    for layer in ("1", "2"):
        x = x @ parameters[f"linear_{layer}.weight"] + parameters[f"linear_{layer}.bias"]
        gain, bias = parameters[f"norm_{layer}.gain"], parameters[f"norm_{layer}.bias"]
        x = layer_norm(torch.relu(x), gain, bias)
    return x @ parameters["output.weight"] + parameters["output.bias"]


@final
class PolicyNetwork:
    """Deterministic policy π_φ(s) = tanh(z_φ(s)), actions in [-1, 1]."""

    def __init__(self, obs_size: int, act_size: int, hidden: int) -> None:
        self.act_size = act_size
        self.layout = ParameterLayout(_trunk_shapes(obs_size, hidden, act_size))

    def initialise(
        self, rng: np.random.Generator, *, last_layer_scale: float = 1.0
    ) -> Float[Tensor, " param"]:
        """Return fresh φ; `last_layer_scale` multiplies the output weights (1: plain Glorot)."""
        params = self.layout.initialise(rng)
        self.layout.views(params)["output.weight"].mul_(last_layer_scale)
        return params

    def pre_activation(
        self, params: Float[Tensor, " param"], obs: Float[Tensor, "*lead obs"]
    ) -> Float[Tensor, "*lead act"]:
        """Return z_φ(s), the outputs before tanh."""
        rows = obs.reshape(-1, obs.shape[-1])
        return _trunk(self.layout.views(params), rows).view(*obs.shape[:-1], self.act_size)

    def __call__(
        self, params: Float[Tensor, " param"], obs: Float[Tensor, "*lead obs"]
    ) -> Float[Tensor, "*lead act"]:
        """Return the actions π_φ(s)."""
        return torch.tanh(self.pre_activation(params, obs))


@final
class CriticNetwork:
    """Action-value Q_θ(s, a). Twin critics are two vectors stacked: θ has shape [2, param]."""

    def __init__(self, obs_size: int, act_size: int, hidden: int) -> None:
        self.layout = ParameterLayout(_trunk_shapes(obs_size + act_size, hidden, 1))

    def initialise_twins(self, rng: np.random.Generator) -> Float[Tensor, "2 param"]:
        """Return fresh, different parameters θ1, θ2."""
        return torch.stack([self.layout.initialise(rng), self.layout.initialise(rng)])

    def twins(
        self,
        params: Float[Tensor, "2 param"],
        obs: Float[Tensor, "rows obs"],
        action: Float[Tensor, "rows act"],
    ) -> Float[Tensor, "2 rows"]:
        """Return Q_θ1(s, a) and Q_θ2(s, a)."""
        parameters = self.layout.views(params)
        # Vectors get a row axis, so that [2, rows, width] + [2, 1, width] broadcasts.
        parameters = {
            name: p if name.endswith(".weight") else p.unsqueeze(1)
            for name, p in parameters.items()
        }
        return _trunk(parameters, torch.cat([obs, action], dim=-1)).squeeze(-1)

    def first(
        self,
        params: Float[Tensor, "2 param"],
        obs: Float[Tensor, "*lead obs"],
        action: Float[Tensor, "*lead act"],
    ) -> Float[Tensor, "*lead"]:
        """Return Q_θ1(s, a), the critic that policies and objectives see."""
        pairs = torch.cat([obs, action], dim=-1)
        rows = pairs.reshape(-1, pairs.shape[-1])
        return _trunk(self.layout.views(params[0]), rows).view(pairs.shape[:-1])
