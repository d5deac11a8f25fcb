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
    apply_square,
    apply_square_turned,
    fill_rows,
    outer_square,
    turn,
)
from mgrl_cli.algorithm.fused.layers import (
    DOUT,
    DX,
    DZ,
    DZD,
    ND,
    TURNED,
    TURNED_D,
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
def action_forward(params, tape):
    """Fill the pre-activations of the action network and the mean over action dimensions."""
    t = params.dtype.type
    x, n = tape.scratch[X], tape.scratch[N]
    tiles, dimensions = tape.action.shape[:2]
    share = t(1) / t(dimensions)
    for tile in range(tiles):
        mean = tape.features[tile][:BLOCK]
        mean[:] = t(0)
        for j in range(dimensions):
            for k in range(3):
                z, bias = tape.action[tile, j, k, Z], ACTION_BIAS[k]
                if k == 0:
                    _pair_forward(params, tape.pairs[tile, j], z)
                else:
                    fill_rows(vector(params, bias), z)
                    apply_square(params[ACTION[k] : bias], x, z)
                normalise(z, tape.action_stats[tile, j, k], n)
                affine(n, vector(params, bias + WIDTH), vector(params, bias + 2 * WIDTH), x)
            for m in range(BLOCK):
                mean[m] += share * x[m]


@kernel
@no_type_check
def _pair_forward(params, pair, z):
    """Write the first layer's pre-activation of one action dimension."""
    start = ACTION[0]
    replayed, chosen = pair[REPLAYED], pair[CHOSEN]
    for o in range(WIDTH):
        a, b, c = params[start + o], params[start + WIDTH + o], params[start + 2 * WIDTH + o]
        row = z[o * TILE : (o + 1) * TILE]
        for m in range(TILE):
            row[m] = a * replayed[m] + b * chosen[m] + c


@kernel
@no_type_check
def _pair_adjoint(params, dz, d_chosen):
    """Write the first layer's adjoint of the policy's action."""
    d_chosen[:] = 0
    for o in range(WIDTH):
        b, row = params[ACTION[0] + WIDTH + o], dz[o * TILE : (o + 1) * TILE]
        for m in range(TILE):
            d_chosen[m] += b * row[m]


@kernel
@no_type_check
def action_adjoint(params, tape):
    """Pull the adjoint of the mean action feature back to the policy's actions."""
    t = params.dtype.type
    scratch = tape.scratch
    tiles, dimensions = tape.action.shape[:2]
    share = t(1) / t(dimensions)
    for tile in range(tiles):
        from_mean = tape.d_features[tile]
        for j in range(dimensions):
            dout = tape.action[tile, j, 2, DOUT]
            for m in range(BLOCK):
                dout[m] = share * from_mean[m]
            for k in range(2, -1, -1):
                layer, stats = tape.action[tile, j, k], tape.action_stats[tile, j, k]
                normalise_again(layer[Z], stats, scratch[N])
                layer_adjoint(layer, stats, vector(params, ACTION_BIAS[k] + WIDTH), scratch)
                if k > 0:
                    before = tape.action[tile, j, k - 1, DOUT]
                    before[:] = t(0)
                    apply_square_turned(params[ACTION[k] : ACTION_BIAS[k]], scratch[DZ], before)
            _pair_adjoint(params, scratch[DZ], tape.pairs[tile, j, D_CHOSEN])


@kernel
@no_type_check
def action_tangent(params, tape):
    """Push the tangent of the policy's actions to the mean action feature."""
    t = params.dtype.type
    scratch = tape.scratch
    xd = scratch[XD]
    tiles, dimensions = tape.action.shape[:2]
    share = t(1) / t(dimensions)
    for tile in range(tiles):
        mean = tape.features_d[tile]
        mean[:] = t(0)
        for j in range(dimensions):
            tangent = tape.pairs[tile, j, CHOSEN_D]
            for k in range(3):
                layer, stats = tape.action[tile, j, k], tape.action_stats[tile, j, k]
                zd = layer[ZD]
                if k == 0:
                    for o in range(WIDTH):
                        b = params[ACTION[0] + WIDTH + o]
                        row = zd[o * TILE : (o + 1) * TILE]
                        for m in range(TILE):
                            row[m] = b * tangent[m]
                else:
                    zd[:] = t(0)
                    apply_square(params[ACTION[k] : ACTION_BIAS[k]], xd, zd)
                normalise_again(layer[Z], stats, scratch[N])
                layer_tangent(layer, stats, scratch)
                scale_rows(scratch[ND], vector(params, ACTION_BIAS[k] + WIDTH), xd)
            for m in range(BLOCK):
                mean[m] += share * xd[m]


@kernel
@no_type_check
def action_mixed(params, tape, gradient):
    """Add the action network's share of the mixed gradient; leave that of the actions in pairs."""
    t = params.dtype.type
    scratch = tape.scratch
    tiles, dimensions = tape.action.shape[:2]
    share = t(1) / t(dimensions)
    for tile in range(tiles):
        from_mean = tape.d_features[tile]
        for j in range(dimensions):
            for m in range(BLOCK):
                scratch[DX][m] = share * from_mean[m]
            layers, stats = tape.action[tile, j], tape.action_stats[tile, j]
            _normals(layers[2], stats[2], scratch)
            for k in range(2, 0, -1):
                layer_mixed(
                    layers[k],
                    stats[k],
                    vector(params, ACTION_BIAS[k] + WIDTH),
                    tape.sums[k],
                    scratch,
                )
                _normals(layers[k - 1], stats[k - 1], scratch)
                gain, bias = ACTION_BIAS[k - 1] + WIDTH, ACTION_BIAS[k - 1] + 2 * WIDTH
                affine(scratch[N], vector(params, gain), vector(params, bias), scratch[X])
                scale_rows(scratch[ND], vector(params, gain), scratch[XD])
                square_mixed(params, ACTION[k], scratch, gradient)
            gain = vector(params, ACTION_BIAS[0] + WIDTH)
            layer_mixed(layers[0], stats[0], gain, tape.sums[0], scratch)
            _pair_mixed(params, tape.pairs[tile, j], scratch, gradient)


@kernel
@no_type_check
def _normals(layer, stats, scratch):
    """Write N and ND of a layer whose statistics are known."""
    normalise_again(layer[Z], stats, scratch[N])
    layer_tangent_again(layer, stats, scratch)


@kernel
@no_type_check
def square_mixed(params, start, scratch, gradient):
    """Add a square layer's weight and bias gradient from X, XD, DZ, DZD; write DX."""
    turned, turned_d = scratch[TURNED], scratch[TURNED_D]
    turn(scratch[DZ], WIDTH, turned)
    turn(scratch[DZD], WIDTH, turned_d)
    weight = gradient[start : start + SQUARE]
    outer_square(scratch[X], turned_d, weight)
    outer_square(scratch[XD], turned, weight)
    add_row_sums(turned_d, vector(gradient, start + SQUARE))
    scratch[DX][:] = 0
    apply_square_turned(params[start : start + SQUARE], scratch[DZD], scratch[DX])


@kernel
@no_type_check
def _pair_mixed(params, pair, scratch, gradient):
    """Add the first layer's gradient and write the adjoint's tangent of the policy's action."""
    _pair_adjoint(params, scratch[DZD], pair[D_CHOSEN])
    turned, turned_d = scratch[TURNED], scratch[TURNED_D]
    turn(scratch[DZ], WIDTH, turned)
    turn(scratch[DZD], WIDTH, turned_d)
    start = ACTION[0]
    for_replayed, for_chosen = vector(gradient, start), vector(gradient, start + WIDTH)
    for_bias = vector(gradient, start + 2 * WIDTH)
    for m in range(TILE):
        a, p, u = pair[REPLAYED, m], pair[CHOSEN, m], pair[CHOSEN_D, m]
        for o in range(WIDTH):
            d, dd = turned[m * WIDTH + o], turned_d[m * WIDTH + o]
            for_replayed[o] += a * dd
            for_chosen[o] += p * dd + u * d
            for_bias[o] += dd
