"""Numba kernels of the signal network: it has no tangent, only parameters with a gradient."""

# ruff: noqa: ANN001, ANN201 - numba infers the types, one set per dtype

from typing import no_type_check

from mgrl_cli.algorithm.fused.action import square_mixed, vector
from mgrl_cli.algorithm.fused.kernels import (
    BLOCK,
    TILE,
    WIDTH,
    add_row_sums,
    apply_narrow,
    apply_narrow_turned,
    apply_square,
    fill_rows,
    outer_narrow,
    outer_square,
    turn,
)
from mgrl_cli.algorithm.fused.layers import DX, DZ, DZD, TURNED, XD, X, activate, through_activation
from mgrl_cli.algorithm.fused.layout import SIGNAL_1, SIGNAL_2, SIGNAL_OUT, SIGNALS, SQUARE
from mgrl_cli.algorithm.fused.scalar_math import kernel


@kernel
@no_type_check
def signal_forward(params, tape):
    """Fill the pre-activations of the signal network and its share of the features."""
    x = tape.scratch[X]
    for tile in range(tape.signal.shape[0]):
        z1, z2 = tape.signal[tile, 0], tape.signal[tile, 1]
        fill_rows(vector(params, SIGNAL_1 + 4 * WIDTH), z1)
        apply_square(params[SIGNAL_1:SIGNAL_2], tape.signal_input[tile], z1)
        activate(z1, x)
        fill_rows(vector(params, SIGNAL_2 + SQUARE), z2)
        apply_square(params[SIGNAL_2:SIGNAL_OUT], x, z2)
        activate(z2, x)
        features = tape.features[tile][BLOCK:]
        bias = SIGNAL_OUT + WIDTH * SIGNALS
        fill_rows(params[bias : bias + SIGNALS], features)
        apply_narrow(params[SIGNAL_OUT:bias], x, features)


@kernel
@no_type_check
def signal_mixed(params, tape, gradient):
    """Add the signal network's gradient under the adjoint of its features."""
    scratch = tape.scratch
    dz, turned = scratch[DZD], scratch[TURNED]
    # `square_mixed` adds two products; the one with the tangent of the input is zero here.
    scratch[XD][:] = 0
    scratch[DZ][:] = 0
    bias = SIGNAL_OUT + WIDTH * SIGNALS
    for tile in range(tape.signal.shape[0]):
        z1, z2 = tape.signal[tile, 0], tape.signal[tile, 1]
        d_features = tape.d_features[tile][BLOCK:]
        turn(d_features, SIGNALS, turned)
        activate(z2, scratch[X])
        outer_narrow(scratch[X], turned[: TILE * SIGNALS], gradient[SIGNAL_OUT:bias])
        add_row_sums(turned[: TILE * SIGNALS], gradient[bias : bias + SIGNALS])
        scratch[DX][:] = 0
        apply_narrow_turned(params[SIGNAL_OUT:bias], d_features, scratch[DX])
        through_activation(z2, scratch[DX], dz)
        activate(z1, scratch[X])
        square_mixed(params, SIGNAL_2, scratch, gradient)
        through_activation(z1, scratch[DX], dz)
        turn(dz, WIDTH, turned)
        bias_1 = SIGNAL_1 + 4 * WIDTH
        outer_square(tape.signal_input[tile], turned, gradient[SIGNAL_1:bias_1])
        add_row_sums(turned, vector(gradient, bias_1))
