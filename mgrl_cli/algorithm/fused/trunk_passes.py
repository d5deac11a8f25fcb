"""Bodies of policy and critic as numba kernels: forward, two adjoints and a tangent, by tiles.

    x → [Linear → ReLU → LayerNorm] × 2 → Linear, or without LayerNorm

The equations are those of `algorithm.trunk`, which is also the oracle; tiles and lanes are those of
`kernels`, with 64 rows of the batch side by side. One set of passes is compiled per `LayerShape`,
since LLVM vectorises over constant strides only. Inputs and outputs of the network are padded to
multiples of 4 features, with zeros, hidden layers to multiples of 8, and rows to whole tiles.
"""

# ruff: noqa: ANN001, ANN202 - numba infers the types, one set per dtype

from collections.abc import Callable
from typing import NamedTuple, no_type_check

from numba import njit

from mgrl_cli.algorithm.fused.kernels import (
    TILE,
    add_row_sums,
    fill_rows,
    matmul,
    turn,
)
from mgrl_cli.algorithm.fused.scalar_math import OPTIONS, kernel, named
from mgrl_cli.algorithm.fused.trunk_layers import FOLD, LayerShape, layer_kernels
from mgrl_cli.algorithm.fused.vectors import transpose_8x8

# Slots of scratch blocks: output of a layer, adjoints or tangents of both layers, a turned block.
OUT, CHANGE_1, CHANGE_2, TURNED = range(4)


@kernel
@no_type_check
def _rows_to_lanes(rows, first, lanes):
    """Copy up to `TILE` rows [row, feature] from `first` on into [feature, lane]; rest is zero."""
    count, features = min(TILE, rows.shape[0] - first), rows.shape[1]
    whole_rows, whole_features = count // 8 * 8, features // 8 * 8
    flat = rows.ravel()
    lanes[:] = 0
    for m in range(0, whole_rows, 8):
        for i in range(0, whole_features, 8):
            transpose_8x8(flat, (first + m) * features + i, features, lanes, i * TILE + m, TILE)
    for m in range(count):
        for i in range(whole_features if m < whole_rows else 0, features):
            lanes[i * TILE + m] = rows[first + m, i]


@kernel
@no_type_check
def _lanes_to_rows(lanes, rows, first):
    """Copy [feature, lane] back to the rows from `first` on."""
    count = min(TILE, rows.shape[0] - first)
    for m in range(count):
        for i in range(rows.shape[1]):
            rows[first + m, i] = lanes[i * TILE + m]


@kernel
@no_type_check
def _unfold(sums, k):
    """Return the k-th of some folded sums."""
    total = sums.dtype.type(0)
    for m in range(k * FOLD, (k + 1) * FOLD):
        total += sums[m]
    return total


@kernel
@no_type_check
def _tiles(rows):
    """Return how many tiles so many rows take."""
    return (rows + TILE - 1) // TILE


class TrunkPasses(NamedTuple):
    """What Python calls; `fused.trunk` says what the arrays are.

    Derivatives are those of the first rows, as many as their cotangents or tangents have.
    """

    forward: Callable[..., None]
    """(params, x, tape, output)"""
    vjp: Callable[..., None]
    """(params, tape, cotangent, gradient)"""
    input_vjp: Callable[..., None]
    """(params, tape, cotangent, first, gradient): of the inputs from `first` on."""
    jvp: Callable[..., None]
    """(params, tape, direction, output_tangent)"""


def compile_trunk_passes(shape: LayerShape, source: str) -> TrunkPasses:  # noqa: C901, PLR0915 - a set of functions
    """Return the passes for one shape, compiled at their first call or loaded from a cache.

    Args:
        shape: of the hidden layers.
        source: identifies the code of all kernels, see `passes.compile_passes`.
    """
    width, norm_size = shape.width, 2 * shape.width * shape.has_norm
    apply, apply_turned = matmul(TILE, width, 1), matmul(TILE, 1, width)
    outer = matmul(width, 1, TILE)
    layer = layer_kernels(shape)
    activate, activate_again, adjoint, tangent = layer[:4]
    add_norm_gradient = layer.add_norm_gradient

    @kernel
    @named(*shape)
    @no_type_check
    def starts(params, tape):
        """Return where norm_1, linear_2, norm_2, the last layer and its bias begin."""
        norm_1 = (tape.sizes[0] + 1) * width
        linear_2 = norm_1 + norm_size
        norm_2 = linear_2 + (width + 1) * width
        return norm_1, linear_2, norm_2, norm_2 + norm_size, params.shape[0] - tape.sizes[1]

    @kernel
    @named(*shape)
    @no_type_check
    def pad(params, tape, first, last):
        """Copy the first layer's weights [in, width] and the last's, turned, into padded blocks."""
        d_in, d_out = tape.sizes
        begin = starts(params, tape)[3]
        first[:] = 0
        last[:] = 0
        for i in range(d_in * width):
            first[i] = params[i]
        for i in range(width):
            for o in range(d_out):
                last[o * width + i] = params[begin + i * d_out + o]

    @njit(cache=True, **OPTIONS)
    @named(*shape)
    @no_type_check
    def forward(params, x, tape, output):
        _ = source
        first, last, h, out = tape.first[0], tape.last[0], tape.scratch[OUT], tape.lanes_out
        for tile in range(tape.inputs.shape[0]):
            _rows_to_lanes(x, tile * TILE, tape.inputs[tile])
        for net in range(params.shape[0]):
            p = params[net]
            norm_1, linear_2, norm_2, end, bias = starts(p, tape)
            pad(p, tape, first, last)
            for tile in range(tape.inputs.shape[0]):
                z1, z2 = tape.kept[net, tile, 0], tape.kept[net, tile, 1]
                fill_rows(p[norm_1 - width : norm_1], z1)
                apply(first, tape.inputs[tile], z1)
                activate(z1, tape.stats[net, tile, 0], p[norm_1:linear_2], h)
                fill_rows(p[norm_2 - width : norm_2], z2)
                apply(p[linear_2 : norm_2 - width], h, z2)
                activate(z2, tape.stats[net, tile, 1], p[norm_2:end], h)
                out[:] = 0
                fill_rows(p[bias:], out)
                apply_turned(last, h, out)
                _lanes_to_rows(out, output[net], tile * TILE)

    @kernel
    @named(*shape)
    @no_type_check
    def add_last(tape, h):
        """Add the gradient of the last layer's weights, folded sums for every pair of units."""
        t = h.dtype.type
        for j in range(tape.sizes[1]):
            d = tape.lanes_out[j * TILE : (j + 1) * TILE]
            for o in range(width):
                row, to = h[o * TILE : (o + 1) * TILE], tape.last_sums[j, o * FOLD : (o + 1) * FOLD]
                for m in range(FOLD):
                    total = t(0)
                    for k in range(0, TILE, FOLD):
                        total += d[k + m] * row[k + m]
                    to[m] += total

    @kernel
    @named(*shape)
    @no_type_check
    def pull_back(p, tape, net, tile, gradient):
        """Pull `lanes_out` back to the first layer's pre-activation, left in CHANGE_1.

        Adds to the gradient of the second layer and to the folded sums, unless `gradient` is empty.
        """
        norm_1, linear_2, norm_2, end, _ = starts(p, tape)
        h, turned = tape.scratch[OUT], tape.scratch[TURNED]
        d1, d2 = tape.scratch[CHANGE_1], tape.scratch[CHANGE_2]
        z1, z2 = tape.kept[net, tile, 0], tape.kept[net, tile, 1]
        s1, s2 = tape.stats[net, tile, 0], tape.stats[net, tile, 1]
        wants_gradient = gradient.shape[0] > 0
        d2[:] = 0
        apply(tape.last[0], tape.lanes_out, d2)
        if wants_gradient:
            activate_again(z2, s2, p[norm_2:end], h)
            add_last(tape, h)
            add_norm_gradient(z2, s2, d2, tape.norm_sums[1])
        adjoint(z2, s2, p[norm_2:end], d2, tape.work)
        if wants_gradient:
            activate_again(z1, s1, p[norm_1:linear_2], h)
            turn(d2, width, turned)
            outer(h, turned, gradient[linear_2 : norm_2 - width])
            add_row_sums(turned, gradient[norm_2 - width : norm_2])
        d1[:] = 0
        apply_turned(p[linear_2 : norm_2 - width], d2, d1)
        if wants_gradient:
            add_norm_gradient(z1, s1, d1, tape.norm_sums[0])
        adjoint(z1, s1, p[norm_1:linear_2], d1, tape.work)

    @kernel
    @named(*shape)
    @no_type_check
    def collect(p, tape, gradient):
        """Copy what was summed up in padded blocks and folded sums into the gradient."""
        d_in, d_out = tape.sizes
        norm_1, _, norm_2, end, _ = starts(p, tape)
        for i in range(d_in * width):
            gradient[i] = tape.first[1][i]
        for o in range(width):
            for j in range(d_out):
                gradient[end + o * d_out + j] = _unfold(tape.last_sums[j], o)
        for k in range(2):
            start = norm_2 if k else norm_1
            for o in range(norm_size // 2):
                gradient[start + o] = _unfold(tape.norm_sums[k], 2 * o)
                gradient[start + width + o] = _unfold(tape.norm_sums[k], 2 * o + 1)

    @njit(cache=True, **OPTIONS)
    @named(*shape)
    @no_type_check
    def vjp(params, tape, cotangent, gradient):
        _ = source
        turned, d1 = tape.scratch[TURNED], tape.scratch[CHANGE_1]
        gradient[:] = 0
        for net in range(params.shape[0]):
            p, g = params[net], gradient[net]
            norm_1, bias = starts(p, tape)[0], starts(p, tape)[4]
            pad(p, tape, tape.first[0], tape.last[0])
            tape.norm_sums[:] = 0
            tape.last_sums[:] = 0
            tape.first[1][:] = 0
            for tile in range(_tiles(cotangent.shape[1])):
                _rows_to_lanes(cotangent[net], tile * TILE, tape.lanes_out)
                pull_back(p, tape, net, tile, g)
                turn(d1, width, turned)
                outer(tape.inputs[tile], turned, tape.first[1])
                add_row_sums(turned, g[norm_1 - width : norm_1])
            for row in range(cotangent.shape[1]):
                for j in range(tape.sizes[1]):
                    g[bias + j] += cotangent[net, row, j]
            collect(p, tape, g)

    @njit(cache=True, **OPTIONS)
    @named(*shape)
    @no_type_check
    def input_vjp(params, tape, cotangent, first, gradient):
        _ = source
        begin = first // 4 * 4  # products make four rows at a time
        lanes = tape.lanes_in[begin * TILE :]
        weights = tape.first[0][begin * width :]
        for net in range(params.shape[0]):
            p = params[net]
            pad(p, tape, tape.first[0], tape.last[0])
            for tile in range(_tiles(cotangent.shape[1])):
                _rows_to_lanes(cotangent[net], tile * TILE, tape.lanes_out)
                pull_back(p, tape, net, tile, p[:0])
                lanes[:] = 0
                apply_turned(weights, tape.scratch[CHANGE_1], lanes)
                _lanes_to_rows(lanes[(first - begin) * TILE :], gradient[net], tile * TILE)

    @njit(cache=True, **OPTIONS)
    @named(*shape)
    @no_type_check
    def jvp(params, tape, direction, output):
        _ = source
        h, out = tape.scratch[OUT], tape.lanes_out
        d1, d2 = tape.scratch[CHANGE_1], tape.scratch[CHANGE_2]
        for net in range(params.shape[0]):
            p, u = params[net], direction[net]
            norm_1, linear_2, norm_2, end, bias = starts(p, tape)
            pad(p, tape, tape.first[0], tape.last[0])
            pad(u, tape, tape.first[1], tape.last[1])
            for tile in range(_tiles(output.shape[1])):
                z1, z2 = tape.kept[net, tile, 0], tape.kept[net, tile, 1]
                s1, s2 = tape.stats[net, tile, 0], tape.stats[net, tile, 1]
                norm, norm_d = p[norm_1:linear_2], u[norm_1:linear_2]
                fill_rows(u[norm_1 - width : norm_1], d1)
                apply(tape.first[1], tape.inputs[tile], d1)
                tangent(z1, s1, norm, norm_d, d1, tape.work)
                activate_again(z1, s1, norm, h)
                norm, norm_d = p[norm_2:end], u[norm_2:end]
                fill_rows(u[norm_2 - width : norm_2], d2)
                apply(u[linear_2 : norm_2 - width], h, d2)
                apply(p[linear_2 : norm_2 - width], d1, d2)
                tangent(z2, s2, norm, norm_d, d2, tape.work)
                activate_again(z2, s2, norm, h)
                out[:] = 0
                fill_rows(u[bias:], out)
                apply_turned(tape.last[1], h, out)
                apply_turned(tape.last[0], d2, out)
                _lanes_to_rows(out, output[net], tile * TILE)

    return TrunkPasses(forward, vjp, input_vjp, jvp)
