"""The functions of `gather` as numba kernels, compiled at import or loaded from numba's cache."""

# ruff: noqa: ANN001, ANN201, ANN202, PLR0913 - numba infers the types; kernels take arrays one by one

from typing import no_type_check

from mgrl_cli.algorithm.fused.scalar_math import compiled, kernel

_ROWS, _STEPS, _MASK = "f4[:,::1]", "f4[:,:,::1]", "b1[:,::1]"
_WHICH = _ROWS, "i8[:,::1]", "i8", "i8[::1]", "b1"
"""rows, places, first_slot, positions, timeout_is_terminal"""


@kernel
@no_type_check
def _wrapped(index, size):
    """Return an index below 2 · size as one below size."""
    return index if index < size else index - size


@compiled("void", *_WHICH, _STEPS, _STEPS, _ROWS, _MASK, _MASK)
@no_type_check
def gather_windows(
    rows,
    places,
    first_slot,
    positions,
    timeout_is_terminal,
    obs,
    action,
    reward,
    terminated,
    is_valid,
):
    """Fill a batch of windows."""
    batch, steps = reward.shape
    obs_size, act_size = obs.shape[2], action.shape[2]
    flag = obs_size + act_size + 1
    for b in range(batch):
        row, left = places[_wrapped(first_slot + positions[b], len(places))]
        for t in range(steps):
            step = rows[row]
            for i in range(obs_size):
                obs[b, t, i] = step[i]
            for i in range(act_size):
                action[b, t, i] = step[obs_size + i]
            reward[b, t] = step[flag - 1]
            terminated[b, t] = step[flag] > 0 or (timeout_is_terminal and step[flag + 1] > 0)
            is_valid[b, t] = t < left
            if t < left:
                row = _wrapped(row + 1, len(rows))
        step = rows[row]
        for i in range(obs_size):
            obs[b, steps, i] = step[i]


@compiled("void", *_WHICH, _ROWS, _ROWS, "f4[::1]", _ROWS, "b1[::1]")
@no_type_check
def gather_transitions(
    rows,
    places,
    first_slot,
    positions,
    timeout_is_terminal,
    obs,
    action,
    reward,
    next_obs,
    terminated,
):
    """Fill a batch of single steps."""
    obs_size, act_size = obs.shape[1], action.shape[1]
    flag = obs_size + act_size + 1
    for b in range(len(positions)):
        row = places[_wrapped(first_slot + positions[b], len(places)), 0]
        step, following = rows[row], rows[_wrapped(row + 1, len(rows))]
        for i in range(obs_size):
            obs[b, i] = step[i]
            next_obs[b, i] = following[i]
        for i in range(act_size):
            action[b, i] = step[obs_size + i]
        reward[b] = step[flag - 1]
        terminated[b] = step[flag] > 0 or (timeout_is_terminal and step[flag + 1] > 0)
