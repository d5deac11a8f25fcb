"""The network body that policy and critic share, with its derivatives written out.

    x → [Linear → ReLU → LayerNorm] × 2 → Linear         (paper Table 3)
    x → [Linear → ReLU] × 2 → Linear                     (without LayerNorm, as in TD3)

`Trunk.__call__` is plain differentiable torch. `forward` returns a tape with the same values and
their first derivatives, without autograd: the formulas are short, and at laptop sizes autograd's
bookkeeping costs as much as the arithmetic. The tape is one of compiled kernels where these are
wanted and can be had, else of torch operations. Parameters are [net, param], so twin critics are
one batched product; a single network is [1, param].
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mgrl_cli.algorithm.fused.trunk import FusedTape, supports
from mgrl_cli.algorithm.parameters import (
    LAYER_NORM_EPSILON,
    ParameterLayout,
    TrunkSizes,
    layer_norm,
    trunk_shapes,
)

_LAYERS = (1, 2)


@runtime_checkable  # the tests check types at run time
class TrunkTape(Protocol):
    """A forward pass, kept for its derivatives; the parameters must not change meanwhile."""

    @property
    def output(self) -> Float[Tensor, "net rows out"]:
        """The trunk's output."""
        ...

    def vjp(self, cotangent: Float[Tensor, "net rows out"]) -> Float[Tensor, "net param"]:
        """Return ∂⟨cotangent, output⟩/∂params."""
        ...

    def input_vjp(
        self, cotangent: Float[Tensor, "net rows out"], last: int
    ) -> Float[Tensor, "net rows last"]:
        """Return ∂⟨cotangent, output⟩/∂x of so many last inputs."""
        ...

    def jvp(self, direction: Float[Tensor, "net param"]) -> Float[Tensor, "net rows out"]:
        """Return (∂output/∂params) · direction."""
        ...


@final
class Trunk:
    """One architecture: sizes and the order of its parameters."""

    def __init__(
        self,
        width_in: int,
        hidden: int,
        width_out: int,
        *,
        layer_norm: bool = True,
        compiled: bool = False,
    ) -> None:
        """Lay out the network.

        Args:
            width_in: inputs.
            hidden: units of each hidden layer.
            width_out: outputs.
            layer_norm: whether LayerNorm follows each ReLU.
            compiled: let `forward` use kernels where they support device and dtype.
        """
        self.sizes = TrunkSizes(width_in, hidden, width_out, layer_norm)
        self._compiled = compiled
        self.layout = ParameterLayout(trunk_shapes(self.sizes))

    def parameters(self, params: Float[Tensor, "net param"]) -> dict[str, Tensor]:
        """Return the named parameters; vectors get a row axis to broadcast over."""
        return {
            name: view if name.endswith(".weight") else view.unsqueeze(1)
            for name, view in self.layout.views(params).items()
        }

    def __call__(
        self, params: Float[Tensor, "net param"], x: Float[Tensor, "rows in"]
    ) -> Float[Tensor, "net rows out"]:
        """Return the output, differentiable to any order in parameters and input."""
        parameters = self.parameters(params)
        for layer in _LAYERS:
            x = x @ parameters[f"linear_{layer}.weight"] + parameters[f"linear_{layer}.bias"]
            x = torch.relu(x)
            if self.sizes.layer_norm:
                gain, bias = parameters[f"norm_{layer}.gain"], parameters[f"norm_{layer}.bias"]
                x = layer_norm(x, gain, bias)
        return x @ parameters["output.weight"] + parameters["output.bias"]

    def forward(self, params: Float[Tensor, "net param"], x: Float[Tensor, "rows in"]) -> TrunkTape:
        """Return the output with its derivatives."""
        if self._compiled and supports(params):
            return FusedTape(params, x, self.sizes)
        return TorchTape(self, params, x)

    def load_kernels(self) -> None:
        """Compile the float32 kernels of such bodies, or load them from their cache, if wanted."""
        tape = self.forward(torch.zeros(1, self.layout.size), torch.zeros(1, self.sizes.width_in))
        tape.vjp(tape.output)
        tape.input_vjp(tape.output, 1)
        tape.jvp(torch.zeros(1, self.layout.size))


class _LayerTape(NamedTuple):
    """Intermediates of one hidden layer, each [net, rows, width]."""

    inputs: Tensor
    activated: Tensor
    """ReLU of the linear layer."""
    norm: "_NormTape | None"
    """LayerNorm of it, where there is one."""


@final
class _NormTape:
    """One LayerNorm's forward pass and its derivatives."""

    def __init__(self, activated: Tensor, gain: Tensor, bias: Tensor) -> None:
        """Run forward.

        Args:
            activated: [net, rows, width].
            gain: [net, 1, width].
            bias: [net, 1, width].
        """
        self._activated = activated
        self._gain = gain
        self._bias = bias
        self._width = (activated.shape[-1],)
        self._normalised, self._mean, self._inverse_std = torch.native_layer_norm(
            activated, self._width, None, None, LAYER_NORM_EPSILON
        )

    def output(self) -> Tensor:
        """Return the layer's output."""
        return torch.addcmul(self._bias, self._normalised, self._gain)

    def input_vjp(self, d_h: Tensor) -> Tensor:
        """Return the cotangent of the input."""
        d_activated, _, _ = torch.ops.aten.native_layer_norm_backward(
            d_h * self._gain,
            self._activated,
            self._width,
            self._mean,
            self._inverse_std,
            None,
            None,
            (True, False, False),
        )
        return d_activated

    def vjp(self, d_h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cotangents of gain and bias."""
        return (d_h * self._normalised).sum(1), d_h.sum(1)

    def jvp(self, d_r: Tensor, d_gain: Tensor, d_bias: Tensor) -> Tensor:
        """Return the tangent of the output from those of input, gain and bias."""
        along = (d_r * self._normalised).mean(-1, keepdim=True)
        centred = d_r - d_r.mean(-1, keepdim=True) - self._normalised * along
        return torch.addcmul(
            torch.addcmul(d_bias, self._normalised, d_gain),
            centred * self._inverse_std,
            self._gain,
        )


@final
class TorchTape:
    """The tape of torch operations."""

    @torch.no_grad()
    def __init__(
        self, trunk: Trunk, params: Float[Tensor, "net param"], x: Float[Tensor, "rows in"]
    ) -> None:
        """Run forward."""
        self._trunk = trunk
        self._parameters = trunk.parameters(params)
        self._layers: list[_LayerTape] = []
        h = x.expand(params.shape[0], *x.shape)
        for layer in _LAYERS:
            h = self._forward_layer(layer, h)
        self._last_inputs = h
        self.output: Float[Tensor, "net rows out"] = torch.baddbmm(
            self._parameters["output.bias"], h, self._parameters["output.weight"]
        )

    def _forward_layer(self, layer: int, h: Tensor) -> Tensor:
        parameters = self._parameters
        activated = torch.baddbmm(
            parameters[f"linear_{layer}.bias"], h, parameters[f"linear_{layer}.weight"]
        ).relu_()
        norm = None
        if self._trunk.sizes.layer_norm:
            gain, bias = parameters[f"norm_{layer}.gain"], parameters[f"norm_{layer}.bias"]
            norm = _NormTape(activated, gain, bias)
        self._layers.append(_LayerTape(h, activated, norm))
        return activated if norm is None else norm.output()

    @torch.no_grad()
    def vjp(self, cotangent: Float[Tensor, "net rows out"]) -> Float[Tensor, "net param"]:
        """Return ∂⟨cotangent, output⟩/∂params."""
        parts: list[Sequence[Tensor]] = [
            (self._last_inputs.mT @ cotangent, cotangent.sum(1)),
        ]
        d_h = cotangent @ self._parameters["output.weight"].mT
        for layer, kept in zip(reversed(_LAYERS), reversed(self._layers), strict=True):
            d_z = _through_activation(kept, d_h)
            d_norm = () if kept.norm is None else kept.norm.vjp(d_h)
            parts.append((kept.inputs.mT @ d_z, d_z.sum(1), *d_norm))
            if layer > 1:
                d_h = d_z @ self._parameters[f"linear_{layer}.weight"].mT
        return torch.cat([part.flatten(1) for group in reversed(parts) for part in group], dim=1)

    @torch.no_grad()
    def input_vjp(
        self, cotangent: Float[Tensor, "net rows out"], last: int
    ) -> Float[Tensor, "net rows last"]:
        """Return ∂⟨cotangent, output⟩/∂x of so many last inputs."""
        first = self._trunk.sizes.first_of_last(last)
        d_h = cotangent @ self._parameters["output.weight"].mT
        for layer, kept in zip(reversed(_LAYERS), reversed(self._layers), strict=True):
            d_z = _through_activation(kept, d_h)
            weight = self._parameters[f"linear_{layer}.weight"]
            if layer == 1:
                weight = weight[:, first:]
            d_h = d_z @ weight.mT
        return d_h

    @torch.no_grad()
    def jvp(self, direction: Float[Tensor, "net param"]) -> Float[Tensor, "net rows out"]:
        """Return (∂output/∂params) · direction."""
        tangent = self._trunk.parameters(direction)
        d_h: Tensor | None = None
        for layer, kept in zip(_LAYERS, self._layers, strict=True):
            d_z = torch.baddbmm(
                tangent[f"linear_{layer}.bias"], kept.inputs, tangent[f"linear_{layer}.weight"]
            )
            if d_h is not None:
                d_z = torch.baddbmm(d_z, d_h, self._parameters[f"linear_{layer}.weight"])
            d_h = torch.where(kept.activated > 0, d_z, 0.0)
            if kept.norm is not None:
                d_gain, d_bias = tangent[f"norm_{layer}.gain"], tangent[f"norm_{layer}.bias"]
                d_h = kept.norm.jvp(d_h, d_gain, d_bias)
        assert d_h is not None
        output = torch.baddbmm(tangent["output.bias"], self._last_inputs, tangent["output.weight"])
        return torch.baddbmm(output, d_h, self._parameters["output.weight"])


def _through_activation(kept: _LayerTape, d_h: Tensor) -> Tensor:
    """Return the cotangent of a layer's linear output, back through LayerNorm and ReLU."""
    d_activated = d_h if kept.norm is None else kept.norm.input_vjp(d_h)
    return torch.ops.aten.threshold_backward(d_activated, kept.activated, 0)
