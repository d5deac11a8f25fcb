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

WIDTH = 32
LANES = 16
"""Windows side by side."""
TILE_STEPS = 4
TILE = LANES * TILE_STEPS
BLOCK = WIDTH * TILE
STATE = WIDTH * LANES
"""Numbers of one LSTM state: `WIDTH` units of `LANES` windows."""


@kernel
@no_type_check
def _four(w, start, step):
    """Return four weights; LLVM keeps tuples of scalars in registers."""
    return w[start], w[start + step], w[start + 2 * step], w[start + 3 * step]


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
        for o in range(0, y.shape[0] // lanes, 4):
            out = y[o * lanes : (o + 4) * lanes]
            for i in range(0, x.shape[0] // lanes, 4):
                rows = x[i * lanes : (i + 4) * lanes]
                block = w[i * p + o * q : i * p + o * q + 3 * (p + q) + 1]
                a, b = _four(block, 0, p), _four(block, q, p)
                c, d = _four(block, 2 * q, p), _four(block, 3 * q, p)
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
apply_state, apply_state_turned = matmul(LANES, 4 * WIDTH, 1), matmul(LANES, 1, 4 * WIDTH)
# Weight gradients: grad[i, o] += Σ_lane x[i, lane] · d[lane, o], d a turned tile.
outer_narrow, outer_square = matmul(8, 1, TILE), matmul(WIDTH, 1, TILE)
outer_gates = matmul(4 * WIDTH, 1, TILE)


@kernel
@no_type_check
def turn(x, rows, turned):
    """Write the transpose of a tile, [lane, row]; the number of rows is a multiple of 8."""
    for o in range(0, rows, 8):
        block = x[o * TILE : (o + 8) * TILE]
        for m in range(TILE):
            to = turned[m * rows + o : m * rows + o + 8]
            to[0], to[1], to[2], to[3] = _four(block, m, TILE)
            to[4], to[5], to[6], to[7] = _four(block, m + 4 * TILE, TILE)


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
