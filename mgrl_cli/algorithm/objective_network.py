"""The learned objective L_α: one small network, the same for every environment (paper §4, Table 3).

    e_t  = mean_j  net_action(a_tj, π(s_t)_j)             shared over action dimensions j
    f_t  = net_signal(r̃_t, t/T, Ṽ'_t, Ṽ_t)
    h_t  = LSTM(h_{t+1}, [e_t, f_t])                       backwards, from the last valid step
    ℓ_t  = b · tanh(net_head(h_t) / b)

r̃, Ṽ', Ṽ are normalised over the valid steps of the batch, which makes the objective independent of
the scale and offset of rewards. 15,497 parameters whatever the environment.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mgrl_cli.algorithm.parameters import (
    ParameterLayout,
    layer_norm,
    layer_norm_shapes,
    linear_shapes,
)

VARIANCE_FLOOR = 1e-8
"""Added to variances of rewards and values: constant ones are normalised to 0."""
_FORGET_GATE_BIAS = 1.0
"""A constant, not a parameter, as in TensorFlow's LSTMCell."""
_CLOSED_GATE = -1e9
"""A pre-activation at which every gate is exactly 0 in float32 and float64."""

OptionalInput = Literal["time", "next_value", "value"]
"""What an objective may do without, named as in `ObjectiveShape.without`."""
SIGNAL_INPUTS = ("reward", "time", "next_value", "value")
"""What the signal network reads, in its order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveShape:
    """What distinguishes one objective architecture from another; stored in objective files."""

    width: int = 32
    """Units of every hidden layer and of the LSTM; even."""
    signal_features: int = 8
    """Outputs of the network that reads reward, time and values."""
    bound: float = 1000.0
    """b: losses lie in (-b, b)."""
    terminal_value: Literal["zero", "mean"] = "zero"
    """What a terminal step shows as next value: a true zero, or the batch mean (reference code)."""
    padding_first: bool = False
    """Let padding enter the reversed LSTM first, as the reference code does."""
    without: tuple[OptionalInput, ...] = ()
    """Inputs shown as zeros: their weights count and never matter (ablation)."""
    normalise: bool = True
    """Show rewards and values as normalised over the batch; false: as they are (ablation)."""

    def shows(self, signal_input: str) -> bool:
        """Return whether one of `SIGNAL_INPUTS` is shown."""
        return signal_input not in self.without


class ObjectiveSignals(NamedTuple):
    """What L_α sees of a batch of windows besides the actions; all constants."""

    reward: Float[Tensor, "batch time"]
    value: Float[Tensor, "batch time"]
    """V_t = Q_θ1(s_t, π(s_t))."""
    next_value: Float[Tensor, "batch time"]
    """V_{t+1} = Q_θ1(s'_t, π(s'_t)), not yet cut at terminal steps."""
    terminated: Bool[Tensor, "batch time"]
    is_valid: Bool[Tensor, "batch time"]


def mixed_activation(x: Tensor) -> Tensor:
    """Return ReLU on the first half of the units and the square on the second half."""
    half = x.shape[-1] // 2
    return torch.cat([torch.relu(x[..., :half]), x[..., half:].square()], dim=-1)


def valid_mean_and_variance(
    x: Float[Tensor, "batch time"], is_valid: Bool[Tensor, "batch time"]
) -> tuple[Tensor, Tensor]:
    """Return mean and population variance over the valid entries."""
    count = is_valid.sum().clamp(min=1)
    zero = torch.zeros_like(x)
    mean = torch.where(is_valid, x, zero).sum() / count
    variance = torch.where(is_valid, (x - mean).square(), zero).sum() / count
    return mean, variance


@final
class ObjectiveNetwork:
    """L_α as a pure function of α and a batch of windows."""

    def __init__(self, shape: ObjectiveShape | None = None, *, compiled: bool = False) -> None:
        """Lay out the network.

        Args:
            shape: the architecture; None for the paper's.
            compiled: let agents use the kernels of `fused` in its place, where these can.
                Calling the network itself is always plain torch, differentiable to any order.
        """
        self.shape = shape or ObjectiveShape()
        self.compiled = compiled
        width, signal_features = self.shape.width, self.shape.signal_features
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, width_in in enumerate((2, width, width), start=1):
            shapes |= linear_shapes(f"action.linear_{layer}", width_in, width)
            shapes |= layer_norm_shapes(f"action.norm_{layer}", width)
        for layer, width_in in enumerate((4, width), start=1):
            shapes |= linear_shapes(f"signal.linear_{layer}", width_in, width)
        shapes |= linear_shapes("signal.output", width, signal_features)
        # One joint kernel over [features, hidden state]; gates in the order i, g, f, o.
        shapes |= linear_shapes("lstm", width + signal_features + width, 4 * width)
        for layer in (1, 2):
            shapes |= linear_shapes(f"head.linear_{layer}", width, width)
            shapes |= layer_norm_shapes(f"head.norm_{layer}", width)
        shapes |= linear_shapes("head.output", width, 1)
        self.layout = ParameterLayout(shapes)

    def initialise(
        self, rng: np.random.Generator, *, last_layer: Literal["plain", "zero"] = "plain"
    ) -> Float[Tensor, " param"]:
        """Return fresh α; `last_layer="zero"` starts from an objective that asks for nothing."""
        params = self.layout.initialise(rng)
        if last_layer == "zero":
            self.layout.views(params)["head.output.weight"].zero_()
        return params

    def __call__(
        self,
        params: Float[Tensor, " param"],
        action: Float[Tensor, "batch time act"],
        policy_action: Float[Tensor, "batch time act"],
        signals: ObjectiveSignals,
    ) -> Float[Tensor, "batch time"]:
        """Return ℓ_t for every step; padded steps hold meaningless finite values.

        Gradients flow into `params` and `policy_action` only.
        """
        parameters = self.layout.views(params)
        features = torch.cat(
            [
                self._action_features(parameters, action.detach(), policy_action),
                self._signal_features(parameters, signals),
            ],
            dim=-1,
        )
        x = self._backward_lstm(parameters, features, signals.is_valid)
        for layer in (1, 2):
            x = mixed_activation(_linear(parameters, f"head.linear_{layer}", x))
            x = _norm(parameters, f"head.norm_{layer}", x)
        output = _linear(parameters, "head.output", x).squeeze(-1)
        return self.shape.bound * torch.tanh(output / self.shape.bound)

    def _action_features(
        self, parameters: dict[str, Tensor], action: Tensor, policy_action: Tensor
    ) -> Float[Tensor, "batch time width"]:
        """Return e_t; the mean over dimensions makes their number and order irrelevant."""
        x = torch.stack([action, policy_action], dim=-1)  # [batch, time, act, 2]
        for layer in (1, 2, 3):
            x = mixed_activation(_linear(parameters, f"action.linear_{layer}", x))
            x = _norm(parameters, f"action.norm_{layer}", x)
        return x.mean(dim=2)

    def _signal_features(
        self, parameters: dict[str, Tensor], signals: ObjectiveSignals
    ) -> Float[Tensor, "batch time signal"]:
        """Return f_t."""
        x = self.normalised_signals(signals)
        for layer in (1, 2):
            x = mixed_activation(_linear(parameters, f"signal.linear_{layer}", x))
        return _linear(parameters, "signal.output", x)

    @torch.no_grad()  # reward and values are constants of the objective
    def normalised_signals(self, signals: ObjectiveSignals) -> Float[Tensor, "batch time 4"]:
        """Return (r̃_t, t/T, Ṽ'_t, Ṽ_t); both values use the statistics of V_t.

        Zeros stand for what the shape does without. Where it does not normalise, tildes fall away,
        and a terminal step's next value is zero whatever `terminal_value` says.
        """
        reward, value, is_valid = signals.reward, signals.value, signals.is_valid
        reward_mean, reward_scale = self._mean_and_scale(reward, is_valid)
        value_mean, value_scale = self._mean_and_scale(value, is_valid)
        continues = (~signals.terminated).to(value.dtype)
        if self.shape.terminal_value == "zero":
            next_value = (continues * signals.next_value - value_mean) * value_scale
        else:
            next_value = continues * ((signals.next_value - value_mean) * value_scale)
        steps = reward.shape[1]
        time = torch.arange(steps, dtype=reward.dtype, device=reward.device) / steps
        inputs = torch.stack(
            [
                (reward - reward_mean) * reward_scale,
                time.expand_as(reward),
                next_value,
                (value - value_mean) * value_scale,
            ],
            dim=-1,
        )
        is_shown = torch.tensor([self.shape.shows(name) for name in SIGNAL_INPUTS])
        # Padding must be finite whatever it holds: its losses are masked, and 0 · inf is NaN.
        return torch.where(
            is_valid.unsqueeze(-1) & is_shown.to(is_valid.device), inputs, torch.zeros_like(inputs)
        )

    def _mean_and_scale(self, x: Tensor, is_valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return what normalises x: its mean and 1/σ over valid steps, or 0 and 1."""
        if not self.shape.normalise:
            return x.new_zeros(()), x.new_ones(())
        mean, variance = valid_mean_and_variance(x, is_valid)
        return mean, torch.rsqrt(variance + VARIANCE_FLOOR)

    def _backward_lstm(
        self,
        parameters: dict[str, Tensor],
        features: Float[Tensor, "batch time feature"],
        is_valid: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time width"]:
        """Return the hidden states of an LSTM that reads time backwards from the last valid step.

        Where a step is not read, all its gates are closed by their input, which keeps state and
        output exactly zero without an extra operation inside the loop.
        """
        batch, steps, feature_size = features.shape
        width = self.shape.width
        kernel = parameters["lstm.weight"]
        input_kernel, state_kernel = kernel[:feature_size], kernel[feature_size:]
        gate_bias = features.new_zeros(4, width)
        gate_bias[2] = _FORGET_GATE_BIAS
        projected = features @ input_kernel + (parameters["lstm.bias"] + gate_bias.flatten())
        is_read = is_valid
        if self.shape.padding_first:
            lengths = is_valid.sum(dim=1, keepdim=True)
            is_read = torch.arange(steps, device=is_valid.device) >= steps - lengths
        projected = projected.masked_fill(~is_read.unsqueeze(-1), _CLOSED_GATE)
        cell = features.new_zeros(batch, width)
        hidden = features.new_zeros(batch, width)
        outputs: list[Tensor] = []
        for step_input in reversed(projected.unbind(dim=1)):
            gates = torch.addmm(step_input, hidden, state_kernel)
            write, candidate, keep, read = gates.chunk(4, dim=-1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(write) * torch.tanh(candidate)
            hidden = torch.sigmoid(read) * torch.tanh(cell)
            outputs.append(hidden)
        return torch.stack(outputs[::-1], dim=1)


def _linear(parameters: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ parameters[f"{name}.weight"] + parameters[f"{name}.bias"]


def _norm(parameters: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return layer_norm(x, parameters[f"{name}.gain"], parameters[f"{name}.bias"])
