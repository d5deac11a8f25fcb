"""Copying windows out of a replay ring, with NumPy and compiled: the same bits.

A ring's row is one step: observation, action, reward, terminated, truncated. The row after an
episode's last step holds its final observation and zeros, so what a window needs beyond the end of
its episode is that row, again and again.

With NumPy a batch takes some twenty small operations, which find cold caches whenever they come
after a large computation. Compiled it is one.
"""

# ruff: noqa: PLR0913 - kernels take arrays one by one, and these functions what they take

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

FLAGS = 2
"""Columns after the reward: terminated, truncated."""

Rows = Float32[ndarray, "rows obs_plus_act_plus_3"]


def gather_windows(
    rows: Rows,
    places: Int64[ndarray, "slots 2"],
    first_slot: int,
    positions: Int64[ndarray, " batch"],
    timeout_is_terminal: bool,
    obs: Float32[ndarray, "batch steps_plus_1 obs"],
    action: Float32[ndarray, "batch steps act"],
    reward: Float32[ndarray, "batch steps"],
    terminated: Bool[ndarray, "batch steps"],
    is_valid: Bool[ndarray, "batch steps"],
) -> None:
    """Fill a batch of windows.

    Args:
        rows: of the ring; the last is followed by the first.
        places: of every slot its row, and the steps from there to the episode's end.
        first_slot: of the oldest step; the last slot is followed by the first.
        positions: where each window begins, counted from the oldest step.
        timeout_is_terminal: count a truncated step as terminated too.
        obs: filled, as all that follow.
        action: to fill.
        reward: to fill.
        terminated: to fill.
        is_valid: to fill.
    """
    obs_size, act_size = obs.shape[2], action.shape[2]
    time = np.arange(obs.shape[1])
    first, left = np.hsplit(places.take(first_slot + positions, axis=0, mode="wrap"), 2)
    block = rows.take(first + np.minimum(time, left), axis=0, mode="wrap")
    steps = block[:, :-1]
    obs[:] = block[:, :, :obs_size]
    action[:] = steps[:, :, obs_size : obs_size + act_size]
    reward[:] = steps[:, :, obs_size + act_size]
    flags = steps[:, :, obs_size + act_size + 1 :] > 0
    terminated[:] = flags.any(axis=2) if timeout_is_terminal else flags[:, :, 0]
    is_valid[:] = time[:-1] < left


def gather_transitions(
    rows: Rows,
    places: Int64[ndarray, "slots 2"],
    first_slot: int,
    positions: Int64[ndarray, " batch"],
    timeout_is_terminal: bool,
    obs: Float32[ndarray, "batch obs"],
    action: Float32[ndarray, "batch act"],
    reward: Float32[ndarray, " batch"],
    next_obs: Float32[ndarray, "batch obs"],
    terminated: Bool[ndarray, " batch"],
) -> None:
    """Fill a batch of single steps.

    Args:
        rows: of the ring; see `gather_windows`, as for all that follow.
        places: of every slot.
        first_slot: of the oldest step.
        positions: which steps.
        timeout_is_terminal: count a truncated step as terminated too.
        obs: filled, as all that follow.
        action: to fill.
        reward: to fill.
        next_obs: to fill.
        terminated: to fill.
    """
    obs_size, act_size = obs.shape[1], action.shape[1]
    firsts = places.take(first_slot + positions, axis=0, mode="wrap")[:, 0]
    steps, following = rows.take(np.stack((firsts, firsts + 1)), axis=0, mode="wrap")
    obs[:] = steps[:, :obs_size]
    action[:] = steps[:, obs_size : obs_size + act_size]
    reward[:] = steps[:, obs_size + act_size]
    next_obs[:] = following[:, :obs_size]
    flags = steps[:, obs_size + act_size + 1 :] > 0
    terminated[:] = flags.any(axis=1) if timeout_is_terminal else flags[:, 0]


class Gather(NamedTuple):
    """Both functions, in one of their forms."""

    windows: Callable[..., None]
    transitions: Callable[..., None]


def gather(*, compiled: bool) -> Gather:
    """Return both; compiled they need numba (the extra "fast")."""
    if not compiled:
        return Gather(gather_windows, gather_transitions)
    from mgrl_cli.replay import compiled_gather

    return Gather(compiled_gather.gather_windows, compiled_gather.gather_transitions)
