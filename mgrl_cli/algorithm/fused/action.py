"""Numba kernels of the action network: four passes over every tile and action dimension.

Parameters come as the flat α. Within a layer the order is weight, bias, gain, bias of LayerNorm.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - numba infers the types, one set per dtype

from typing import no_type_check

from mgrl_cli.algorithm.fused.kernels import (
    BLOCK,
    TILE,
    WIDTH,
    add_row_sums,
    add_weighted_row_sums,
    apply_square,
    apply_square_turned,
    fill_rows,
    outer_square,
    read_out,
    scale_block,
    turn,
)
from mgrl_cli.algorithm.fused.layers import (
    DOUT,
    DX,
    DZ,
    DZD,
    TURNED,
    TURNED_D,
    XD,
    ZD,
    X,
    Z,
    block,
    layer_adjoint,
    layer_forward,
    layer_mixed,
    layer_output,
    layer_output_tangent,
    layer_tangent,
)
from mgrl_cli.algorithm.fused.layout import (
    ACTION,
    ACTION_BIAS,
    CHOSEN,
    CHOSEN_D,
    D_CHOSEN,
    REPLAYED,
    SQUARE,
)
from mgrl_cli.algorithm.fused.scalar_math import kernel


@kernel
@no_type_check
def vector(params, start):
    """Return one vector of `WIDTH` parameters."""
    return params[start : start + WIDTH]


@kernel
@no_type_check
def norm(params, bias):
    """Return gain and bias of the LayerNorm that follows a linear layer whose bias begins there."""
    return params[bias + WIDTH : bias + 3 * WIDTH]


@kernel
@no_type_check
def _pre_activation(params, tape, tile, j, k):
    """Return where layer k's pre-activation is kept; the first layer's is computed, not kept."""
    if k > 0:
        return tape.action_z[tile, j, k - 1]
    z, pair, start = block(tape.scratch, Z), tape.pairs[tile, j], ACTION[0]
    replayed, chosen = pair[REPLAYED], pair[CHOSEN]
    for o in range(WIDTH):
        a, b, c = params[start + o], params[start + WIDTH + o], params[start + 2 * WIDTH + o]
        row = z[o * TILE : (o + 1) * TILE]
        for m in range(TILE):
            row[m] = a * replayed[m] + b * chosen[m] + c
    return z


@kernel
@no_type_check
def _pre_activation_tangent(params, tape, tile, j, k):
    """Return where its tangent is kept; the first layer's is computed, not kept."""
    if k > 0:
        return tape.action_zd[tile, j, k - 1]
    zd, chosen_d = block(tape.scratch, ZD), tape.pairs[tile, j, CHOSEN_D]
    for o in range(WIDTH):
        b, row = params[ACTION[0] + WIDTH + o], zd[o * TILE : (o + 1) * TILE]
        for m in range(TILE):
            row[m] = b * chosen_d[m]
    return zd


@kernel
@no_type_check
def action_forward(params, tape):
    """Fill the pre-activations of the action network and the mean over action dimensions."""
    t = params.dtype.type
    x = block(tape.scratch, X)
    tiles, dimensions = tape.pairs.shape[:2]
    share = t(1) / t(dimensions)
    for tile in range(tiles):
        mean = block(tape.features[tile], 0)
        mean[:] = t(0)
        for j in range(dimensions):
            for k in range(3):
                z, bias = _pre_activation(params, tape, tile, j, k), ACTION_BIAS[k]
                if k > 0:
                    fill_rows(vector(params, bias), z)
                    apply_square(params[ACTION[k] : bias], x, z)
                layer_forward(z, tape.action_stats[tile, j, k], norm(params, bias), x)
            for m in range(BLOCK):
                mean[m] += share * x[m]


@kernel
@no_type_check
def action_adjoint(params, tape):
    """Pull the adjoint of the mean action feature back to the policy's actions.

    From the last tile to the first, whose features are what the cache holds of the forward pass.
    """
    t = params.dtype.type
    dz = block(tape.scratch, DZ)
    tiles, dimensions = tape.pairs.shape[:2]
    share = t(1) / t(dimensions)
    for tile in range(tiles - 1, -1, -1):
        for j in range(dimensions - 1, -1, -1):
            dout = block(tape.scratch, DOUT)
            scale_block(tape.d_features[tile], share, dout)
            for k in range(2, -1, -1):
                z, gain = _pre_activation(params, tape, tile, j, k), ACTION_BIAS[k] + WIDTH
                layer_adjoint(z, dout, tape.action_stats[tile, j, k], vector(params, gain), dz)
                if k > 0:
                    dout = tape.action_dout[tile, j, k - 1]
                    dout[:] = t(0)
                    apply_square_turned(params[ACTION[k] : ACTION_BIAS[k]], dz, dout)
            read_out(vector(params, ACTION[0] + WIDTH), dz, tape.pairs[tile, j, D_CHOSEN])


@kernel
@no_type_check
def action_tangent(params, tape):
    """Push the tangent of the policy's actions to the mean action feature."""
    t = params.dtype.type
    xd = block(tape.scratch, XD)
    tiles, dimensions = tape.pairs.shape[:2]
    share = t(1) / t(dimensions)
    for tile in range(tiles):
        mean = tape.features_d[tile]
        mean[:] = t(0)
        for j in range(dimensions):
            for k in range(3):
                z = _pre_activation(params, tape, tile, j, k)
                zd = _pre_activation_tangent(params, tape, tile, j, k)
                if k > 0:
                    zd[:] = t(0)
                    apply_square(params[ACTION[k] : ACTION_BIAS[k]], xd, zd)
                gain = vector(params, ACTION_BIAS[k] + WIDTH)
                layer_tangent(z, zd, tape.action_stats[tile, j, k], gain, xd)
            for m in range(BLOCK):
                mean[m] += share * xd[m]


@kernel
@no_type_check
def action_mixed(params, tape, gradient):
    """Add the action network's share of the mixed gradient; leave that of the actions in pairs.

    From the last tile to the first, as `action_adjoint`.
    """
    t = params.dtype.type
    scratch = tape.scratch
    tiles, dimensions = tape.pairs.shape[:2]
    share = t(1) / t(dimensions)
    for tile in range(tiles - 1, -1, -1):
        for j in range(dimensions - 1, -1, -1):
            dout = block(scratch, DOUT)
            scale_block(tape.d_features[tile], share, dout)
            scale_block(block(tape.d_features_d[tile], 0), share, block(scratch, DX))
            stats = tape.action_stats[tile, j]
            z, zd = tape.action_z[tile, j, 1], tape.action_zd[tile, j, 1]
            for k in range(2, -1, -1):
                gain = vector(params, ACTION_BIAS[k] + WIDTH)
                layer_mixed(z, zd, dout, stats[k], gain, tape.sums[k], scratch)
                if k > 0:
                    dout = tape.action_dout[tile, j, k - 1]
                    z = _pre_activation(params, tape, tile, j, k - 1)
                    zd = _pre_activation_tangent(params, tape, tile, j, k - 1)
                    both_outputs(params, ACTION_BIAS[k - 1], z, zd, stats[k - 1], scratch)
                    square_mixed(params, ACTION[k], scratch, gradient)
            _pair_mixed(params, tape.pairs[tile, j], scratch, gradient)


@kernel
@no_type_check
def both_outputs(params, bias, z, zd, stats, scratch):
    """Write X and XD, a layer's output and its tangent, once its statistics are known."""
    layer_output(z, stats, norm(params, bias), block(scratch, X))
    layer_output_tangent(z, zd, stats, vector(params, bias + WIDTH), block(scratch, XD))


@kernel
@no_type_check
def square_mixed(params, start, scratch, gradient):
    """Add a square layer's weight and bias gradient from X, XD, DZ, DZD; write DX."""
    turned, turned_d = block(scratch, TURNED), block(scratch, TURNED_D)
    turn(block(scratch, DZ), WIDTH, turned)
    turn(block(scratch, DZD), WIDTH, turned_d)
    weight, dx = gradient[start : start + SQUARE], block(scratch, DX)
    outer_square(block(scratch, X), turned_d, weight)
    outer_square(block(scratch, XD), turned, weight)
    add_row_sums(turned_d, vector(gradient, start + SQUARE))
    dx[:] = 0
    apply_square_turned(params[start : start + SQUARE], block(scratch, DZD), dx)


@kernel
@no_type_check
def _pair_mixed(params, pair, scratch, gradient):
    """Add the first layer's gradient and write the adjoint's tangent of the policy's action."""
    start = ACTION[0]
    read_out(vector(params, start + WIDTH), block(scratch, DZD), pair[D_CHOSEN])
    turned, turned_d = block(scratch, TURNED), block(scratch, TURNED_D)
    turn(block(scratch, DZ), WIDTH, turned)
    turn(block(scratch, DZD), WIDTH, turned_d)
    for_chosen = vector(gradient, start + WIDTH)
    add_weighted_row_sums(turned_d, pair[REPLAYED], vector(gradient, start))
    add_weighted_row_sums(turned_d, pair[CHOSEN], for_chosen)
    add_weighted_row_sums(turned, pair[CHOSEN_D], for_chosen)
    add_row_sums(turned_d, vector(gradient, start + 2 * WIDTH))
