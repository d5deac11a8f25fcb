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

from mgrl_cli.algorithm.fused.scalar_math import kernel

WIDTH = 32
LANES = 16
"""Windows side by side."""
TILE_STEPS = 4
TILE = LANES * TILE_STEPS
BLOCK = WIDTH * TILE
STATE = WIDTH * LANES
"""Numbers of one LSTM state: `WIDTH` units of `LANES` windows."""


@no_type_check
def _matmul(lanes, p, q):
    """Return y[o] += Σ_i w[i·p + o·q] x[i] on flat rows of `lanes`, their number a multiple of 4.

    The strides are constants, so that LLVM keeps the 16 weights of a 4 × 4 block in registers.
    """

    @kernel
    @no_type_check
    def matmul(w, x, y):
        for o in range(0, y.shape[0] // lanes, 4):
            out = y[o * lanes : (o + 4) * lanes]
            for i in range(0, x.shape[0] // lanes, 4):
                row = x[i * lanes : (i + 4) * lanes]
                a = w[i * p + o * q : i * p + o * q + 3 * (p + q) + 1]
                a0, a1, a2, a3 = a[0], a[p], a[2 * p], a[3 * p]
                b0, b1, b2, b3 = a[q], a[p + q], a[2 * p + q], a[3 * p + q]
                c0, c1, c2, c3 = a[2 * q], a[p + 2 * q], a[2 * p + 2 * q], a[3 * p + 2 * q]
                d0, d1, d2, d3 = a[3 * q], a[p + 3 * q], a[2 * p + 3 * q], a[3 * p + 3 * q]
                for m in range(lanes):
                    x0, x1 = row[m], row[lanes + m]
                    x2, x3 = row[2 * lanes + m], row[3 * lanes + m]
                    y0 = out[m] + a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                    y1 = out[lanes + m] + b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                    y2 = out[2 * lanes + m] + c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                    y3 = out[3 * lanes + m] + d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3
                    out[m] = y0
                    out[lanes + m] = y1
                    out[2 * lanes + m] = y2
                    out[3 * lanes + m] = y3

    return matmul


apply_square, apply_square_turned = _matmul(TILE, WIDTH, 1), _matmul(TILE, 1, WIDTH)
apply_narrow, apply_narrow_turned = _matmul(TILE, 8, 1), _matmul(TILE, 1, 8)
apply_gates, apply_gates_turned = _matmul(TILE, 4 * WIDTH, 1), _matmul(TILE, 1, 4 * WIDTH)
apply_state, apply_state_turned = _matmul(LANES, 4 * WIDTH, 1), _matmul(LANES, 1, 4 * WIDTH)
# Weight gradients: grad[i, o] += Σ_lane x[i, lane] · d[lane, o], d a turned tile.
outer_narrow, outer_square = _matmul(8, 1, TILE), _matmul(WIDTH, 1, TILE)
outer_gates = _matmul(4 * WIDTH, 1, TILE)


@kernel
@no_type_check
def turn(x, rows, turned):
    """Write the transpose of a tile, [lane, row]."""
    for m in range(TILE):
        for o in range(rows):
            turned[m * rows + o] = x[o * TILE + m]


@kernel
@no_type_check
def add_row_sums(turned, total):
    """Add the sum over lanes of every row of a turned tile."""
    rows = total.shape[0]
    for m in range(TILE):
        for o in range(rows):
            total[o] += turned[m * rows + o]


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
