"""Numba kernels of one layer, mixed activation then LayerNorm, on a tile: four directions of it.

Forward, adjoint, tangent, and "mixed": the tangent of the adjoint. The formulas are written out by
hand; `tests/algorithm/test_fused.py` holds them against autograd. What follows from the
pre-activation and a few numbers per lane is computed again wherever it is needed: arithmetic is
cheaper than memory. Every loop takes four or eight units at a time: a sum that went to memory for
every unit would wait for its own last store, and what all units of a lane need is loaded once.

The scratch is flat, with constant offsets: LLVM gives up on vectors where it has to compare more
than a few pairs of pointers first.
"""

# ruff: noqa: ANN001, ANN201, ANN202, PLR0913 - numba infers the types; kernels take arrays one by one

from math import sqrt
from typing import no_type_check

from mgrl_cli.algorithm.fused.kernels import BLOCK, TILE, WIDTH, add_block, eight, four
from mgrl_cli.algorithm.fused.scalar_math import kernel
from mgrl_cli.algorithm.parameters import LAYER_NORM_EPSILON

_HALF = WIDTH // 2

# Rows of a layer's statistics, one number per lane: mean and 1/σ of the activation, the two means
# of its adjoint, the two of its tangent, the two of the adjoint's tangent.
MEAN, SCALE, ADJOINT_MEAN, ADJOINT_DOT = range(0, 4 * TILE, TILE)
TANGENT_MEAN, TANGENT_DOT, MIXED_MEAN, MIXED_DOT = range(4 * TILE, 8 * TILE, TILE)
# Blocks of the scratch: a layer's input and its tangent, adjoint of the output and its tangent, of
# the pre-activation and its tangent, the last two turned; pre-activation and its tangent. What
# LayerNorm's gain is multiplied with lies where DZ will be turned.
X, XD, DOUT, DX, DZ, DZD, TURNED, TURNED_D, Z, ZD = range(0, 10 * BLOCK, BLOCK)
PAIRED = TURNED


@kernel
@no_type_check
def block(blocks, start):
    """Return one block of the scratch."""
    return blocks[start : start + BLOCK]


@kernel
@no_type_check
def activated(z, is_square):
    """Return the mixed activation: ReLU on the first half of the units, square on the second."""
    zero = type(z)(0)
    rectified = zero if z < zero else z
    return z * z if is_square else rectified


@kernel
@no_type_check
def through_activation(z, d, is_square):
    """Return d · ∂activation/∂z; the adjoint and the tangent are the same product."""
    zero, two = type(z)(0), type(z)(2)
    passed = d if z > zero else zero
    return two * z * d if is_square else passed


@kernel
@no_type_check
def _normal(stats, m, z, is_square):
    """Return the normalised activation."""
    return (activated(z, is_square) - stats[MEAN + m]) * stats[SCALE + m]


@kernel
@no_type_check
def _divide(stats, start, rows):
    """Turn sums over the units into means."""
    for m in range(start, start + rows * TILE):
        stats[m] *= stats.dtype.type(1.0 / WIDTH)


@kernel
@no_type_check
def layer_forward(z, stats, norm, x):
    """Write the layer's output x and the statistics of every lane; `norm` is gain and bias."""
    t = z.dtype.type
    stats[: 2 * TILE] = t(0)
    for o in range(0, WIDTH, 8):
        rows, is_square = z[o * TILE : (o + 8) * TILE], o >= _HALF
        for m in range(TILE):
            total = t(0)
            for k in range(0, 8 * TILE, TILE):
                total += activated(rows[k + m], is_square)
            stats[MEAN + m] += total
    _divide(stats, MEAN, 1)
    for o in range(0, WIDTH, 8):
        rows, is_square = z[o * TILE : (o + 8) * TILE], o >= _HALF
        for m in range(TILE):
            total = t(0)
            for k in range(0, 8 * TILE, TILE):
                centred = activated(rows[k + m], is_square) - stats[MEAN + m]
                total += centred * centred
            stats[SCALE + m] += total
    _divide(stats, SCALE, 1)
    for m in range(TILE):
        stats[SCALE + m] = t(1) / sqrt(stats[SCALE + m] + t(LAYER_NORM_EPSILON))
    layer_output(z, stats, norm, x)


@kernel
@no_type_check
def layer_output(z, stats, norm, x):
    """Write the layer's output x from the statistics that `layer_forward` left."""
    for o in range(0, WIDTH, 4):
        rows, to = z[o * TILE : (o + 4) * TILE], x[o * TILE : (o + 4) * TILE]
        is_square, gains, biases = o >= _HALF, four(norm, o, 1), four(norm, WIDTH + o, 1)
        for m in range(TILE):
            for k in range(4):
                at = k * TILE + m
                to[at] = _normal(stats, m, rows[at], is_square) * gains[k] + biases[k]


@kernel
@no_type_check
def layer_adjoint(z, dout, stats, gain, dz):
    """Write the adjoint of the pre-activation from that of the output.

    LayerNorm's Jacobian, which is symmetric, turns d into (d - mean(d) - n · mean(d · n)) / σ.
    """
    t = gain.dtype.type
    stats[ADJOINT_MEAN:TANGENT_MEAN] = t(0)
    for o in range(0, WIDTH, 8):
        rows, changes = z[o * TILE : (o + 8) * TILE], dout[o * TILE : (o + 8) * TILE]
        is_square, gains = o >= _HALF, eight(gain, o, 1)
        for m in range(TILE):
            mean, dot = t(0), t(0)
            for k in range(8):
                d = gains[k] * changes[k * TILE + m]
                mean += d
                dot += d * _normal(stats, m, rows[k * TILE + m], is_square)
            stats[ADJOINT_MEAN + m] += mean
            stats[ADJOINT_DOT + m] += dot
    _divide(stats, ADJOINT_MEAN, 2)
    for o in range(0, WIDTH, 4):
        a, b = o * TILE, (o + 4) * TILE
        rows, changes, to = z[a:b], dout[a:b], dz[a:b]
        is_square, gains = o >= _HALF, four(gain, o, 1)
        for m in range(TILE):
            for k in range(4):
                at = k * TILE + m
                d = gains[k] * changes[at] - stats[ADJOINT_MEAN + m]
                d = d - _normal(stats, m, rows[at], is_square) * stats[ADJOINT_DOT + m]
                to[at] = through_activation(rows[at], stats[SCALE + m] * d, is_square)


@kernel
@no_type_check
def _tangent(stats, m, z, zd, n, is_square):
    """Return the tangent of the normalised activation n."""
    d = through_activation(z, zd, is_square) - stats[TANGENT_MEAN + m]
    return stats[SCALE + m] * (d - n * stats[TANGENT_DOT + m])


@kernel
@no_type_check
def layer_tangent(z, zd, stats, gain, xd):
    """Write the tangent of the layer's output from that of the pre-activation."""
    t = gain.dtype.type
    stats[TANGENT_MEAN:MIXED_MEAN] = t(0)
    for o in range(0, WIDTH, 8):
        rows, changes = z[o * TILE : (o + 8) * TILE], zd[o * TILE : (o + 8) * TILE]
        is_square = o >= _HALF
        for m in range(TILE):
            mean, dot = t(0), t(0)
            for k in range(0, 8 * TILE, TILE):
                d = through_activation(rows[k + m], changes[k + m], is_square)
                mean += d
                dot += d * _normal(stats, m, rows[k + m], is_square)
            stats[TANGENT_MEAN + m] += mean
            stats[TANGENT_DOT + m] += dot
    _divide(stats, TANGENT_MEAN, 2)
    layer_output_tangent(z, zd, stats, gain, xd)


@kernel
@no_type_check
def layer_output_tangent(z, zd, stats, gain, xd):
    """Write the tangent of the output from the statistics that `layer_tangent` left."""
    for o in range(0, WIDTH, 4):
        a, b = o * TILE, (o + 4) * TILE
        rows, changes, to = z[a:b], zd[a:b], xd[a:b]
        is_square, gains = o >= _HALF, four(gain, o, 1)
        for m in range(TILE):
            for k in range(4):
                at = k * TILE + m
                n = _normal(stats, m, rows[at], is_square)
                to[at] = gains[k] * _tangent(stats, m, rows[at], changes[at], n, is_square)


@kernel
@no_type_check
def layer_mixed(z, zd, dout, stats, gain, sums, scratch):
    """Write DZ and its tangent DZD from the adjoint of the output and its tangent DX.

    Adds to `sums` the lanes of the tangents of the gain's and the bias's gradient.
    """
    t = gain.dtype.type
    stats[MIXED_MEAN:] = t(0)
    # Of more than four units LLVM would make a loop, and no vectors.
    for o in range(0, WIDTH, 4):
        a, b, s = o * TILE, (o + 4) * TILE, scratch[o * TILE :]
        rows, changes, adjoints = z[a:b], zd[a:b], dout[a:b]
        is_square, gains = o >= _HALF, four(gain, o, 1)
        for m in range(TILE):
            mean, dot = t(0), t(0)
            for k in range(4):
                at = k * TILE + m
                dd, n = s[DX + at], _normal(stats, m, rows[at], is_square)
                nd = _tangent(stats, m, rows[at], changes[at], n, is_square)
                paired = dd * n + adjoints[at] * nd
                s[PAIRED + at] = paired
                mean += gains[k] * dd
                dot += gains[k] * paired
            stats[MIXED_MEAN + m] += mean
            stats[MIXED_DOT + m] += dot
    _divide(stats, MIXED_MEAN, 2)
    add_block(block(scratch, PAIRED), sums[0])
    add_block(block(scratch, DX), sums[1])
    for o in range(0, WIDTH, 4):
        a, b, s = o * TILE, (o + 4) * TILE, scratch[o * TILE :]
        rows, changes, adjoints = z[a:b], zd[a:b], dout[a:b]
        is_square, gains = o >= _HALF, four(gain, o, 1)
        for m in range(TILE):
            for k in range(4):
                at = k * TILE + m
                n, scale = _normal(stats, m, rows[at], is_square), stats[SCALE + m]
                nd = _tangent(stats, m, rows[at], changes[at], n, is_square)
                dot = stats[ADJOINT_DOT + m]
                dx = scale * (gains[k] * adjoints[at] - stats[ADJOINT_MEAN + m] - n * dot)
                dxd = gains[k] * s[DX + at] - stats[MIXED_MEAN + m]
                dxd = dxd - nd * dot - n * stats[MIXED_DOT + m]
                # The last term is the tangent of 1/σ, which is -(1/σ)² · mean(n · tangent).
                dxd = scale * (dxd - stats[TANGENT_DOT + m] * dx)
                s[DZ + at] = through_activation(rows[at], dx, is_square)
                bent = t(2) * changes[at] * dx if is_square else t(0)
                s[DZD + at] = through_activation(rows[at], dxd, is_square) + bent
