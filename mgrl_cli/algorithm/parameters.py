"""Parameters as the equations have them: one flat vector per network.

φ, θ and α are single tensors, so that a gradient step, a norm, a Jacobian-vector product, an Adam
update, a copy into shared memory and a checkpoint entry are each one operation on one tensor. A
`ParameterLayout` cuts a vector into the named matrices a network computes with.
"""

from collections.abc import Mapping
from math import prod, sqrt
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Initialisation = Literal["glorot", "fan_in"]
"""How fresh linear layers are drawn.

- `glorot`: weights uniform in ±√(6 / (in + out)), biases zero; TensorFlow's default.
- `fan_in`: weights and biases uniform in ±1/√in; PyTorch's default.
"""


class ParameterLayout:
    """Names and shapes of a network's parameters inside its flat vector.

    Weight matrices are stored [in, out]; every name ending in `.weight` is one.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        self._sizes = [prod(shape) for shape in self.shapes.values()]
        self.size = sum(self._sizes)
        """Number of parameters."""

    def views(self, params: Float[Tensor, "*lead param"]) -> dict[str, Tensor]:
        """Return name → tensor of shape [*lead, *shape], views of `params`, differentiable."""
        lead = params.shape[:-1]
        parts = params.split(self._sizes, dim=-1)
        return {
            name: part.view(*lead, *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def initialise(
        self, rng: np.random.Generator, initialisation: Initialisation = "glorot"
    ) -> Float[Tensor, " param"]:
        """Return fresh float32 parameters.

        Linear layers are drawn as `initialisation` says, LayerNorm gains are one, everything else
        is zero. Drawn with NumPy, so that a seed means the same parameters in every torch version.
        """
        params = np.zeros(self.size, dtype=np.float32)
        start = 0
        for name, shape in self.shapes.items():
            stop = start + prod(shape)
            limit = self._largest_initial(name, initialisation)
            if limit > 0:
                params[start:stop] = rng.uniform(-limit, limit, size=stop - start)
            elif name.endswith(".gain"):
                params[start:stop] = 1.0
            start = stop
        return torch.from_numpy(params)

    def _largest_initial(self, name: str, initialisation: Initialisation) -> float:
        """Return the bound of a parameter's uniform distribution; 0 where it is not drawn."""
        layer, _, kind = name.rpartition(".")
        weight = self.shapes.get(f"{layer}.weight")
        if weight is None or kind not in ("weight", "bias"):
            return 0.0
        if initialisation == "fan_in":
            return 1.0 / sqrt(weight[0])
        return sqrt(6.0 / (weight[0] + weight[1])) if kind == "weight" else 0.0

    def pack(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, " param"]:
        """Return the flat vector of named tensors (the inverse of `views` on one vector)."""
        return torch.cat([tensors[name].reshape(-1) for name in self.shapes])


def layer_norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of one LayerNorm's gain and bias."""
    return {f"{name}.gain": (width,), f"{name}.bias": (width,)}


def linear_shapes(name: str, width_in: int, width_out: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of one linear layer's weight and bias."""
    return {f"{name}.weight": (width_in, width_out), f"{name}.bias": (width_out,)}


class TrunkSizes(NamedTuple):
    """Of the body that policy and critic share, see `trunk`."""

    width_in: int
    hidden: int
    """Units of each of both hidden layers."""
    width_out: int
    layer_norm: bool
    """Whether LayerNorm follows each hidden layer."""

    def first_of_last(self, number: int) -> int:
        """Return where so many last inputs begin.

        Raises:
            ValueError: there are not so many.
        """
        if not 0 < number <= self.width_in:
            raise ValueError(f"derivatives in the last {number} inputs of {self.width_in}")
        return self.width_in - number


def trunk_shapes(sizes: TrunkSizes) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a trunk's parameters in their order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, width in ((1, sizes.width_in), (2, sizes.hidden)):
        shapes |= linear_shapes(f"linear_{layer}", width, sizes.hidden)
        if sizes.layer_norm:
            shapes |= layer_norm_shapes(f"norm_{layer}", sizes.hidden)
    return shapes | linear_shapes("output", sizes.hidden, sizes.width_out)


LAYER_NORM_EPSILON = 1e-5
"""PyTorch's default; the reference code's 1e-12 is below float32 resolution of unit variances."""


def layer_norm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Return LayerNorm over the last axis, written out in plain operations.

    `F.layer_norm` is silently wrong when reverse mode runs over forward mode (torch 2.13), which is
    what the meta-gradient of several virtual steps does; plain operations are right in every order.
    """
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred * torch.rsqrt(variance + LAYER_NORM_EPSILON) * gain + bias
