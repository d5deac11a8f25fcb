"""Numba kernels of a trunk's layer, ReLU then LayerNorm, on a tile: forward, adjoint and tangent.

One set per hidden width. Names: r is the ReLU, [width, lane], which `normalise` leaves in place of
the pre-activation; `stats` its mean and 1/σ per lane; `norm` LayerNorm's gain and bias.
"""

# ruff: noqa: ANN001, ANN202 - numba infers the types, one set per dtype

from collections.abc import Callable
from math import sqrt
from typing import NamedTuple, no_type_check

from mgrl_cli.algorithm.fused.kernels import TILE
from mgrl_cli.algorithm.fused.scalar_math import kernel, named
from mgrl_cli.algorithm.parameters import LAYER_NORM_EPSILON

# Where a layer's statistics begin, each one number per lane.
MEAN, SCALE = 0, TILE
# Where the two means of an adjoint or a tangent begin in `work`.
ALONG, DOT = 0, TILE


class LayerKernels(NamedTuple):
    """Functions for other kernels, in place where they can be."""

    normalise: Callable[..., None]
    """(pre-activation, stats, norm, out)"""
    normalise_again: Callable[..., None]
    """(r, stats, norm, out)"""
    through_layer: Callable[..., None]
    """(r, stats, norm, d, work, sums)"""
    tangent_through_layer: Callable[..., None]
    """(r, stats, norm, norm_d, d, work)"""


def layer_kernels(width: int) -> LayerKernels:  # noqa: C901, PLR0915 - a set of functions
    """Return the kernels for one width."""
    share = 1.0 / width

    @kernel
    @named(width)
    @no_type_check
    def normalise_again(r, stats, norm, out):
        """Write LayerNorm's output from what `normalise` left."""
        for o in range(width):
            g, b = norm[o], norm[width + o]
            row, to = r[o * TILE : (o + 1) * TILE], out[o * TILE : (o + 1) * TILE]
            for m in range(TILE):
                to[m] = (row[m] - stats[MEAN + m]) * stats[SCALE + m] * g + b

    @kernel
    @named(width)
    @no_type_check
    def normalise(r, stats, norm, out):
        """Turn r into its ReLU, keep mean and 1/σ of every lane, write LayerNorm's output."""
        t = r.dtype.type
        stats[:] = t(0)
        for o in range(width):
            row = r[o * TILE : (o + 1) * TILE]
            for m in range(TILE):
                x = t(0) if row[m] < t(0) else row[m]
                row[m] = x
                stats[MEAN + m] += x
        for m in range(TILE):
            stats[MEAN + m] *= t(share)
        for o in range(width):
            row = r[o * TILE : (o + 1) * TILE]
            for m in range(TILE):
                centred = row[m] - stats[MEAN + m]
                stats[SCALE + m] += centred * centred
        for m in range(TILE):
            variance = stats[SCALE + m] * t(share)
            stats[SCALE + m] = t(1) / sqrt(variance + t(LAYER_NORM_EPSILON))
        normalise_again(r, stats, norm, out)

    @kernel
    @named(width)
    @no_type_check
    def through_layer(r, stats, norm, d, work, sums):
        """Turn d from the adjoint of a layer's output into that of its pre-activation.

        Adds to `sums` the lanes of the gradients of LayerNorm's gain and bias.
        """
        t = r.dtype.type
        work[:] = t(0)
        for o in range(width):
            a, b, g = o * TILE, (o + 1) * TILE, norm[o]
            row, change, total = r[a:b], d[a:b], sums[a:]
            for m in range(TILE):
                normal = (row[m] - stats[MEAN + m]) * stats[SCALE + m]
                dh = change[m]
                total[m] += dh * normal
                total[width * TILE + m] += dh
                change[m] = dh * g
                work[ALONG + m] += dh * g
                work[DOT + m] += dh * g * normal
        for m in range(2 * TILE):
            work[m] *= t(share)
        for o in range(width):
            row, change = r[o * TILE : (o + 1) * TILE], d[o * TILE : (o + 1) * TILE]
            for m in range(TILE):
                normal = (row[m] - stats[MEAN + m]) * stats[SCALE + m]
                back = (change[m] - work[ALONG + m] - normal * work[DOT + m]) * stats[SCALE + m]
                change[m] = back if row[m] > t(0) else t(0)

    @kernel
    @named(width)
    @no_type_check
    def tangent_through_layer(r, stats, norm, norm_d, d, work):
        """Turn d from the tangent of a pre-activation into that of the layer's output."""
        t = r.dtype.type
        work[:] = t(0)
        for o in range(width):
            row, change = r[o * TILE : (o + 1) * TILE], d[o * TILE : (o + 1) * TILE]
            for m in range(TILE):
                dr = change[m] if row[m] > t(0) else t(0)
                change[m] = dr
                work[ALONG + m] += dr
                work[DOT + m] += dr * ((row[m] - stats[MEAN + m]) * stats[SCALE + m])
        for m in range(2 * TILE):
            work[m] *= t(share)
        for o in range(width):
            g, g_d, b_d = norm[o], norm_d[o], norm_d[width + o]
            row, change = r[o * TILE : (o + 1) * TILE], d[o * TILE : (o + 1) * TILE]
            for m in range(TILE):
                normal = (row[m] - stats[MEAN + m]) * stats[SCALE + m]
                nd = (change[m] - work[ALONG + m] - normal * work[DOT + m]) * stats[SCALE + m]
                change[m] = nd * g + normal * g_d + b_d

    return LayerKernels(normalise, normalise_again, through_layer, tangent_through_layer)
