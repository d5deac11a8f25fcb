"""The fused learned objective in four passes: numba kernels that Python calls.

`forward` fills a tape; `adjoint` pulls weighted losses back to the policy's actions; `tangent` and
`mixed` are the tangents of the two along a change of the actions, which gives second derivatives:
two kernels, so that two processes can compile them at once. numba keeps machine code in
`__pycache__` (or NUMBA_CACHE_DIR, or a user cache where neither can be written).
"""

# ruff: noqa: ANN001, ANN202 - numba infers the types, one set per dtype

from collections.abc import Callable
from typing import NamedTuple, no_type_check

from numba import njit

from mgrl_cli.algorithm.fused.action import (
    action_adjoint,
    action_forward,
    action_mixed,
    action_tangent,
    vector,
)
from mgrl_cli.algorithm.fused.head import head_adjoint, head_forward, head_mixed, head_tangent
from mgrl_cli.algorithm.fused.kernels import (
    STATE,
    TILE_STEPS,
    WIDTH,
    add_row_sums,
    apply_gates,
    apply_gates_turned,
    outer_gates,
    turn,
)
from mgrl_cli.algorithm.fused.layers import TURNED, X, block
from mgrl_cli.algorithm.fused.layout import (
    ACTION_BIAS,
    CHOSEN,
    CHOSEN_D,
    D_CHOSEN,
    HEAD,
    HEAD_OUT,
    LSTM_BIAS,
    LSTM_INPUT,
    LSTM_STATE,
    REPLAYED,
    SQUARE,
    SQUASHED,
    WEIGHT,
)
from mgrl_cli.algorithm.fused.lstm import (
    D_CELL,
    D_CELL_D,
    D_HIDDEN,
    D_HIDDEN_D,
    GATES,
    HIDDEN,
    HIDDEN_D,
    lstm_adjoint,
    lstm_forward,
    lstm_mixed,
    lstm_tangent,
    project_inputs,
    steps_to_tile,
    tile_to_steps,
)
from mgrl_cli.algorithm.fused.packing import (
    put_is_read,
    put_output,
    put_pairs,
    put_signals,
    take_output,
    take_pairs,
)
from mgrl_cli.algorithm.fused.scalar_math import OPTIONS, kernel
from mgrl_cli.algorithm.fused.signals import signal_forward, signal_mixed


@kernel
@no_type_check
def _recurrent_forward(params, tape):
    weight, bias = params[LSTM_INPUT:LSTM_STATE], params[LSTM_BIAS : LSTM_BIAS + GATES]
    groups, steps = tape.gates.shape[:2]
    tiles = tape.hidden.shape[0] // groups
    for g in range(groups):
        features = tape.features[g * tiles : (g + 1) * tiles]
        project_inputs(weight, bias, features, tape.wide[0], tape.gates[g])
        lstm_forward(params[LSTM_STATE:LSTM_BIAS], tape.is_read[g], tape.gates[g], tape.state[g])
        for q in range(tiles):
            states = tape.state[g, :steps]
            steps_to_tile(states, HIDDEN, q * TILE_STEPS, WIDTH, tape.hidden[g * tiles + q])


@kernel
@no_type_check
def _recurrent_adjoint(params, tape):
    groups, steps = tape.gates.shape[:2]
    tiles = tape.hidden.shape[0] // groups
    for g in range(groups):
        state = tape.state[g]
        for q in range(tiles):
            asked = tape.d_hidden[g * tiles + q]
            tile_to_steps(asked, D_HIDDEN, q * TILE_STEPS, WIDTH, state[:steps])
        state[0, D_CELL : D_CELL + STATE] = 0
        state[steps, D_HIDDEN : D_HIDDEN + STATE] = 0
        lstm_adjoint(params[LSTM_STATE:LSTM_BIAS], tape.gates[g], state, tape.d_gates[g])
        for q in range(tiles):
            steps_to_tile(tape.d_gates[g], 0, q * TILE_STEPS, GATES, tape.wide[0])
            d_features = tape.d_features[g * tiles + q]
            d_features[:] = 0
            apply_gates_turned(params[LSTM_INPUT:LSTM_STATE], tape.wide[0], d_features)


@kernel
@no_type_check
def _recurrent_tangent(params, tape):
    groups, steps = tape.gates.shape[:2]
    tiles = tape.hidden.shape[0] // groups
    for g in range(groups):
        for q in range(tiles):
            tape.wide[0][:] = 0
            features_d = tape.features_d[g * tiles + q]
            apply_gates(params[LSTM_INPUT:LSTM_STATE], features_d, tape.wide[0])
            tile_to_steps(tape.wide[0], 0, q * TILE_STEPS, GATES, tape.gates_d[g])
        weight = params[LSTM_STATE:LSTM_BIAS]
        lstm_tangent(weight, tape.gates[g], tape.state[g], tape.gates_d[g])
        for q in range(tiles):
            states = tape.state[g, :steps]
            steps_to_tile(states, HIDDEN_D, q * TILE_STEPS, WIDTH, tape.hidden_d[g * tiles + q])


@kernel
@no_type_check
def _recurrent_mixed(params, tape, gradient):
    groups, steps = tape.gates.shape[:2]
    tiles = tape.hidden.shape[0] // groups
    for g in range(groups):
        state = tape.state[g]
        for q in range(tiles):
            asked = tape.d_hidden[g * tiles + q]
            tile_to_steps(asked, D_HIDDEN_D, q * TILE_STEPS, WIDTH, state[:steps])
        state[0, D_CELL_D : D_CELL_D + STATE] = 0
        state[steps, D_HIDDEN_D : D_HIDDEN_D + STATE] = 0
        weight = params[LSTM_STATE:LSTM_BIAS]
        lstm_mixed(weight, tape.gates[g], state, tape.gates_d[g], tape.d_gates_d[g])
        for q in range(tiles):
            _gate_gradient(params, tape, g, q, gradient)


@kernel
@no_type_check
def _gate_gradient(params, tape, g, q, gradient):
    """Add one tile's share of the LSTM's gradient; leave the tangent of the features' adjoint."""
    first = q * TILE_STEPS
    tile = g * (tape.hidden.shape[0] // tape.gates.shape[0]) + q
    wide, turned, turned_d = tape.wide[0], tape.wide[1], tape.wide[2]
    steps_to_tile(tape.d_gates[g], 0, first, GATES, wide)
    turn(wide, GATES, turned)
    steps_to_tile(tape.d_gates_d[g], 0, first, GATES, wide)
    turn(wide, GATES, turned_d)
    d_features_d = tape.d_features_d[tile]
    d_features_d[:] = 0
    apply_gates_turned(params[LSTM_INPUT:LSTM_STATE], wide, d_features_d)
    for_input, for_state = gradient[LSTM_INPUT:LSTM_STATE], gradient[LSTM_STATE:LSTM_BIAS]
    outer_gates(tape.features[tile], turned_d, for_input)
    outer_gates(tape.features_d[tile], turned, for_input[: WIDTH * GATES])
    before = block(tape.scratch, X)
    steps_to_tile(tape.state[g, 1:], HIDDEN, first, WIDTH, before)
    outer_gates(before, turned_d, for_state)
    steps_to_tile(tape.state[g, 1:], HIDDEN_D, first, WIDTH, before)
    outer_gates(before, turned, for_state)
    add_row_sums(turned_d, gradient[LSTM_BIAS : LSTM_BIAS + GATES])


@kernel
@no_type_check
def _collect_sums(tape, gradient):
    """Add up the lanes of the gradients of LayerNorm's gains and biases and of the last layer."""
    turned = block(tape.scratch, TURNED)
    for layer in range(5):
        start = ACTION_BIAS[layer] if layer < 3 else HEAD[layer - 3] + SQUARE
        for which in range(2):
            turn(tape.sums[layer, which], WIDTH, turned)
            add_row_sums(turned, vector(gradient, start + (which + 1) * WIDTH))
    turn(tape.sums[5, 0], WIDTH, turned)
    add_row_sums(turned, vector(gradient, HEAD_OUT))


class Passes(NamedTuple):
    """What Python calls; every function leaves in the tape what the next one needs."""

    forward: Callable[..., None]
    """(α, options, batch, tape, losses): fills losses [batch, time]."""
    adjoint: Callable[..., None]
    """(α, tape, weights, c): fills c = ∂(Σ weights · ℓ)/∂a [batch, time, act]."""
    tangent: Callable[..., None]
    """(α, options, tape, u): the change of `forward` along a change u of the actions."""
    mixed: Callable[..., None]
    """(α, tape, gradient, action_part): fills ∇_α⟨c, u⟩ and ∇_a⟨c, u⟩."""


def compile_passes(source: str) -> Passes:
    """Return the passes, compiled at their first call for each dtype or loaded from numba's cache.

    Args:
        source: identifies the code of all kernels. numba's cache looks at this file only, and at
            what a function closes over: without it, old code would outlive a change elsewhere.
    """

    @njit(cache=True, **OPTIONS)
    @no_type_check
    def forward(params, options, batch, tape, losses):
        _ = source
        put_pairs(batch.action, REPLAYED, tape.pairs)
        put_pairs(batch.policy_action, CHOSEN, tape.pairs)
        put_signals(batch, options, tape)
        put_is_read(batch.is_valid, options.padding_first, tape.is_read)
        action_forward(params, tape)
        signal_forward(params, tape)
        _recurrent_forward(params, tape)
        head_forward(params, options.bound, tape)
        take_output(tape.output, SQUASHED, params.dtype.type(options.bound), losses)

    @njit(cache=True, **OPTIONS)
    @no_type_check
    def adjoint(params, tape, weights, c):
        _ = source
        put_output(weights, WEIGHT, tape.output)
        head_adjoint(params, tape)
        _recurrent_adjoint(params, tape)
        action_adjoint(params, tape)
        take_pairs(tape.pairs, D_CHOSEN, c)

    @njit(cache=True, **OPTIONS)
    @no_type_check
    def tangent(params, options, tape, u):
        _ = source
        put_pairs(u, CHOSEN_D, tape.pairs)
        action_tangent(params, tape)
        _recurrent_tangent(params, tape)
        head_tangent(params, options.bound, tape)

    @njit(cache=True, **OPTIONS)
    @no_type_check
    def mixed(params, tape, gradient, action_part):
        _ = source
        gradient[:] = 0
        tape.sums[:] = 0
        head_mixed(params, tape, gradient)
        _recurrent_mixed(params, tape, gradient)
        signal_mixed(params, tape, gradient)
        action_mixed(params, tape, gradient)
        _collect_sums(tape, gradient)
        take_pairs(tape.pairs, D_CHOSEN, action_part)

    return Passes(forward, adjoint, tangent, mixed)
