"""Numba kernels of the head: hidden state → loss, through two normalised layers."""

# ruff: noqa: ANN001, ANN201, ANN202 - numba infers the types, one set per dtype

from typing import no_type_check

from mgrl_cli.algorithm.fused.action import square_mixed, vector
from mgrl_cli.algorithm.fused.kernels import (
    TILE,
    WIDTH,
    apply_square,
    apply_square_turned,
    copy_block,
    fill_rows,
)
from mgrl_cli.algorithm.fused.layers import (
    DOUT,
    DX,
    DZ,
    ND,
    XD,
    ZD,
    N,
    X,
    Z,
    affine,
    layer_adjoint,
    layer_mixed,
    layer_tangent,
    layer_tangent_again,
    normalise,
    normalise_again,
    scale_rows,
)
from mgrl_cli.algorithm.fused.layout import (
    D_OUTPUT,
    HEAD,
    HEAD_OUT,
    OUTPUT_D,
    SQUARE,
    SQUASHED,
    WEIGHT,
)
from mgrl_cli.algorithm.fused.scalar_math import kernel, tanh


@kernel
@no_type_check
def _read_out(params, x, output):
    """Write the last layer's product with x, without its bias."""
    output[:] = 0
    for o in range(WIDTH):
        w, row = params[HEAD_OUT + o], x[o * TILE : (o + 1) * TILE]
        for m in range(TILE):
            output[m] += w * row[m]


@kernel
@no_type_check
def _spread(params, d_output, d_x):
    """Write the adjoint of the last layer's input."""
    for o in range(WIDTH):
        w, row = params[HEAD_OUT + o], d_x[o * TILE : (o + 1) * TILE]
        for m in range(TILE):
            row[m] = w * d_output[m]


@kernel
@no_type_check
def head_forward(params, bound, tape):
    """Fill the pre-activations of the head and tanh(output / bound) of every lane."""
    t = params.dtype.type
    x, n = tape.scratch[X], tape.scratch[N]
    for tile in range(tape.head.shape[0]):
        copy_block(tape.hidden[tile], x)
        for k in range(2):
            z, start = tape.head[tile, k, Z], HEAD[k]
            fill_rows(vector(params, start + SQUARE), z)
            apply_square(params[start : start + SQUARE], x, z)
            normalise(z, tape.head_stats[tile, k], n)
            gain = start + SQUARE + WIDTH
            affine(n, vector(params, gain), vector(params, gain + WIDTH), x)
        squashed = tape.output[tile, SQUASHED]
        _read_out(params, x, squashed)
        bias = params[HEAD_OUT + WIDTH]
        for m in range(TILE):
            squashed[m] = tanh((squashed[m] + bias) / t(bound))


@kernel
@no_type_check
def head_adjoint(params, tape):
    """Pull the weighted losses back to the hidden states."""
    t = params.dtype.type
    scratch = tape.scratch
    for tile in range(tape.head.shape[0]):
        output = tape.output[tile]
        squashed, weight, d_output = output[SQUASHED], output[WEIGHT], output[D_OUTPUT]
        for m in range(TILE):
            d_output[m] = weight[m] * (t(1) - squashed[m] * squashed[m])
        _spread(params, d_output, tape.head[tile, 1, DOUT])
        for k in range(1, -1, -1):
            layer, stats, start = tape.head[tile, k], tape.head_stats[tile, k], HEAD[k]
            normalise_again(layer[Z], stats, scratch[N])
            layer_adjoint(layer, stats, vector(params, start + SQUARE + WIDTH), scratch)
            before = tape.head[tile, 0, DOUT] if k == 1 else tape.d_hidden[tile]
            before[:] = t(0)
            apply_square_turned(params[start : start + SQUARE], scratch[DZ], before)


@kernel
@no_type_check
def head_tangent(params, bound, tape):
    """Push the tangents of the hidden states to the output."""
    t = params.dtype.type
    scratch = tape.scratch
    xd = scratch[XD]
    for tile in range(tape.head.shape[0]):
        copy_block(tape.hidden_d[tile], xd)
        for k in range(2):
            layer, stats, start = tape.head[tile, k], tape.head_stats[tile, k], HEAD[k]
            layer[ZD][:] = t(0)
            apply_square(params[start : start + SQUARE], xd, layer[ZD])
            normalise_again(layer[Z], stats, scratch[N])
            layer_tangent(layer, stats, scratch)
            scale_rows(scratch[ND], vector(params, start + SQUARE + WIDTH), xd)
        squashed, tangent = tape.output[tile, SQUASHED], tape.output[tile, OUTPUT_D]
        _read_out(params, xd, tangent)
        for m in range(TILE):
            tangent[m] *= (t(1) - squashed[m] * squashed[m]) / t(bound)


@kernel
@no_type_check
def _inputs(params, start, tape, tile, k):
    """Write X and XD, the outputs of head layer k and their tangents; N and ND stay."""
    scratch, layer = tape.scratch, tape.head[tile, k]
    normalise_again(layer[Z], tape.head_stats[tile, k], scratch[N])
    layer_tangent_again(layer, tape.head_stats[tile, k], scratch)
    gain = vector(params, start + SQUARE + WIDTH)
    affine(scratch[N], gain, vector(params, start + SQUARE + 2 * WIDTH), scratch[X])
    scale_rows(scratch[ND], gain, scratch[XD])


@kernel
@no_type_check
def head_mixed(params, tape, gradient):
    """Add the head's mixed gradient; leave the tangent of the hidden states' adjoint."""
    t = params.dtype.type
    scratch, tangent = tape.scratch, tape.scratch_lane
    for tile in range(tape.head.shape[0]):
        output = tape.output[tile]
        squashed, weight, output_d = output[SQUASHED], output[WEIGHT], output[OUTPUT_D]
        for m in range(TILE):
            tangent[m] = -t(2) * weight[m] * squashed[m] * output_d[m]
        _inputs(params, HEAD[1], tape, tile, 1)
        sums, x, xd = tape.sums[5, 0], scratch[X], scratch[XD]
        for o in range(WIDTH):
            a, b = o * TILE, (o + 1) * TILE
            row, x_row, xd_row = sums[a:b], x[a:b], xd[a:b]
            for m in range(TILE):
                row[m] += x_row[m] * tangent[m] + xd_row[m] * output[D_OUTPUT, m]
        for m in range(TILE):
            gradient[HEAD_OUT + WIDTH] += tangent[m]
        _spread(params, tangent, scratch[DX])
        for k in range(1, -1, -1):
            layer, stats, start = tape.head[tile, k], tape.head_stats[tile, k], HEAD[k]
            gain = vector(params, start + SQUARE + WIDTH)
            layer_mixed(layer, stats, gain, tape.sums[3 + k], scratch)
            if k == 1:
                _inputs(params, HEAD[0], tape, tile, 0)
            else:
                copy_block(tape.hidden[tile], scratch[X])
                copy_block(tape.hidden_d[tile], scratch[XD])
            square_mixed(params, start, scratch, gradient)
        copy_block(scratch[DX], tape.d_hidden[tile])
