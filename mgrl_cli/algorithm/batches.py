"""What the replay hands to the algorithm: windows and transitions, constants all of them.

Axis order is batch, time, feature. They are drawn as NumPy arrays, which is what compiled kernels
take; what runs in torch takes `tensors()`, which share their memory. The two are types of their
own, and not one that is generic, because the tests' type checker knows no generic named tuples.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32
from numpy import ascontiguousarray, ndarray
from torch import Tensor


class BehaviourTensors(NamedTuple):
    """`Behaviour` for torch."""

    raw_action: Float[Tensor, "batch time act"]
    log_density: Float[Tensor, "batch time"]


class Behaviour(NamedTuple):
    """What importance weights need to know of replayed actions; zeros at padded steps."""

    raw_action: Float32[ndarray, "batch time act"]
    """Before clipping to [-1, 1]."""
    log_density: Float32[ndarray, "batch time"]
    """Of `raw_action`, under the behaviour that drew it."""

    def tensors(self) -> BehaviourTensors:
        """Return the same for torch."""
        return BehaviourTensors(*map(torch.from_numpy, self))


class WindowTensors(NamedTuple):
    """`Windows` for torch."""

    obs: Float[Tensor, "batch time_plus_1 obs"]
    action: Float[Tensor, "batch time act"]
    reward: Float[Tensor, "batch time"]
    terminated: Bool[Tensor, "batch time"]
    is_valid: Bool[Tensor, "batch time"]
    behaviour: BehaviourTensors | None = None


class Windows(NamedTuple):
    """T consecutive steps of one episode each, padded at the END where the episode ends earlier.

    Observations have one more time index than the rest: `obs[:, t + 1]` is the stored successor s'
    of step t, also at the last valid step (the final observation of an episode is stored).
    Padded steps hold zeros, except `obs`, which repeats the last observation.
    """

    obs: Float32[ndarray, "batch time_plus_1 obs"]
    action: Float32[ndarray, "batch time act"]
    """As executed, in [-1, 1]."""
    reward: Float32[ndarray, "batch time"]
    terminated: Bool[ndarray, "batch time"]
    """True where the task itself ended the episode; a time limit is not a terminal state."""
    is_valid: Bool[ndarray, "batch time"]
    """True where the window holds a real step."""
    behaviour: Behaviour | None = None
    """How the actions came about, where that was asked for."""

    def tensors(self) -> WindowTensors:
        """Return the same for torch."""
        *arrays, behaviour = self
        of_torch = behaviour.tensors() if behaviour is not None else None
        return WindowTensors(*map(torch.from_numpy, arrays), behaviour=of_torch)


class TransitionTensors(NamedTuple):
    """`Transitions` for torch."""

    obs: Float[Tensor, "batch obs"]
    action: Float[Tensor, "batch act"]
    reward: Float[Tensor, " batch"]
    next_obs: Float[Tensor, "batch obs"]
    terminated: Bool[Tensor, " batch"]
    is_valid: Bool[Tensor, " batch"]


class Transitions(NamedTuple):
    """Independent steps, for the critic."""

    obs: Float32[ndarray, "batch obs"]
    action: Float32[ndarray, "batch act"]
    reward: Float32[ndarray, " batch"]
    next_obs: Float32[ndarray, "batch obs"]
    terminated: Bool[ndarray, " batch"]
    is_valid: Bool[ndarray, " batch"]
    """True where the row holds a real step (all of them, unless cut from padded windows)."""

    def tensors(self) -> TransitionTensors:
        """Return the same for torch."""
        return TransitionTensors(*map(torch.from_numpy, self))


def part_of(windows: Windows, rows: slice) -> Windows:
    """Return some of the windows of a batch: views."""
    *arrays, behaviour = windows
    if behaviour is not None:
        behaviour = Behaviour(*(array[rows] for array in behaviour))
    return Windows(*(array[rows] for array in arrays), behaviour=behaviour)


def transitions_of(windows: Windows) -> Transitions:
    """Return the steps of `windows` as B·T rows, padded ones included and marked."""
    obs_size, act_size = windows.obs.shape[-1], windows.action.shape[-1]
    # Of windows of one step, `reshape` alone would make views with gaps, which kernels do not take.
    return Transitions(
        obs=ascontiguousarray(windows.obs[:, :-1]).reshape(-1, obs_size),
        action=windows.action.reshape(-1, act_size),
        reward=windows.reward.reshape(-1),
        next_obs=ascontiguousarray(windows.obs[:, 1:]).reshape(-1, obs_size),
        terminated=windows.terminated.reshape(-1),
        is_valid=windows.is_valid.reshape(-1),
    )


def mean_weights(is_valid: Tensor, *, over_padding: bool = False) -> Tensor:
    """Return the float32 weight of every entry in `masked_mean`; 0 where not valid."""
    count = is_valid.numel() if over_padding else is_valid.sum().clamp(min=1)
    return is_valid / count


def masked_mean(values: Tensor, is_valid: Tensor, *, over_padding: bool = False) -> Tensor:
    """Return the mean of `values` where `is_valid`; 0 if nothing is valid.

    Args:
        values: any shape.
        is_valid: same shape.
        over_padding: divide by the number of all entries instead, as the reference code does.
    """
    count = values.numel() if over_padding else is_valid.sum().clamp(min=1)
    return torch.where(is_valid, values, torch.zeros_like(values)).sum() / count
