"""Numba building blocks of the fused learned objective: what one tile of rows goes through.

They exist because the objective's arrays are so small that eager torch spends its time between the
operations. A *tile* is a flat block of `rows` features × 64 lanes, feature-major: lane
16·(t mod 4) + (b mod 16) is step t of window b. Everything runs along the lanes, so LayerNorm needs
no horizontal sum and each result is one fixed order of additions: the same bits in every run.
`contract` (fused multiply-add) is the only fast-math flag; nothing assumes that NaN is absent.

This module knows tiles only; the network is elsewhere. It needs numba (the extra "fast").
`no_type_check` keeps shape checkers of the tests from wrapping what numba must compile.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - numba infers the types, one set per dtype

from typing import no_type_check

from mgrl_cli.algorithm.fused.scalar_math import kernel, named
from mgrl_cli.algorithm.fused.vectors import add_products_16, transpose_8x8

WIDTH = 32
LANES = 16
"""Windows side by side."""
TILE_STEPS = 4
TILE = LANES * TILE_STEPS
BLOCK = WIDTH * TILE
STATE = WIDTH * LANES
"""Numbers of one LSTM state: `WIDTH` units of `LANES` windows."""
_INPUTS = 64
"""Rows that a product works through before the next ones: 16 KiB, half of the first cache."""


@kernel
@no_type_check
def four(w, start, step):
    """Return four weights; LLVM keeps tuples of scalars in registers."""
    return w[start], w[start + step], w[start + 2 * step], w[start + 3 * step]


@kernel
@no_type_check
def eight(w, start, step):
    """Return eight numbers, as `four` does."""
    return four(w, start, step) + four(w, start + 4 * step, step)


@kernel
@no_type_check
def _plus_dot(y, a, x):
    return y + a[0] * x[0] + a[1] * x[1] + a[2] * x[2] + a[3] * x[3]


@no_type_check
def matmul(lanes, p, q):
    """Return y[o] += Σ_i w[i·p + o·q] x[i] on flat rows of `lanes`, their number a multiple of 4.

    Numbers of lanes and strides are constants, so that LLVM vectorises over the lanes.
    """

    @kernel
    @named(lanes, p, q)
    @no_type_check
    def matmul(w, x, y):
        inputs = x.shape[0] // lanes
        for start in range(0, inputs, _INPUTS):
            stop = min(start + _INPUTS, inputs)
            for o in range(0, y.shape[0] // lanes, 4):
                out = y[o * lanes : (o + 4) * lanes]
                for i in range(start, stop, 4):
                    rows = x[i * lanes : (i + 4) * lanes]
                    block = w[i * p + o * q : i * p + o * q + 3 * (p + q) + 1]
                    a, b = four(block, 0, p), four(block, q, p)
                    c, d = four(block, 2 * q, p), four(block, 3 * q, p)
                    for m in range(lanes):
                        x4 = rows[m], rows[lanes + m], rows[2 * lanes + m], rows[3 * lanes + m]
                        y0 = _plus_dot(out[m], a, x4)
                        y1 = _plus_dot(out[lanes + m], b, x4)
                        y2 = _plus_dot(out[2 * lanes + m], c, x4)
                        y3 = _plus_dot(out[3 * lanes + m], d, x4)
                        out[m] = y0
                        out[lanes + m] = y1
                        out[2 * lanes + m] = y2
                        out[3 * lanes + m] = y3

    return matmul


apply_square, apply_square_turned = matmul(TILE, WIDTH, 1), matmul(TILE, 1, WIDTH)
apply_narrow, apply_narrow_turned = matmul(TILE, 8, 1), matmul(TILE, 1, 8)
apply_gates, apply_gates_turned = matmul(TILE, 4 * WIDTH, 1), matmul(TILE, 1, 4 * WIDTH)
# Weight gradients: grad[i, o] += Σ_lane x[i, lane] · d[lane, o], d a turned tile.
outer_narrow, outer_square = matmul(8, 1, TILE), matmul(WIDTH, 1, TILE)
outer_gates = matmul(4 * WIDTH, 1, TILE)


@kernel
@no_type_check
def apply_state(w, x, y):
    """Add to gates y what the LSTM's state weights make of the units x, [row, 16 windows]."""
    for o in range(0, 4 * WIDTH, 4):
        add_products_16(w, o, 4 * WIDTH, 1, x, y, o * LANES)


@kernel
@no_type_check
def apply_state_turned(w, x, y):
    """Add to units y what the transposed weights make of the gates x."""
    for o in range(0, WIDTH, 4):
        add_products_16(w, o * 4 * WIDTH, 1, 4 * WIDTH, x, y, o * LANES)


@kernel
@no_type_check
def turn(x, rows, turned):
    """Write the transpose of a tile, [lane, row]; the number of rows is a multiple of 8."""
    for o in range(0, rows, 8):
        for m in range(0, TILE, 8):
            transpose_8x8(x, o * TILE + m, TILE, turned, m * rows + o, rows)


@kernel
@no_type_check
def add_row_sums(turned, total):
    """Add the sum over lanes of every row of a turned tile."""
    rows = total.shape[0]
    for m in range(0, TILE, 8):
        block = turned[m * rows : (m + 8) * rows]
        for o in range(rows):
            share = total[o]
            for k in range(8):
                share += block[k * rows + o]
            total[o] = share


@kernel
@no_type_check
def add_weighted_row_sums(turned, weights, total):
    """Add the sum over lanes of every row of a turned tile, each lane with its weight."""
    rows = total.shape[0]
    for m in range(0, TILE, 8):
        block, w = turned[m * rows : (m + 8) * rows], eight(weights, m, 1)
        for o in range(rows):
            share = total[o]
            for k in range(8):
                share += w[k] * block[k * rows + o]
            total[o] = share


@kernel
@no_type_check
def read_out(weights, x, y):
    """Write y = Σ_o weights[o] · x[o], one number per lane."""
    y[:] = 0
    for o in range(0, weights.shape[0], 8):
        rows, w = x[o * TILE : (o + 8) * TILE], eight(weights, o, 1)
        for m in range(TILE):
            share = y[m]
            for k in range(8):
                share += w[k] * rows[k * TILE + m]
            y[m] = share


@kernel
@no_type_check
def fill_rows(bias, x):
    """Set every row of a tile to its bias."""
    for o in range(bias.shape[0]):
        x[o * TILE : (o + 1) * TILE] = bias[o]


@kernel
@no_type_check
def copy_block(source, to):
    """Copy a block; a slice assignment would compile its error messages too."""
    for m in range(BLOCK):
        to[m] = source[m]


@kernel
@no_type_check
def add_block(x, total):
    """Add a block to another."""
    for m in range(BLOCK):
        total[m] += x[m]


@kernel
@no_type_check
def scale_block(x, factor, to):
    """Write a block times a number."""
    for m in range(BLOCK):
        to[m] = factor * x[m]
