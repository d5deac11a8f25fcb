"""The functions of `gather` as numba kernels, compiled at import or loaded from numba's cache.

A batch begins at random places of a replay that no cache holds. Waiting for one after the other
would take far longer than copying: where the next ones are is asked for meanwhile.
"""

# ruff: noqa: ANN001, ANN201, ANN202, PLR0913 - numba infers the types; kernels take arrays one by one

from typing import no_type_check

from mgrl_cli.algorithm.fused.scalar_math import compiled, kernel
from mgrl_cli.algorithm.fused.vectors import ask_for, copy

_ROWS, _STEPS, _MASK = "f4[:,::1]", "f4[:,:,::1]", "b1[:,::1]"
_AHEAD = 16
"""Windows or steps asked for before the one that is copied."""
_LINE = 16
"""Numbers in a cache line."""
_WHICH = _ROWS, "i8[:,::1]", "i8", "i8[::1]", "b1"
"""rows, places, first_slot, positions, timeout_is_terminal"""


@kernel
@no_type_check
def _wrapped(index, size):
    """Return an index below 2 · size as one below size."""
    return index if index < size else index - size


@kernel
@no_type_check
def _ask_for_places(places, first_slot, positions):
    flat = places.ravel()
    for position in positions:
        ask_for(flat, 2 * _wrapped(first_slot + position, len(places)))


@kernel
@no_type_check
def _ask_for_rows(flat, size, first, number):
    """Ask for rows of a size; those beyond the end of the ring come when they are needed."""
    for i in range(first * size, (first + number) * size, _LINE):
        ask_for(flat, i)
    ask_for(flat, (first + number) * size - 1)  # rows begin anywhere in a line


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
    obs_size, act_size, size = obs.shape[2], action.shape[2], rows.shape[1]
    flag = obs_size + act_size + 1
    flat, flat_obs, flat_action = rows.ravel(), obs.ravel(), action.ravel()
    _ask_for_places(places, first_slot, positions)
    for asked in range(batch + _AHEAD):
        if asked < batch:
            slot = _wrapped(first_slot + positions[asked], len(places))
            row, left = places[slot]
            _ask_for_rows(flat, size, row, min(left, steps) + 1)
        b = asked - _AHEAD
        if b < 0:
            continue
        row, left = places[_wrapped(first_slot + positions[b], len(places))]
        for t in range(steps):
            step = rows[row]
            copy(flat, row * size, flat_obs, (b * (steps + 1) + t) * obs_size, obs_size)
            copy(flat, row * size + obs_size, flat_action, (b * steps + t) * act_size, act_size)
            reward[b, t] = step[flag - 1]
            terminated[b, t] = step[flag] > 0 or (timeout_is_terminal and step[flag + 1] > 0)
            is_valid[b, t] = t < left
            if t < left:
                row = _wrapped(row + 1, len(rows))
        copy(flat, row * size, flat_obs, (b * (steps + 1) + steps) * obs_size, obs_size)


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
    batch = len(positions)
    obs_size, act_size, size = obs.shape[1], action.shape[1], rows.shape[1]
    flag = obs_size + act_size + 1
    flat, flat_obs, flat_action = rows.ravel(), obs.ravel(), action.ravel()
    flat_next = next_obs.ravel()
    _ask_for_places(places, first_slot, positions)
    for asked in range(batch + _AHEAD):
        if asked < batch:
            slot = _wrapped(first_slot + positions[asked], len(places))
            _ask_for_rows(flat, size, places[slot, 0], 2)
        b = asked - _AHEAD
        if b < 0:
            continue
        row = places[_wrapped(first_slot + positions[b], len(places)), 0]
        step, following = rows[row], _wrapped(row + 1, len(rows))
        copy(flat, row * size, flat_obs, b * obs_size, obs_size)
        copy(flat, following * size, flat_next, b * obs_size, obs_size)
        copy(flat, row * size + obs_size, flat_action, b * act_size, act_size)
        reward[b] = step[flag - 1]
        terminated[b] = step[flag] > 0 or (timeout_is_terminal and step[flag + 1] > 0)
