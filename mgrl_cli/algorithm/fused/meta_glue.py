"""Compiled: what lies between the networks in a meta-gradient of one virtual step.

One call where torch takes many. The plain form, and what the quantities mean, is in
`meta_gradient`; tests hold both to the same numbers. float32 only. Needs numba (the extra "fast").
"""

# ruff: noqa: ANN001, ANN201 - numba infers the types

from typing import no_type_check

import numpy as np

from mgrl_cli.algorithm.fused.scalar_math import compiled

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_ROWS, _STEPS, _MASK = "f4[:,::1]", "f4[:,:,::1]", "b1[:,::1]"


@compiled("void", _STEPS, _ROWS, _ROWS)
@no_type_check
def through_tanh(c, action, cotangent):
    """Fill the cotangent of z at all steps from that of a [batch, time, act]."""
    batch, steps, act_size = c.shape
    for b in range(batch):
        for t in range(steps):
            row = b * steps + t
            for j in range(act_size):
                a = action[row, j]
                cotangent[row, j] = c[b, t, j] * (_ONE - a * a)


@compiled("void", _ROWS, _ROWS, _STEPS)
@no_type_check
def tangent_of_action(tangent, action, u):
    """Fill ∂a [batch, time, act] from the tangent of z at all steps [steps, act]."""
    batch, steps, act_size = u.shape
    for b in range(batch):
        for t in range(steps):
            row = b * steps + t
            for j in range(act_size):
                a = action[row, j]
                u[b, t, j] = tangent[row, j] * (_ONE - a * a)


@compiled("void", _STEPS, _ROWS, _ROWS)
@no_type_check
def action_slope(slope, action, cotangent):
    """Fill the cotangent of z from the first critic's slope in the action [1, rows, act]."""
    for row in range(len(cotangent)):
        for j in range(action.shape[1]):
            a = action[row, j]
            cotangent[row, j] = slope[0, row, j] * (_ONE - a * a)


@compiled("void", _STEPS, _STEPS, _MASK, _MASK, _ROWS, _ROWS)
@no_type_check
def judge(first_obs, second_obs, first_valid, second_valid, obs, cotangent):
    """Fill the states that J looks at, and ∂J/∂Q of each: -1/n where valid, else 0."""
    batch, steps = first_valid.shape
    count = 0
    for b in range(batch):
        for t in range(steps):
            count += first_valid[b, t]
            count += second_valid[b, t]
    weight = -_ONE / np.float32(max(count, 1))
    for b in range(batch):
        for t in range(steps):
            row = b * steps + t
            other = batch * steps + row
            for i in range(obs.shape[1]):
                obs[row, i] = first_obs[b, t, i]
                obs[other, i] = second_obs[b, t, i]
            cotangent[0, row] = weight if first_valid[b, t] else _ZERO
            cotangent[0, other] = weight if second_valid[b, t] else _ZERO


@compiled("void", _ROWS, _ROWS, _ROWS)
@no_type_check
def split_values(q, value, next_value):
    """Fill V_t and V_{t+1} [batch, time] from Q at all rows, see `glue.line_up`, [1, rows]."""
    batch, steps = value.shape
    for b in range(batch):
        for t in range(steps):
            row = b * steps + t
            value[b, t] = q[0, row]
            next_value[b, t] = q[0, row + 1 if t < steps - 1 else batch * steps + b]
