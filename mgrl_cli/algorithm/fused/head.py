"""Numba kernels of the head: hidden state → loss, through two normalised layers."""

# ruff: noqa: ANN001, ANN201, ANN202 - numba infers the types, one set per dtype

from typing import no_type_check

from mgrl_cli.algorithm.fused.action import both_outputs, norm, square_mixed, vector
from mgrl_cli.algorithm.fused.kernels import (
    TILE,
    WIDTH,
    apply_square,
    apply_square_turned,
    copy_block,
    fill_rows,
    read_out,
)
from mgrl_cli.algorithm.fused.layers import (
    DX,
    DZ,
    XD,
    X,
    block,
    layer_adjoint,
    layer_forward,
    layer_mixed,
    layer_tangent,
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
    x = block(tape.scratch, X)
    for tile in range(tape.output.shape[0]):
        copy_block(tape.hidden[tile], x)
        for k in range(2):
            z, bias = tape.head_z[tile, k], HEAD[k] + SQUARE
            fill_rows(vector(params, bias), z)
            apply_square(params[HEAD[k] : bias], x, z)
            layer_forward(z, tape.head_stats[tile, k], norm(params, bias), x)
        squashed = tape.output[tile, SQUASHED]
        read_out(vector(params, HEAD_OUT), x, squashed)
        bias = params[HEAD_OUT + WIDTH]
        for m in range(TILE):
            squashed[m] = tanh((squashed[m] + bias) / t(bound))


@kernel
@no_type_check
def head_adjoint(params, tape):
    """Pull the weighted losses back to the hidden states."""
    t = params.dtype.type
    dz = block(tape.scratch, DZ)
    for tile in range(tape.output.shape[0]):
        output = tape.output[tile]
        squashed, weight, d_output = output[SQUASHED], output[WEIGHT], output[D_OUTPUT]
        for m in range(TILE):
            d_output[m] = weight[m] * (t(1) - squashed[m] * squashed[m])
        _spread(params, d_output, tape.head_dout[tile, 1])
        for k in range(1, -1, -1):
            start, bias = HEAD[k], HEAD[k] + SQUARE
            z, dout, gain = (
                tape.head_z[tile, k],
                tape.head_dout[tile, k],
                vector(params, bias + WIDTH),
            )
            layer_adjoint(z, dout, tape.head_stats[tile, k], gain, dz)
            before = tape.head_dout[tile, 0] if k == 1 else tape.d_hidden[tile]
            before[:] = t(0)
            apply_square_turned(params[start:bias], dz, before)


@kernel
@no_type_check
def head_tangent(params, bound, tape):
    """Push the tangents of the hidden states to the output."""
    t = params.dtype.type
    xd = block(tape.scratch, XD)
    for tile in range(tape.output.shape[0]):
        copy_block(tape.hidden_d[tile], xd)
        for k in range(2):
            z, zd, start, bias = (
                tape.head_z[tile, k],
                tape.head_zd[tile, k],
                HEAD[k],
                HEAD[k] + SQUARE,
            )
            zd[:] = t(0)
            apply_square(params[start:bias], xd, zd)
            layer_tangent(z, zd, tape.head_stats[tile, k], vector(params, bias + WIDTH), xd)
        squashed, tangent = tape.output[tile, SQUASHED], tape.output[tile, OUTPUT_D]
        read_out(vector(params, HEAD_OUT), xd, tangent)
        for m in range(TILE):
            tangent[m] *= (t(1) - squashed[m] * squashed[m]) / t(bound)


@kernel
@no_type_check
def head_mixed(params, tape, gradient):
    """Add the head's mixed gradient; leave the tangent of the hidden states' adjoint."""
    t = params.dtype.type
    scratch, tangent = tape.scratch, tape.scratch_lane
    x, xd, dx = block(scratch, X), block(scratch, XD), block(scratch, DX)
    for tile in range(tape.output.shape[0]):
        z, zd, dout = tape.head_z[tile], tape.head_zd[tile], tape.head_dout[tile]
        stats, output = tape.head_stats[tile], tape.output[tile]
        squashed, weight, output_d = output[SQUASHED], output[WEIGHT], output[OUTPUT_D]
        for m in range(TILE):
            tangent[m] = -t(2) * weight[m] * squashed[m] * output_d[m]
        both_outputs(params, HEAD[1] + SQUARE, z[1], zd[1], stats[1], scratch)
        sums, d_output = tape.sums[5, 0], output[D_OUTPUT]
        for o in range(WIDTH):
            a, b = o * TILE, (o + 1) * TILE
            row, x_row, xd_row = sums[a:b], x[a:b], xd[a:b]
            for m in range(TILE):
                row[m] += x_row[m] * tangent[m] + xd_row[m] * d_output[m]
        for m in range(TILE):
            gradient[HEAD_OUT + WIDTH] += tangent[m]
        _spread(params, tangent, dx)
        for k in range(1, -1, -1):
            start, gain = HEAD[k], vector(params, HEAD[k] + SQUARE + WIDTH)
            layer_mixed(z[k], zd[k], dout[k], stats[k], gain, tape.sums[3 + k], scratch)
            if k == 1:
                both_outputs(params, HEAD[0] + SQUARE, z[0], zd[0], stats[0], scratch)
            else:
                copy_block(tape.hidden[tile], x)
                copy_block(tape.hidden_d[tile], xd)
            square_mixed(params, start, scratch, gradient)
        copy_block(dx, tape.d_hidden[tile])
