"""Numba kernels of a trunk's layer, ReLU and maybe LayerNorm, on a tile: forward and derivatives.

One set per shape. Names: z is the pre-activation, [width, lane]; `stats` mean and 1/σ of its ReLU
per lane; `norm` LayerNorm's gain and bias, empty without. Loops take several units at a time, as
those of `layers`, and for its reasons.
"""

# ruff: noqa: ANN001, ANN202 - numba infers the types, one set per dtype

from collections.abc import Callable
from math import sqrt
from typing import NamedTuple, no_type_check

from mgrl_cli.algorithm.fused.kernels import TILE, eight, four
from mgrl_cli.algorithm.fused.memory import UNITS_AT_A_TIME, padded
from mgrl_cli.algorithm.fused.scalar_math import kernel, named
from mgrl_cli.algorithm.parameters import LAYER_NORM_EPSILON

# Where a layer's statistics begin, each one number per lane.
MEAN, SCALE = 0, TILE
# Where the two means of an adjoint or a tangent begin in `work`.
ALONG, DOT = 0, TILE
FOLD = 16
"""Numbers that a sum over the lanes of all tiles is kept in until the last tile."""


class LayerShape(NamedTuple):
    """What one set of kernels is compiled for."""

    units: int
    """Of a hidden layer."""
    has_norm: bool
    """Whether LayerNorm follows the ReLU."""

    @property
    def width(self) -> int:
        """Units with those that pad them; what pads has weights of zero."""
        return padded(self.units, UNITS_AT_A_TIME)


class LayerKernels(NamedTuple):
    """Functions for other kernels."""

    activate: Callable[..., None]
    """(z, stats, norm, out): writes the layer's output, and `stats`."""
    activate_again: Callable[..., None]
    """(z, stats, norm, out): the same from `stats`."""
    adjoint: Callable[..., None]
    """(z, stats, norm, d, work): turns d from the adjoint of the output into that of z."""
    tangent: Callable[..., None]
    """(z, stats, norm, norm_d, d, work): turns d from the tangent of z into that of the output."""
    add_norm_gradient: Callable[..., None]
    """(z, stats, d, sums): adds the gradient of `norm`, two folded sums for every unit."""


@kernel
@no_type_check
def _relu(x):
    zero = type(x)(0)
    return zero if x < zero else x  # NaN stays


def layer_kernels(shape: LayerShape) -> LayerKernels:
    """Return the kernels for one shape."""
    return _with_norm(shape) if shape.has_norm else _without_norm(shape)


def _without_norm(shape: LayerShape) -> LayerKernels:
    width = shape.width

    @kernel
    @named(*shape)
    @no_type_check
    def activate(z, stats, norm, out):
        for m in range(width * TILE):
            out[m] = _relu(z[m])

    @kernel
    @named(*shape)
    @no_type_check
    def adjoint(z, stats, norm, d, work):
        zero = z.dtype.type(0)
        for m in range(width * TILE):
            d[m] = zero if z[m] <= zero else d[m]  # passes on where z is NaN, as torch's does

    @kernel
    @named(*shape)
    @no_type_check
    def tangent(z, stats, norm, norm_d, d, work):
        adjoint(z, stats, norm, d, work)

    @kernel
    @named(*shape)
    @no_type_check
    def add_norm_gradient(z, stats, d, sums):
        pass

    return LayerKernels(activate, activate, adjoint, tangent, add_norm_gradient)


def _with_norm(shape: LayerShape) -> LayerKernels:  # noqa: C901, PLR0915 - a set of functions
    units, width = shape.units, shape.width
    whole, share = units // 8 * 8, 1.0 / units

    @kernel
    @named(*shape)
    @no_type_check
    def activate_again(z, stats, norm, out):
        for o in range(0, width, 4):
            rows, to = z[o * TILE : (o + 4) * TILE], out[o * TILE : (o + 4) * TILE]
            gains, biases = four(norm, o, 1), four(norm, width + o, 1)
            for m in range(TILE):
                for k in range(4):
                    at = k * TILE + m
                    normal = (_relu(rows[at]) - stats[MEAN + m]) * stats[SCALE + m]
                    to[at] = normal * gains[k] + biases[k]

    @kernel
    @named(*shape)
    @no_type_check
    def measure(z, stats):  # noqa: C901 - loops
        t = z.dtype.type
        stats[:] = t(0)
        for o in range(0, width, 8):
            rows = z[o * TILE : (o + 8) * TILE]
            for m in range(TILE):
                total = t(0)
                for k in range(0, 8 * TILE, TILE):
                    total += _relu(rows[k + m])
                stats[MEAN + m] += total
        for m in range(TILE):
            stats[MEAN + m] *= t(share)
        for o in range(0, whole, 8):
            rows = z[o * TILE : (o + 8) * TILE]
            for m in range(TILE):
                total = t(0)
                for k in range(0, 8 * TILE, TILE):
                    centred = _relu(rows[k + m]) - stats[MEAN + m]
                    total += centred * centred
                stats[SCALE + m] += total
        # What pads has a ReLU of zero: right in the mean, not among the deviations from it.
        for o in range(whole, units):
            row = z[o * TILE : (o + 1) * TILE]
            for m in range(TILE):
                centred = _relu(row[m]) - stats[MEAN + m]
                stats[SCALE + m] += centred * centred
        for m in range(TILE):
            variance = stats[SCALE + m] * t(share)
            stats[SCALE + m] = t(1) / sqrt(variance + t(LAYER_NORM_EPSILON))

    @kernel
    @named(*shape)
    @no_type_check
    def activate(z, stats, norm, out):
        measure(z, stats)
        activate_again(z, stats, norm, out)

    @kernel
    @named(*shape)
    @no_type_check
    def adjoint(z, stats, norm, d, work):
        t = z.dtype.type
        work[:] = t(0)
        for o in range(0, width, 8):
            rows, changes = z[o * TILE : (o + 8) * TILE], d[o * TILE : (o + 8) * TILE]
            gains = eight(norm, o, 1)
            for m in range(TILE):
                along, dot = t(0), t(0)
                for k in range(8):
                    dn = changes[k * TILE + m] * gains[k]
                    centred = _relu(rows[k * TILE + m]) - stats[MEAN + m]
                    along += dn
                    dot += dn * (centred * stats[SCALE + m])
                work[ALONG + m] += along
                work[DOT + m] += dot
        for m in range(2 * TILE):
            work[m] *= t(share)
        for o in range(0, width, 4):
            rows, changes = z[o * TILE : (o + 4) * TILE], d[o * TILE : (o + 4) * TILE]
            gains = four(norm, o, 1)
            for m in range(TILE):
                for k in range(4):
                    at = k * TILE + m
                    normal = (_relu(rows[at]) - stats[MEAN + m]) * stats[SCALE + m]
                    back = changes[at] * gains[k] - work[ALONG + m] - normal * work[DOT + m]
                    changes[at] = t(0) if rows[at] <= t(0) else back * stats[SCALE + m]

    @kernel
    @named(*shape)
    @no_type_check
    def tangent(z, stats, norm, norm_d, d, work):
        t = z.dtype.type
        work[:] = t(0)
        for o in range(0, width, 8):
            rows, changes = z[o * TILE : (o + 8) * TILE], d[o * TILE : (o + 8) * TILE]
            for m in range(TILE):
                along, dot = t(0), t(0)
                for k in range(0, 8 * TILE, TILE):
                    x = rows[k + m]
                    dr = t(0) if x <= t(0) else changes[k + m]
                    along += dr
                    dot += dr * ((_relu(x) - stats[MEAN + m]) * stats[SCALE + m])
                work[ALONG + m] += along
                work[DOT + m] += dot
        for m in range(2 * TILE):
            work[m] *= t(share)
        for o in range(0, width, 4):
            rows, changes = z[o * TILE : (o + 4) * TILE], d[o * TILE : (o + 4) * TILE]
            g, g_d, b_d = four(norm, o, 1), four(norm_d, o, 1), four(norm_d, width + o, 1)
            for m in range(TILE):
                for k in range(4):
                    at = k * TILE + m
                    normal = (_relu(rows[at]) - stats[MEAN + m]) * stats[SCALE + m]
                    dr = t(0) if rows[at] <= t(0) else changes[at]
                    nd = (dr - work[ALONG + m] - normal * work[DOT + m]) * stats[SCALE + m]
                    changes[at] = nd * g[k] + normal * g_d[k] + b_d[k]

    @kernel
    @named(*shape)
    @no_type_check
    def add_norm_gradient(z, stats, d, sums):
        t = z.dtype.type
        for o in range(width):
            row, change = z[o * TILE : (o + 1) * TILE], d[o * TILE : (o + 1) * TILE]
            to = sums[2 * o * FOLD : 2 * (o + 1) * FOLD]
            for m in range(FOLD):
                gain, bias = t(0), t(0)
                for k in range(0, TILE, FOLD):
                    normal = (_relu(row[k + m]) - stats[MEAN + k + m]) * stats[SCALE + k + m]
                    gain += change[k + m] * normal
                    bias += change[k + m]
                to[m] += gain
                to[FOLD + m] += bias

    return LayerKernels(activate, activate_again, adjoint, tangent, add_norm_gradient)
