"""Numba kernels of the signal network: it has no tangent, only parameters with a gradient."""

# ruff: noqa: ANN001, ANN201, ANN202 - numba infers the types, one set per dtype

from typing import no_type_check

from mgrl_cli.algorithm.fused.action import vector
from mgrl_cli.algorithm.fused.kernels import (
    BLOCK,
    TILE,
    WIDTH,
    add_row_sums,
    apply_narrow,
    apply_narrow_turned,
    apply_square,
    apply_square_turned,
    fill_rows,
    outer_narrow,
    outer_square,
    turn,
)
from mgrl_cli.algorithm.fused.layers import (
    DX,
    DZ,
    TURNED,
    X,
    activated,
    block,
    through_activation,
)
from mgrl_cli.algorithm.fused.layout import SIGNAL_1, SIGNAL_2, SIGNAL_OUT, SIGNALS, SQUARE
from mgrl_cli.algorithm.fused.scalar_math import kernel

_HALF = BLOCK // 2


@kernel
@no_type_check
def _activate(z, x):
    """Write the mixed activation of a block."""
    for m in range(_HALF):
        x[m] = activated(z[m], False)
    for m in range(_HALF, BLOCK):
        x[m] = activated(z[m], True)


@kernel
@no_type_check
def _pull_back(z, dx, dz):
    """Write the adjoint of a block's pre-activation."""
    for m in range(_HALF):
        dz[m] = through_activation(z[m], dx[m], False)
    for m in range(_HALF, BLOCK):
        dz[m] = through_activation(z[m], dx[m], True)


@kernel
@no_type_check
def signal_forward(params, tape):
    """Fill the pre-activations of the signal network and its share of the features."""
    x = block(tape.scratch, X)
    for tile in range(tape.signal.shape[0]):
        z1, z2 = tape.signal[tile, 0], tape.signal[tile, 1]
        fill_rows(vector(params, SIGNAL_1 + 4 * WIDTH), z1)
        apply_square(params[SIGNAL_1:SIGNAL_2], tape.signal_input[tile], z1)
        _activate(z1, x)
        fill_rows(vector(params, SIGNAL_2 + SQUARE), z2)
        apply_square(params[SIGNAL_2:SIGNAL_OUT], x, z2)
        _activate(z2, x)
        features = tape.features[tile][BLOCK:]
        bias = SIGNAL_OUT + WIDTH * SIGNALS
        fill_rows(params[bias : bias + SIGNALS], features)
        apply_narrow(params[SIGNAL_OUT:bias], x, features)


@kernel
@no_type_check
def signal_mixed(params, tape, gradient):
    """Add the signal network's gradient under the adjoint of its features."""
    scratch = tape.scratch
    x, dx = block(scratch, X), block(scratch, DX)
    dz, turned = block(scratch, DZ), block(scratch, TURNED)
    bias_1, bias_2, bias = SIGNAL_1 + 4 * WIDTH, SIGNAL_2 + SQUARE, SIGNAL_OUT + WIDTH * SIGNALS
    for tile in range(tape.signal.shape[0]):
        z1, z2 = tape.signal[tile, 0], tape.signal[tile, 1]
        d_features, narrow = tape.d_features_d[tile][BLOCK:], turned[: TILE * SIGNALS]
        turn(d_features, SIGNALS, narrow)
        _activate(z2, x)
        outer_narrow(x, narrow, gradient[SIGNAL_OUT:bias])
        add_row_sums(narrow, gradient[bias : bias + SIGNALS])
        dx[:] = 0
        apply_narrow_turned(params[SIGNAL_OUT:bias], d_features, dx)
        _pull_back(z2, dx, dz)
        _activate(z1, x)
        turn(dz, WIDTH, turned)
        outer_square(x, turned, gradient[SIGNAL_2:bias_2])
        add_row_sums(turned, vector(gradient, bias_2))
        dx[:] = 0
        apply_square_turned(params[SIGNAL_2:bias_2], dz, dx)
        _pull_back(z1, dx, dz)
        turn(dz, WIDTH, turned)
        outer_square(tape.signal_input[tile], turned, gradient[SIGNAL_1:bias_1])
        add_row_sums(turned, vector(gradient, bias_1))
