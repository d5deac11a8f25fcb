"""Numba kernels of the objective's backwards LSTM: forward, adjoint, tangent and mixed passes.

A step's state is a flat block of 32 units × 16 windows; its gates are four such blocks in the order
write, candidate, keep, read. Window group g is one call: groups share nothing but parameters.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - numba infers the types, one set per dtype

from typing import no_type_check

from mgrl_cli.algorithm.fused.kernels import (
    BLOCK,
    LANES,
    STATE,
    TILE,
    TILE_STEPS,
    WIDTH,
    apply_gates,
    apply_state,
    apply_state_turned,
    fill_rows,
)
from mgrl_cli.algorithm.fused.scalar_math import kernel, sigmoid, tanh

GATES = 4 * WIDTH
# Offsets of the gates in a step's gate record.
WRITE, CANDIDATE, KEEP, READ = range(0, 4 * STATE, STATE)
# Offsets in a step's state record: cell, tanh(cell), hidden; adjoints; tangents; both.
CELL, SQUASHED, HIDDEN, D_CELL, D_HIDDEN = range(0, 5 * STATE, STATE)
CELL_D, SQUASHED_D, HIDDEN_D, D_CELL_D, D_HIDDEN_D = range(5 * STATE, 10 * STATE, STATE)


@kernel
@no_type_check
def steps_to_tile(steps, start, first, rows, tile):
    """Copy rows from four step records into a tile; steps past the end read as zero."""
    for k in range(TILE_STEPS):
        is_step = first + k < steps.shape[0]
        for o in range(rows):
            to = tile[o * TILE + k * LANES : o * TILE + (k + 1) * LANES]
            if is_step:
                source = steps[first + k][start + o * LANES : start + (o + 1) * LANES]
                for m in range(LANES):
                    to[m] = source[m]
            else:
                to[:] = 0


@kernel
@no_type_check
def tile_to_steps(tile, start, first, rows, steps):
    """Copy a tile back into step records, without what lies past the end."""
    for k in range(min(TILE_STEPS, steps.shape[0] - first)):
        for o in range(rows):
            source = tile[o * TILE + k * LANES : o * TILE + (k + 1) * LANES]
            to = steps[first + k][start + o * LANES : start + (o + 1) * LANES]
            for m in range(LANES):
                to[m] = source[m]


@kernel
@no_type_check
def _close_gates(is_read, gates):
    """Set the gates of windows that do not read this step to what -∞ would give."""
    for lane in range(LANES):
        if not is_read[lane]:
            for unit in range(WIDTH):
                m = unit * LANES + lane
                gates[m] = 0
                gates[STATE + m] = -1
                gates[2 * STATE + m] = 0
                gates[3 * STATE + m] = 0


@kernel
@no_type_check
def project_inputs(weight, bias, features, tile, gates):
    """Write bias + 1 on the keep gate + the features' share of every step's pre-activation."""
    for q in range(features.shape[0]):
        fill_rows(bias, tile)
        for m in range(2 * BLOCK, 3 * BLOCK):
            tile[m] += 1
        apply_gates(weight, features[q], tile)
        tile_to_steps(tile, 0, q * TILE_STEPS, GATES, gates)


@kernel
@no_type_check
def _activate_gates(gate):
    for m in range(STATE):
        gate[WRITE + m] = sigmoid(gate[WRITE + m])
        gate[CANDIDATE + m] = tanh(gate[CANDIDATE + m])
    for m in range(KEEP, READ + STATE):
        gate[m] = sigmoid(gate[m])


@kernel
@no_type_check
def lstm_forward(weight, is_read, gates, state):
    """Turn pre-activations into gates, in place, and fill cell and hidden of every step.

    Step t's predecessor in reading order is record t + 1; the last record is the initial zero.
    """
    for t in range(gates.shape[0] - 1, -1, -1):
        gate, now, before = gates[t], state[t], state[t + 1]
        apply_state(weight, before[HIDDEN : HIDDEN + STATE], gate)
        _activate_gates(gate)
        if not is_read[t].all():
            _close_gates(is_read[t], gate)
        for m in range(STATE):
            kept = gate[KEEP + m] * before[CELL + m]
            now[CELL + m] = kept + gate[WRITE + m] * gate[CANDIDATE + m]
            now[SQUASHED + m] = tanh(now[CELL + m])
            now[HIDDEN + m] = gate[READ + m] * now[SQUASHED + m]


@kernel
@no_type_check
def lstm_adjoint(weight, gates, state, d_gates):
    """Fill `d_gates`, the adjoints of the pre-activations; D_HIDDEN holds what the head asks."""
    one = gates.dtype.type(1)
    for t in range(gates.shape[0]):
        gate, now, before, dz = gates[t], state[t], state[t + 1], d_gates[t]
        for m in range(STATE):
            i, g, f, o = gate[WRITE + m], gate[CANDIDATE + m], gate[KEEP + m], gate[READ + m]
            s, dh = now[SQUASHED + m], now[D_HIDDEN + m]
            dc = now[D_CELL + m] + dh * o * (one - s * s)
            now[D_CELL + m] = dc
            dz[WRITE + m] = dc * g * i * (one - i)
            dz[CANDIDATE + m] = dc * i * (one - g * g)
            dz[KEEP + m] = dc * before[CELL + m] * f * (one - f)
            dz[READ + m] = dh * s * o * (one - o)
            before[D_CELL + m] = dc * f
        apply_state_turned(weight, dz, before[D_HIDDEN : D_HIDDEN + STATE])


@kernel
@no_type_check
def lstm_tangent(weight, gates, state, gates_d):
    """Turn tangents of pre-activations into those of gates, in place; fill those of the states."""
    one = gates.dtype.type(1)
    for t in range(gates.shape[0] - 1, -1, -1):
        gate, gate_d, now, before = gates[t], gates_d[t], state[t], state[t + 1]
        apply_state(weight, before[HIDDEN_D : HIDDEN_D + STATE], gate_d)
        for m in range(STATE):
            i, g, f, o = gate[WRITE + m], gate[CANDIDATE + m], gate[KEEP + m], gate[READ + m]
            i_d = gate_d[WRITE + m] * i * (one - i)
            g_d = gate_d[CANDIDATE + m] * (one - g * g)
            f_d = gate_d[KEEP + m] * f * (one - f)
            o_d = gate_d[READ + m] * o * (one - o)
            gate_d[WRITE + m], gate_d[CANDIDATE + m] = i_d, g_d
            gate_d[KEEP + m], gate_d[READ + m] = f_d, o_d
            kept = f_d * before[CELL + m] + f * before[CELL_D + m]
            cell_d, s = kept + i_d * g + i * g_d, now[SQUASHED + m]
            s_d = (one - s * s) * cell_d
            now[CELL_D + m] = cell_d
            now[SQUASHED_D + m] = s_d
            now[HIDDEN_D + m] = o_d * s + o * s_d


@kernel
@no_type_check
def lstm_mixed(weight, gates, state, gates_d, d_gates_d):
    """Fill `d_gates_d`, the tangents of `lstm_adjoint`'s result; D_HIDDEN_D holds the head's."""
    one, two = gates.dtype.type(1), gates.dtype.type(2)
    for t in range(gates.shape[0]):
        gate, gate_d, now, before, dz = gates[t], gates_d[t], state[t], state[t + 1], d_gates_d[t]
        for m in range(STATE):
            o, o_d = gate[READ + m], gate_d[READ + m]
            s, s_d = now[SQUASHED + m], now[SQUASHED_D + m]
            dh, dh_d = now[D_HIDDEN + m], now[D_HIDDEN_D + m]
            through_read = (dh_d * o + dh * o_d) * (one - s * s)
            now[D_CELL_D + m] += through_read - two * dh * o * s * s_d
            both = (dh_d * s + dh * s_d) * o * (one - o)
            dz[READ + m] = both + dh * s * (one - two * o) * o_d
        for m in range(STATE):
            i, g, f = gate[WRITE + m], gate[CANDIDATE + m], gate[KEEP + m]
            i_d, g_d, f_d = gate_d[WRITE + m], gate_d[CANDIDATE + m], gate_d[KEEP + m]
            dc, dc_d = now[D_CELL + m], now[D_CELL_D + m]
            cell, cell_d = before[CELL + m], before[CELL_D + m]
            both = (dc_d * g + dc * g_d) * i * (one - i)
            dz[WRITE + m] = both + dc * g * (one - two * i) * i_d
            both = (dc_d * i + dc * i_d) * (one - g * g)
            dz[CANDIDATE + m] = both - two * dc * i * g * g_d
            both = (dc_d * cell + dc * cell_d) * f * (one - f)
            dz[KEEP + m] = both + dc * cell * (one - two * f) * f_d
            before[D_CELL_D + m] = dc_d * f + dc * f_d
        apply_state_turned(weight, dz, before[D_HIDDEN_D : D_HIDDEN_D + STATE])
