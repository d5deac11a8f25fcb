"""Numba kernels of one layer, mixed activation then LayerNorm, on a tile: four directions of it.

Forward, adjoint, tangent, and "mixed": the tangent of the adjoint. The formulas are written out by
hand; `tests/algorithm/test_fused_objective.py` holds them against autograd.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - numba infers the types, one set per dtype

from math import sqrt
from typing import no_type_check

from mgrl_cli.algorithm.fused.kernels import BLOCK, TILE, WIDTH
from mgrl_cli.algorithm.fused.scalar_math import kernel
from mgrl_cli.algorithm.parameters import LAYER_NORM_EPSILON

_HALF = WIDTH // 2

# Slots of one layer's record: pre-activation, adjoint of the output, tangent of the pre-activation.
Z, DOUT, ZD = range(3)
# Rows of its statistics, one number per lane: mean and 1/σ of the activation, the two means of its
# adjoint, the two of its tangent, the two of the adjoint's tangent.
MEAN, SCALE, ADJOINT_MEAN, ADJOINT_DOT, TANGENT_MEAN, TANGENT_DOT, MIXED_MEAN, MIXED_DOT = range(8)
# Slots of scratch blocks.
N, ND, DZ, DZD, DX, X, XD, TURNED, TURNED_D = range(9)


@kernel
@no_type_check
def activate(z, x):
    """Write the mixed activation: ReLU on the first half of the units, square on the second."""
    zero = z.dtype.type(0)
    for m in range(_HALF * TILE):
        x[m] = zero if z[m] < zero else z[m]
    for m in range(_HALF * TILE, BLOCK):
        x[m] = z[m] * z[m]


@kernel
@no_type_check
def through_activation(z, dx, dz):
    """Write dx · ∂activation/∂z; the adjoint and the tangent are the same product."""
    zero, two = z.dtype.type(0), z.dtype.type(2)
    for m in range(_HALF * TILE):
        dz[m] = dx[m] if z[m] > zero else zero
    for m in range(_HALF * TILE, BLOCK):
        dz[m] = two * z[m] * dx[m]


@kernel
@no_type_check
def normalise(z, stats, n):
    """Write n = (activation(z) - mean) / σ and the statistics of every lane."""
    t = z.dtype.type
    mean, scale = stats[MEAN], stats[SCALE]
    activate(z, n)
    mean[:] = t(0)
    scale[:] = t(0)
    for o in range(WIDTH):
        row = n[o * TILE : (o + 1) * TILE]
        for m in range(TILE):
            mean[m] += row[m]
    for m in range(TILE):
        mean[m] *= t(1.0 / WIDTH)
    for o in range(WIDTH):
        row = n[o * TILE : (o + 1) * TILE]
        for m in range(TILE):
            centred = row[m] - mean[m]
            row[m] = centred
            scale[m] += centred * centred
    for m in range(TILE):
        scale[m] = t(1) / sqrt(scale[m] * t(1.0 / WIDTH) + t(LAYER_NORM_EPSILON))
    for o in range(WIDTH):
        row = n[o * TILE : (o + 1) * TILE]
        for m in range(TILE):
            row[m] *= scale[m]


@kernel
@no_type_check
def normalise_again(z, stats, n):
    """Write n from the statistics that `normalise` left; cheaper than keeping n."""
    mean, scale = stats[MEAN], stats[SCALE]
    activate(z, n)
    for o in range(WIDTH):
        row = n[o * TILE : (o + 1) * TILE]
        for m in range(TILE):
            row[m] = (row[m] - mean[m]) * scale[m]


@kernel
@no_type_check
def affine(n, gain, bias, x):
    """Write n · gain + bias."""
    for o in range(WIDTH):
        g, b = gain[o], bias[o]
        source, row = n[o * TILE : (o + 1) * TILE], x[o * TILE : (o + 1) * TILE]
        for m in range(TILE):
            row[m] = source[m] * g + b


@kernel
@no_type_check
def scale_rows(n, gain, x):
    """Write n · gain."""
    for o in range(WIDTH):
        g = gain[o]
        source, row = n[o * TILE : (o + 1) * TILE], x[o * TILE : (o + 1) * TILE]
        for m in range(TILE):
            row[m] = source[m] * g


@kernel
@no_type_check
def through_norm(n, scale, means, d):
    """Turn d into (d - mean(d) - n · mean(d · n)) / σ: LayerNorm's Jacobian, which is symmetric.

    The two means of every lane are left in `means`. In place under one name: LLVM gives up on
    vectors where two names overlap.
    """
    t = n.dtype.type
    mean, dot = means[0], means[1]
    mean[:] = t(0)
    dot[:] = t(0)
    for o in range(WIDTH):
        row, normal = d[o * TILE : (o + 1) * TILE], n[o * TILE : (o + 1) * TILE]
        for m in range(TILE):
            mean[m] += row[m]
            dot[m] += row[m] * normal[m]
    for m in range(TILE):
        mean[m] *= t(1.0 / WIDTH)
        dot[m] *= t(1.0 / WIDTH)
    through_norm_again(n, scale, means, d)


@kernel
@no_type_check
def through_norm_again(n, scale, means, d):
    """Do what `through_norm` does with the means that it left."""
    mean, dot = means[0], means[1]
    for o in range(WIDTH):
        row, normal = d[o * TILE : (o + 1) * TILE], n[o * TILE : (o + 1) * TILE]
        for m in range(TILE):
            row[m] = scale[m] * (row[m] - mean[m] - normal[m] * dot[m])


@kernel
@no_type_check
def layer_adjoint(layer, stats, gain, scratch):
    """Write DZ, the adjoint of the pre-activation, from layer[DOUT] and N."""
    dx = scratch[DX]
    scale_rows(layer[DOUT], gain, dx)
    through_norm(scratch[N], stats[SCALE], stats[ADJOINT_MEAN:TANGENT_MEAN], dx)
    through_activation(layer[Z], dx, scratch[DZ])


@kernel
@no_type_check
def layer_tangent(layer, stats, scratch):
    """Write ND, the tangent of the normalised activation, from layer[ZD] and N."""
    nd = scratch[ND]
    through_activation(layer[Z], layer[ZD], nd)
    through_norm(scratch[N], stats[SCALE], stats[TANGENT_MEAN:], nd)


@kernel
@no_type_check
def layer_tangent_again(layer, stats, scratch):
    """Do what `layer_tangent` does with the means that it left."""
    nd = scratch[ND]
    through_activation(layer[Z], layer[ZD], nd)
    through_norm_again(scratch[N], stats[SCALE], stats[TANGENT_MEAN:], nd)


@kernel
@no_type_check
def layer_mixed(layer, stats, gain, sums, scratch):
    """Write DZ and its tangent DZD from layer[DOUT], its tangent DX, N and ND.

    Adds to `sums` the lanes of the tangents of the gain's and the bias's gradient.
    """
    z, dout, zd = layer[Z], layer[DOUT], layer[ZD]
    dz, dzd = scratch[DZ], scratch[DZD]
    _norm_mixed(stats, gain, dout, sums, scratch)
    zero, two = z.dtype.type(0), z.dtype.type(2)
    for m in range(_HALF * TILE):
        is_open = z[m] > zero
        dz[m] = dz[m] if is_open else zero
        dzd[m] = dzd[m] if is_open else zero
    for m in range(_HALF * TILE, BLOCK):
        dzd[m] = two * (dzd[m] * z[m] + dz[m] * zd[m])
        dz[m] = two * dz[m] * z[m]


@kernel
@no_type_check
def _norm_mixed(stats, gain, dout, sums, scratch):
    """Write the adjoint of the activation to DZ and its tangent to DZD.

    Flat arrays with constant offsets: LLVM gives up on vectors where it has to compare more than a
    few pairs of pointers first.
    """
    t = gain.dtype.type
    s, lane, total = scratch.ravel(), stats.ravel(), sums.ravel()
    for m in range(MIXED_MEAN * TILE, (MIXED_DOT + 1) * TILE):
        lane[m] = t(0)
    for o in range(WIDTH):
        g, row, d, both = gain[o], s[o * TILE :], dout[o * TILE : (o + 1) * TILE], total[o * TILE :]
        for m in range(TILE):
            dd = row[DX * BLOCK + m]
            pair = dd * row[N * BLOCK + m] + d[m] * row[ND * BLOCK + m]
            lane[MIXED_MEAN * TILE + m] += g * dd
            lane[MIXED_DOT * TILE + m] += g * pair
            both[m] += pair
            both[BLOCK + m] += dd
    for m in range(MIXED_MEAN * TILE, (MIXED_DOT + 1) * TILE):
        lane[m] *= t(1.0 / WIDTH)
    for o in range(WIDTH):
        g, row, d = gain[o], s[o * TILE :], dout[o * TILE : (o + 1) * TILE]
        for m in range(TILE):
            n, nd, scale = row[N * BLOCK + m], row[ND * BLOCK + m], lane[SCALE * TILE + m]
            dot = lane[ADJOINT_DOT * TILE + m]
            value = scale * (g * d[m] - lane[ADJOINT_MEAN * TILE + m] - n * dot)
            tangent = g * row[DX * BLOCK + m] - lane[MIXED_MEAN * TILE + m]
            tangent = tangent - nd * dot - n * lane[MIXED_DOT * TILE + m]
            row[DZ * BLOCK + m] = value
            # The last term is the tangent of 1/σ, which is -(1/σ)² · mean(n · tangent).
            row[DZD * BLOCK + m] = scale * (tangent - lane[TANGENT_DOT * TILE + m] * value)
