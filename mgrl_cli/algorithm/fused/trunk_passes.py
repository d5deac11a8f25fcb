"""Bodies of policy and critic as numba kernels: forward, two adjoints and a tangent, by tiles.

    x → [Linear → ReLU → LayerNorm] × 2 → Linear

The equations are those of `algorithm.trunk`, which is also the oracle; tiles and lanes are those of
`kernels`, with 64 rows of the batch side by side. One set of passes is compiled per hidden width,
since LLVM vectorises over constant strides only. Inputs and outputs of the network are padded to
multiples of 4 features, with zeros; so are rows to whole tiles.
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
from mgrl_cli.algorithm.fused.trunk_layers import layer_kernels

# Slots of scratch blocks: output of a layer, adjoints or tangents of both layers, a turned block.
OUT, CHANGE_1, CHANGE_2, TURNED = range(4)


@kernel
@no_type_check
def _rows_to_lanes(rows, first, lanes):
    """Copy up to `TILE` rows [row, feature] from `first` on into [feature, lane]; rest is zero."""
    count = min(TILE, rows.shape[0] - first)
    lanes[:] = 0
    for m in range(count):
        for i in range(rows.shape[1]):
            lanes[i * TILE + m] = rows[first + m, i]


@kernel
@no_type_check
def _lanes_to_rows(lanes, rows, first):
    """Copy [feature, lane] back to the rows from `first` on."""
    count = min(TILE, rows.shape[0] - first)
    for m in range(count):
        for i in range(rows.shape[1]):
            rows[first + m, i] = lanes[i * TILE + m]


class TrunkPasses(NamedTuple):
    """What Python calls; `fused.trunk` says what the arrays are."""

    forward: Callable[..., None]
    """(params, x, tape, output)"""
    vjp: Callable[..., None]
    """(params, tape, cotangent, gradient)"""
    input_vjp: Callable[..., None]
    """(params, tape, cotangent, input_gradient)"""
    jvp: Callable[..., None]
    """(params, tape, direction, output_tangent)"""


def compile_trunk_passes(hidden: int, source: str) -> TrunkPasses:  # noqa: C901, PLR0915 - a set of functions
    """Return the passes for one hidden width, compiled at their first call or loaded from a cache.

    Args:
        hidden: units of both hidden layers, a multiple of 8.
        source: identifies the code of all kernels, see `passes.compile_passes`.
    """
    width = hidden
    apply, apply_turned = matmul(TILE, width, 1), matmul(TILE, 1, width)
    outer = matmul(width, 1, TILE)
    normalise, normalise_again, through_layer, tangent_through_layer = layer_kernels(width)

    @kernel
    @named(width)
    @no_type_check
    def starts(params, tape):
        """Return where norm_1, linear_2, norm_2, the last layer and its bias begin."""
        norm_1 = (tape.sizes[0] + 1) * width
        linear_2 = norm_1 + 2 * width
        norm_2 = linear_2 + (width + 1) * width
        return norm_1, linear_2, norm_2, norm_2 + 2 * width, params.shape[0] - tape.sizes[1]

    @kernel
    @named(width)
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
    @named(width)
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
                r1, r2 = tape.kept[net, tile, 0], tape.kept[net, tile, 1]
                fill_rows(p[norm_1 - width : norm_1], r1)
                apply(first, tape.inputs[tile], r1)
                normalise(r1, tape.stats[net, tile, 0], p[norm_1:linear_2], h)
                fill_rows(p[norm_2 - width : norm_2], r2)
                apply(p[linear_2 : norm_2 - width], h, r2)
                normalise(r2, tape.stats[net, tile, 1], p[norm_2:end], h)
                out[:] = 0
                fill_rows(p[bias:], out)
                apply_turned(last, h, out)
                _lanes_to_rows(out, output[net], tile * TILE)

    @kernel
    @named(width)
    @no_type_check
    def pull_back(p, tape, net, tile, gradient):
        """Pull `lanes_out` back to the first layer's pre-activation, left in CHANGE_1.

        Adds to the gradient of the second layer, to the lanes of the LayerNorms' in `sums` and to
        `last[1]`, unless `gradient` is empty.
        """
        norm_1, linear_2, norm_2, end, _ = starts(p, tape)
        h, turned = tape.scratch[OUT], tape.scratch[TURNED]
        d1, d2 = tape.scratch[CHANGE_1], tape.scratch[CHANGE_2]
        r1, r2 = tape.kept[net, tile, 0], tape.kept[net, tile, 1]
        s1, s2 = tape.stats[net, tile, 0], tape.stats[net, tile, 1]
        weight = p[linear_2 : norm_2 - width]
        d2[:] = 0
        apply(tape.last[0], tape.lanes_out, d2)
        if gradient.shape[0] > 0:
            normalise_again(r2, s2, p[norm_2:end], h)
            turn(h, width, turned)
            outer(tape.lanes_out, turned, tape.last[1])
        through_layer(r2, s2, p[norm_2:end], d2, tape.work, tape.sums[1])
        if gradient.shape[0] > 0:
            normalise_again(r1, s1, p[norm_1:linear_2], h)
            turn(d2, width, turned)
            outer(h, turned, gradient[linear_2 : norm_2 - width])
            add_row_sums(turned, gradient[norm_2 - width : norm_2])
        d1[:] = 0
        apply_turned(weight, d2, d1)
        through_layer(r1, s1, p[norm_1:linear_2], d1, tape.work, tape.sums[0])

    @kernel
    @named(width)
    @no_type_check
    def collect(p, tape, gradient):
        """Copy what was summed up in padded blocks and in lanes into the gradient."""
        d_in, d_out = tape.sizes
        norm_1, _, norm_2, end, _ = starts(p, tape)
        for i in range(d_in * width):
            gradient[i] = tape.first[1][i]
        for i in range(width):
            for o in range(d_out):
                gradient[end + i * d_out + o] = tape.last[1][o * width + i]
        for o in range(2 * width):
            for m in range(TILE):
                gradient[norm_1 + o] += tape.sums[0, o * TILE + m]
                gradient[norm_2 + o] += tape.sums[1, o * TILE + m]

    @njit(cache=True, **OPTIONS)
    @named(width)
    @no_type_check
    def vjp(params, tape, cotangent, gradient):
        _ = source
        turned, d1 = tape.scratch[TURNED], tape.scratch[CHANGE_1]
        gradient[:] = 0
        for net in range(params.shape[0]):
            p, g = params[net], gradient[net]
            norm_1, bias = starts(p, tape)[0], starts(p, tape)[4]
            pad(p, tape, tape.first[0], tape.last[0])
            tape.sums[:] = 0
            tape.first[1][:] = 0
            tape.last[1][:] = 0
            for tile in range(tape.inputs.shape[0]):
                _rows_to_lanes(cotangent[net], tile * TILE, tape.lanes_out)
                for o in range(tape.sizes[1]):
                    for m in range(TILE):
                        g[bias + o] += tape.lanes_out[o * TILE + m]
                pull_back(p, tape, net, tile, g)
                turn(d1, width, turned)
                outer(tape.inputs[tile], turned, tape.first[1])
                add_row_sums(turned, g[norm_1 - width : norm_1])
            collect(p, tape, g)

    @njit(cache=True, **OPTIONS)
    @named(width)
    @no_type_check
    def input_vjp(params, tape, cotangent, gradient):
        _ = source
        lanes = tape.lanes_in
        for net in range(params.shape[0]):
            p = params[net]
            pad(p, tape, tape.first[0], tape.last[0])
            for tile in range(tape.inputs.shape[0]):
                _rows_to_lanes(cotangent[net], tile * TILE, tape.lanes_out)
                pull_back(p, tape, net, tile, p[:0])
                lanes[:] = 0
                apply_turned(tape.first[0], tape.scratch[CHANGE_1], lanes)
                _lanes_to_rows(lanes, gradient[net], tile * TILE)

    @njit(cache=True, **OPTIONS)
    @named(width)
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
            for tile in range(tape.inputs.shape[0]):
                r1, r2 = tape.kept[net, tile, 0], tape.kept[net, tile, 1]
                s1, s2 = tape.stats[net, tile, 0], tape.stats[net, tile, 1]
                norm, norm_d = p[norm_1:linear_2], u[norm_1:linear_2]
                fill_rows(u[norm_1 - width : norm_1], d1)
                apply(tape.first[1], tape.inputs[tile], d1)
                tangent_through_layer(r1, s1, norm, norm_d, d1, tape.work)
                normalise_again(r1, s1, norm, h)
                norm, norm_d = p[norm_2:end], u[norm_2:end]
                fill_rows(u[norm_2 - width : norm_2], d2)
                apply(u[linear_2 : norm_2 - width], h, d2)
                apply(p[linear_2 : norm_2 - width], d1, d2)
                tangent_through_layer(r2, s2, norm, norm_d, d2, tape.work)
                normalise_again(r2, s2, norm, h)
                out[:] = 0
                fill_rows(u[bias:], out)
                apply_turned(tape.last[1], h, out)
                apply_turned(tape.last[0], d2, out)
                _lanes_to_rows(out, output[net], tile * TILE)

    return TrunkPasses(forward, vjp, input_vjp, jvp)
