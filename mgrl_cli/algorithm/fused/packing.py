"""Numba kernels between batches [batch, time, feature] and tiles: packing, and the signals' scale.

Step t of window b is lane 16·(t mod 4) + (b mod 16) of tile (b div 16)·⌈T/4⌉ + t div 4.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - numba infers the types, one set per dtype

from math import sqrt
from typing import no_type_check

from mgrl_cli.algorithm.fused.kernels import LANES, TILE, TILE_STEPS
from mgrl_cli.algorithm.fused.scalar_math import kernel
from mgrl_cli.algorithm.objective_network import VARIANCE_FLOOR

# Rows of the signal network's input.
REWARD, TIME, NEXT_VALUE, VALUE = range(4)


@kernel
@no_type_check
def _tile_and_lane(b, t, quads):
    return (b // LANES) * quads + t // TILE_STEPS, LANES * (t % TILE_STEPS) + b % LANES


@kernel
@no_type_check
def put_pairs(x, slot, pairs):
    """Copy x [batch, time, act] into a slot of the action pairs."""
    batch, steps, dimensions = x.shape
    quads = -(-steps // TILE_STEPS)
    for b in range(batch):
        for t in range(steps):
            tile, lane = _tile_and_lane(b, t, quads)
            for j in range(dimensions):
                pairs[tile, j, slot, lane] = x[b, t, j]


@kernel
@no_type_check
def take_pairs(pairs, slot, x):
    """Copy a slot of the action pairs back to x [batch, time, act]."""
    batch, steps, dimensions = x.shape
    quads = -(-steps // TILE_STEPS)
    for b in range(batch):
        for t in range(steps):
            tile, lane = _tile_and_lane(b, t, quads)
            for j in range(dimensions):
                x[b, t, j] = pairs[tile, j, slot, lane]


@kernel
@no_type_check
def put_output(x, slot, output):
    """Copy x [batch, time] into a slot of the head's output."""
    batch, steps = x.shape
    quads = -(-steps // TILE_STEPS)
    for b in range(batch):
        for t in range(steps):
            tile, lane = _tile_and_lane(b, t, quads)
            output[tile, slot, lane] = x[b, t]


@kernel
@no_type_check
def take_output(output, slot, factor, x):
    """Copy a slot of the head's output, times a factor, back to x [batch, time]."""
    batch, steps = x.shape
    quads = -(-steps // TILE_STEPS)
    for b in range(batch):
        for t in range(steps):
            tile, lane = _tile_and_lane(b, t, quads)
            x[b, t] = factor * output[tile, slot, lane]


@kernel
@no_type_check
def _mean_and_scale(x, is_valid):
    """Return the mean over valid steps and 1 / sqrt(variance + floor), both in float64."""
    count, total, squares = 0, 0.0, 0.0
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            if is_valid[b, t]:
                count += 1
                total += x[b, t]
    mean = total / max(count, 1)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            if is_valid[b, t]:
                squares += (x[b, t] - mean) ** 2
    return mean, 1.0 / sqrt(squares / max(count, 1) + VARIANCE_FLOOR)


@kernel
@no_type_check
def put_signals(batch, options, tape):
    """Fill the input of the signal network, as `ObjectiveNetwork.normalised_signals` has it.

    Args:
        batch: `objective.Batch`.
        options: `tape.Options`.
        tape: whose `signal_input` to fill; padded steps hold zeros.
    """
    steps = batch.reward.shape[1]
    quads = -(-steps // TILE_STEPS)
    reward_mean, reward_scale = 0.0, 1.0
    value_mean, value_scale = 0.0, 1.0
    if options.normalises:
        reward_mean, reward_scale = _mean_and_scale(batch.reward, batch.is_valid)
        value_mean, value_scale = _mean_and_scale(batch.value, batch.is_valid)
    for b in range(batch.reward.shape[0]):
        for t in range(steps):
            tile, lane = _tile_and_lane(b, t, quads)
            row = tape.signal_input[tile]
            if batch.is_valid[b, t]:
                if not batch.terminated[b, t]:
                    next_value = (batch.next_value[b, t] - value_mean) * value_scale
                elif options.shows_zero:
                    next_value = -value_mean * value_scale
                else:
                    next_value = 0.0
                reward = (batch.reward[b, t] - reward_mean) * reward_scale
                row[REWARD * TILE + lane] = reward
                row[TIME * TILE + lane] = t / steps
                row[NEXT_VALUE * TILE + lane] = next_value
                row[VALUE * TILE + lane] = (batch.value[b, t] - value_mean) * value_scale
            for i in range(4):
                if not (batch.is_valid[b, t] and options.shown[i]):
                    row[i * TILE + lane] = 0


@kernel
@no_type_check
def put_is_read(is_valid, padding_first, is_read):
    """Fill the mask [group, time, lane] of the steps that the LSTM reads."""
    batch, steps = is_valid.shape
    for b in range(batch):
        length = 0
        for t in range(steps):
            length += is_valid[b, t]
        for t in range(steps):
            reads = length > steps - 1 - t if padding_first else is_valid[b, t]
            is_read[b // LANES, t, b % LANES] = reads
