"""What the replay hands to the algorithm: windows and transitions, as tensors.

Axis order is batch, time, feature. Every tensor is a constant: nothing here is ever differentiated.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Behaviour(NamedTuple):
    """What importance weights need to know of replayed actions; zeros at padded steps."""

    raw_action: Float[Tensor, "batch time act"]
    """Before clipping to [-1, 1]."""
    log_density: Float[Tensor, "batch time"]
    """Of `raw_action`, under the behaviour that drew it."""


class Windows(NamedTuple):
    """T consecutive steps of one episode each, padded at the END where the episode ends earlier.

    Observations have one more time index than the rest: `obs[:, t + 1]` is the stored successor s'
    of step t, also at the last valid step (the final observation of an episode is stored).
    Padded steps hold zeros, except `obs`, which repeats the last observation.
    """

    obs: Float[Tensor, "batch time_plus_1 obs"]
    action: Float[Tensor, "batch time act"]
    """As executed, in [-1, 1]."""
    reward: Float[Tensor, "batch time"]
    terminated: Bool[Tensor, "batch time"]
    """True where the task itself ended the episode; a time limit is not a terminal state."""
    is_valid: Bool[Tensor, "batch time"]
    """True where the window holds a real step."""
    behaviour: Behaviour | None = None
    """How the actions came about, where that was asked for."""


class Transitions(NamedTuple):
    """Independent steps, for the critic."""

    obs: Float[Tensor, "batch obs"]
    action: Float[Tensor, "batch act"]
    reward: Float[Tensor, " batch"]
    next_obs: Float[Tensor, "batch obs"]
    terminated: Bool[Tensor, " batch"]
    is_valid: Bool[Tensor, " batch"]
    """True where the row holds a real step (all of them, unless cut from padded windows)."""


def part_of(windows: Windows, rows: slice) -> Windows:
    """Return some of the windows of a batch: views."""
    *tensors, behaviour = windows
    if behaviour is not None:
        behaviour = Behaviour(*(tensor[rows] for tensor in behaviour))
    return Windows(*(tensor[rows] for tensor in tensors), behaviour=behaviour)


def transitions_of(windows: Windows) -> Transitions:
    """Return the steps of `windows` as B·T rows, padded ones included and marked."""
    return Transitions(
        obs=windows.obs[:, :-1].flatten(0, 1),
        action=windows.action.flatten(0, 1),
        reward=windows.reward.flatten(),
        next_obs=windows.obs[:, 1:].flatten(0, 1),
        terminated=windows.terminated.flatten(),
        is_valid=windows.is_valid.flatten(),
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
