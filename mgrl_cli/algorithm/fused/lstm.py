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
from mgrl_cli.algorithm.fused.vectors import move_16

GATES = 4 * WIDTH
# Offsets of the gates in a step's gate record.
WRITE, CANDIDATE, KEEP, READ = range(0, 4 * STATE, STATE)
# Offsets in a step's state record: cell, tanh(cell), hidden; adjoints; tangents; both.
# Two records at a time are one flat slice, at constant offsets: of two rows of an array LLVM does
# not know how they lie to each other, and makes no vectors. Nor does it of one loop for cell and
# hidden state together.
CELL, SQUASHED, HIDDEN, D_CELL, D_HIDDEN = range(0, 5 * STATE, STATE)
CELL_D, SQUASHED_D, HIDDEN_D, D_CELL_D, D_HIDDEN_D = range(5 * STATE, 10 * STATE, STATE)
RECORD = 10 * STATE
# Where step t's predecessor in reading order, t + 1, begins in the slice.
BEFORE = RECORD


@kernel
@no_type_check
def _two_records(state, t):
    """Return the state records of steps t and t + 1."""
    return state.ravel()[t * RECORD : (t + 2) * RECORD]


@kernel
@no_type_check
def steps_to_tile(steps, start, first, rows, tile):
    """Copy rows from four step records into a tile; steps past the end read as zero."""
    records, size = steps.ravel(), steps.shape[1]
    for k in range(TILE_STEPS):
        if first + k < steps.shape[0]:
            place = (first + k) * size + start
            for o in range(rows):
                move_16(records, place + o * LANES, tile, o * TILE + k * LANES)
        else:
            for o in range(rows):
                tile[o * TILE + k * LANES : o * TILE + (k + 1) * LANES] = 0


@kernel
@no_type_check
def tile_to_steps(tile, start, first, rows, steps):
    """Copy a tile back into step records, without what lies past the end."""
    records, size = steps.ravel(), steps.shape[1]
    for k in range(min(TILE_STEPS, steps.shape[0] - first)):
        place = (first + k) * size + start
        for o in range(rows):
            move_16(tile, o * TILE + k * LANES, records, place + o * LANES)


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
        gate, s = gates[t], _two_records(state, t)
        apply_state(weight, s[BEFORE + HIDDEN : BEFORE + HIDDEN + STATE], gate)
        _activate_gates(gate)
        if not is_read[t].all():
            _close_gates(is_read[t], gate)
        for m in range(STATE):
            kept = gate[KEEP + m] * s[BEFORE + CELL + m]
            s[CELL + m] = kept + gate[WRITE + m] * gate[CANDIDATE + m]
        for m in range(STATE):
            s[SQUASHED + m] = tanh(s[CELL + m])
        for m in range(STATE):
            s[HIDDEN + m] = gate[READ + m] * s[SQUASHED + m]


@kernel
@no_type_check
def lstm_adjoint(weight, gates, state, d_gates):
    """Fill `d_gates`, the adjoints of the pre-activations; D_HIDDEN holds what the head asks."""
    one = gates.dtype.type(1)
    for t in range(gates.shape[0]):
        gate, s, dz = gates[t], _two_records(state, t), d_gates[t]
        for m in range(STATE):
            i, g, f, o = gate[WRITE + m], gate[CANDIDATE + m], gate[KEEP + m], gate[READ + m]
            h, dh = s[SQUASHED + m], s[D_HIDDEN + m]
            dc = s[D_CELL + m] + dh * o * (one - h * h)
            s[D_CELL + m] = dc
            dz[WRITE + m] = dc * g * i * (one - i)
            dz[CANDIDATE + m] = dc * i * (one - g * g)
            dz[KEEP + m] = dc * s[BEFORE + CELL + m] * f * (one - f)
            dz[READ + m] = dh * h * o * (one - o)
            s[BEFORE + D_CELL + m] = dc * f
        apply_state_turned(weight, dz, s[BEFORE + D_HIDDEN : BEFORE + D_HIDDEN + STATE])


@kernel
@no_type_check
def lstm_tangent(weight, gates, state, gates_d):
    """Turn tangents of pre-activations into those of gates, in place; fill those of the states."""
    one = gates.dtype.type(1)
    for t in range(gates.shape[0] - 1, -1, -1):
        gate, gate_d, s = gates[t], gates_d[t], _two_records(state, t)
        apply_state(weight, s[BEFORE + HIDDEN_D : BEFORE + HIDDEN_D + STATE], gate_d)
        for m in range(STATE):
            i, g, f, o = gate[WRITE + m], gate[CANDIDATE + m], gate[KEEP + m], gate[READ + m]
            i_d = gate_d[WRITE + m] * i * (one - i)
            g_d = gate_d[CANDIDATE + m] * (one - g * g)
            f_d = gate_d[KEEP + m] * f * (one - f)
            o_d = gate_d[READ + m] * o * (one - o)
            gate_d[WRITE + m], gate_d[CANDIDATE + m] = i_d, g_d
            gate_d[KEEP + m], gate_d[READ + m] = f_d, o_d
            kept = f_d * s[BEFORE + CELL + m] + f * s[BEFORE + CELL_D + m]
            cell_d, h = kept + i_d * g + i * g_d, s[SQUASHED + m]
            h_d = (one - h * h) * cell_d
            s[CELL_D + m] = cell_d
            s[SQUASHED_D + m] = h_d
            s[HIDDEN_D + m] = o_d * h + o * h_d


@kernel
@no_type_check
def lstm_mixed(weight, gates, state, gates_d, d_gates_d):
    """Fill `d_gates_d`, the tangents of `lstm_adjoint`'s result; D_HIDDEN_D holds the head's."""
    one, two = gates.dtype.type(1), gates.dtype.type(2)
    for t in range(gates.shape[0]):
        gate, gate_d, s, dz = gates[t], gates_d[t], _two_records(state, t), d_gates_d[t]
        for m in range(STATE):
            o, o_d = gate[READ + m], gate_d[READ + m]
            h, h_d = s[SQUASHED + m], s[SQUASHED_D + m]
            dh, dh_d = s[D_HIDDEN + m], s[D_HIDDEN_D + m]
            through_read = (dh_d * o + dh * o_d) * (one - h * h)
            s[D_CELL_D + m] += through_read - two * dh * o * h * h_d
            both = (dh_d * h + dh * h_d) * o * (one - o)
            dz[READ + m] = both + dh * h * (one - two * o) * o_d
        for m in range(STATE):
            i, g, f = gate[WRITE + m], gate[CANDIDATE + m], gate[KEEP + m]
            i_d, g_d, f_d = gate_d[WRITE + m], gate_d[CANDIDATE + m], gate_d[KEEP + m]
            dc, dc_d = s[D_CELL + m], s[D_CELL_D + m]
            cell, cell_d = s[BEFORE + CELL + m], s[BEFORE + CELL_D + m]
            both = (dc_d * g + dc * g_d) * i * (one - i)
            dz[WRITE + m] = both + dc * g * (one - two * i) * i_d
            both = (dc_d * i + dc * i_d) * (one - g * g)
            dz[CANDIDATE + m] = both - two * dc * i * g * g_d
            both = (dc_d * cell + dc * cell_d) * f * (one - f)
            dz[KEEP + m] = both + dc * cell * (one - two * f) * f_d
            s[BEFORE + D_CELL_D + m] = dc_d * f + dc * f_d
        apply_state_turned(weight, dz, s[BEFORE + D_HIDDEN_D : BEFORE + D_HIDDEN_D + STATE])
