"""Compiled: what lies between the networks in an agent's updates, one call where torch takes many.

The plain forms, and what the quantities mean, are in `td3`, `objectives`, `meta_gradient` and
`adam`; tests hold both to the same numbers. float32 only. Every sum is one fixed order of
additions. Needs numba (the extra "fast").
"""

# ruff: noqa: ANN001, ANN201, ANN202, PLR0913 - numba infers the types; kernels take arrays one by one

from math import isfinite, sqrt
from typing import no_type_check

import numpy as np
from numba import njit

from mgrl_cli.algorithm.fused.scalar_math import OPTIONS, kernel, tanh
from mgrl_cli.algorithm.fused.sources import digest_of

_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
_VECTOR, _ROWS, _STEPS = "f4[::1]", "f4[:,::1]", "f4[:,:,::1]"
_BOOLS, _MASK = "b1[::1]", "b1[:,::1]"


def _signature(result: str, *arguments: str) -> str:
    return f"{result}({', '.join(arguments)})"


@kernel
@no_type_check
def _clip(x, low, high):
    return min(max(x, low), high)


@kernel
@no_type_check
def _sum_of_squares(x):
    """Return Σ x² in float64, from four sums side by side."""
    whole = len(x) // 4 * 4
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    for i in range(0, whole, 4):
        a += np.float64(x[i]) * np.float64(x[i])
        b += np.float64(x[i + 1]) * np.float64(x[i + 1])
        c += np.float64(x[i + 2]) * np.float64(x[i + 2])
        d += np.float64(x[i + 3]) * np.float64(x[i + 3])
    for i in range(whole, len(x)):
        a += np.float64(x[i]) * np.float64(x[i])
    return a + b + c + d


@no_type_check
def _compile_actions(source):
    """Return the kernels that take tanh from elsewhere.

    numba's cache looks at this file only, and at what a function closes over: without the digest of
    that other file, old code would outlive a change there.
    """

    @njit(_signature("void", _ROWS, _ROWS, _ROWS, _ROWS), cache=True, **OPTIONS)
    @no_type_check
    def act(obs, pre_activation, action, pairs):
        """Fill a = tanh(z) and the critic's input [s, a]."""
        _ = source
        obs_size, act_size = obs.shape[1], action.shape[1]
        for row in range(len(obs)):
            for j in range(act_size):
                action[row, j] = tanh(pre_activation[row, j])
            for i in range(obs_size):
                pairs[row, i] = obs[row, i]
            for j in range(act_size):
                pairs[row, obs_size + j] = action[row, j]

    @njit(_signature("void", _ROWS, _ROWS, _ROWS, "f4", "f4", _ROWS), cache=True, **OPTIONS)
    @no_type_check
    def smooth(next_obs, pre_activation, noise, deviation, noise_clip, pairs):
        """Fill the target critics' input [s', clip(tanh z' + clip(σε, -c, c), -1, 1)]."""
        _ = source
        obs_size = next_obs.shape[1]
        for row in range(len(next_obs)):
            for i in range(obs_size):
                pairs[row, i] = next_obs[row, i]
            for j in range(noise.shape[1]):
                shift = _clip(noise[row, j] * deviation, -noise_clip, noise_clip)
                pairs[row, obs_size + j] = _clip(tanh(pre_activation[row, j]) + shift, -_ONE, _ONE)

    return act, smooth


act, smooth = _compile_actions(digest_of("fused/scalar_math.py"))


@njit(_signature("void", _ROWS, _ROWS, _ROWS), cache=True, **OPTIONS)
@no_type_check
def pair(obs, action, pairs):
    """Fill the critic's input [s, a]."""
    obs_size = obs.shape[1]
    for row in range(len(obs)):
        for i in range(obs_size):
            pairs[row, i] = obs[row, i]
        for j in range(action.shape[1]):
            pairs[row, obs_size + j] = action[row, j]


@njit(
    _signature("f8", _ROWS, _ROWS, _VECTOR, _BOOLS, _BOOLS, "f4", "f4", "b1", _ROWS),
    cache=True,
    **OPTIONS,
)
@no_type_check
def regress(q, next_q, reward, terminated, is_valid, discount, terminal_bonus, over_padding, slope):
    """Return the twin critics' loss against the clipped double-Q target; fill ∂L/∂q."""
    rows = len(reward)
    count = rows
    if not over_padding:
        count = 0
        for row in range(rows):
            count += is_valid[row]
    share = _ONE / np.float32(max(count, 1))
    total = 0.0
    for row in range(rows):
        target = reward[row]
        if terminated[row]:
            target += terminal_bonus
        else:
            target += discount * min(next_q[0, row], next_q[1, row])
        for net in range(2):
            error = q[net, row] - target if is_valid[row] else _ZERO
            slope[net, row] = _TWO * share * error
            total += np.float64(error) * np.float64(share * error)
    return total


@njit(
    _signature("b1", *[_VECTOR] * 4, "f8", "f8", "f8", "f8", "f8", "f8"),
    cache=True,
    **OPTIONS,
)
@no_type_check
def descend(
    params, gradient, first_moment, second_moment, steps, rate, beta1, beta2, epsilon, limit
):
    """Make Adam's step number `steps`, the gradient cut to the norm `limit` (0: not cut).

    Return False, having changed nothing, where its squares or their sum overflow float32.
    """
    squares = _sum_of_squares(gradient)
    if not isfinite(np.float32(squares)):
        return False
    scale = _ONE
    if limit > 0.0:
        scale = np.float32(min(1.0, limit / max(sqrt(squares), 1e-37)))
    keep1, add1 = np.float32(beta1), np.float32(1.0 - beta1)
    keep2, add2 = np.float32(beta2), np.float32(1.0 - beta2)
    step = np.float32(rate / (1.0 - beta1**steps))
    root = np.float32(sqrt(1.0 - beta2**steps))
    floor = np.float32(epsilon)
    for i in range(len(params)):
        g = scale * gradient[i]
        m = keep1 * first_moment[i] + add1 * g
        v = keep2 * second_moment[i] + add2 * g * g
        first_moment[i] = m
        second_moment[i] = v
        params[i] -= step * m / (np.sqrt(v) / root + floor)
    return True


@njit(_signature("void", _MASK, "b1", "f4", _ROWS, _VECTOR), cache=True, **OPTIONS)
@no_type_check
def weigh(is_valid, over_padding, share, weights, q_cotangent):
    """Fill the weight of every step in a mean, and ∂((1 - p) · mean(-Q))/∂Q of every row."""
    batch, steps = is_valid.shape
    count = batch * steps
    if not over_padding:
        count = 0
        for b in range(batch):
            for t in range(steps):
                count += is_valid[b, t]
    weight = _ONE / np.float32(max(count, 1))
    for b in range(batch):
        for t in range(steps):
            weights[b, t] = weight if is_valid[b, t] else _ZERO
            q_cotangent[b * (steps + 1) + t] = (share - _ONE) * weights[b, t]
        q_cotangent[b * (steps + 1) + steps] = _ZERO


@njit(
    _signature(
        "Tuple((f8, f8))",
        *(_STEPS, _STEPS, _ROWS, _ROWS, _VECTOR, _ROWS, _ROWS, _ROWS, _MASK, "f4", "f4", _ROWS),
    ),
    cache=True,
    **OPTIONS,
)
@no_type_check
def policy_cotangent(
    c,
    q_slope,
    losses,
    q,
    q_cotangent,
    weights,
    action,
    pre_activation,
    is_valid,
    share,
    limit,
    cotangent,
):
    """Fill the cotangent of z of a policy's loss; return the loss and mean(1 - a²).

    Args:
        c: ∂(mean ℓ)/∂a [batch, time, act].
        q_slope: gradient of the first critic's input [1, rows, obs + act] under `q_cotangent`;
            no rows where p = 1.
        losses: ℓ [batch, time].
        q: Q at all rows [1, rows].
        q_cotangent: of every row, see `weigh`.
        weights: of every step, see `weigh`.
        action: tanh z [rows, act], rows = batch · (time + 1).
        pre_activation: z.
        is_valid: [batch, time].
        share: p.
        limit: of |z|, above which it is pulled back; 0: never.
        cotangent: to fill [rows, act]; 0 at the last time.
    """
    batch, steps, act_size = c.shape
    count = 0
    for b in range(batch):
        for t in range(steps):
            count += is_valid[b, t]
    count = max(count, 1)
    pull = np.float32(2.0 / (act_size * count))
    has_slope = q_slope.shape[1] > 0
    first = q_slope.shape[2] - act_size
    loss, slack = 0.0, 0.0
    for b in range(batch):
        for t in range(steps + 1):
            row = b * (steps + 1) + t
            counts = False
            if t < steps:
                counts = is_valid[b, t]
            if not counts:
                cotangent[row] = _ZERO
                continue
            loss += share * weights[b, t] * losses[b, t] + q_cotangent[row] * q[0, row]
            for j in range(act_size):
                a, z = action[row, j], pre_activation[row, j]
                d_action = share * c[b, t, j]
                if has_slope:
                    d_action += q_slope[0, row, first + j]
                d = d_action * (_ONE - a * a)
                if limit > _ZERO:
                    d += pull * (z - _clip(z, -limit, limit))
                cotangent[row, j] = d
                slack += _ONE - a * a
    return loss, slack / (count * act_size)


@njit(_signature("void", _STEPS, _ROWS, _ROWS), cache=True, **OPTIONS)
@no_type_check
def through_tanh(c, action, cotangent):
    """Fill the cotangent of z from that of a [batch, time, act]; 0 at the last time."""
    batch, steps, act_size = c.shape
    for b in range(batch):
        for t in range(steps + 1):
            row = b * (steps + 1) + t
            for j in range(act_size):
                a = action[row, j]
                cotangent[row, j] = c[b, t, j] * (_ONE - a * a) if t < steps else _ZERO


@njit(_signature("void", _ROWS, _ROWS, _STEPS), cache=True, **OPTIONS)
@no_type_check
def tangent_of_action(tangent, action, u):
    """Fill ∂a [batch, time, act] from the tangent of z [rows, act], without the last time."""
    batch, steps, act_size = u.shape
    for b in range(batch):
        for t in range(steps):
            row = b * (steps + 1) + t
            for j in range(act_size):
                a = action[row, j]
                u[b, t, j] = tangent[row, j] * (_ONE - a * a)


@njit(_signature("void", _STEPS, _ROWS, _ROWS), cache=True, **OPTIONS)
@no_type_check
def action_slope(slope, action, cotangent):
    """Fill the cotangent of z from that of the first critic's input [1, rows, obs + act]."""
    first = slope.shape[2] - action.shape[1]
    for row in range(len(action)):
        for j in range(action.shape[1]):
            a = action[row, j]
            cotangent[row, j] = slope[0, row, first + j] * (_ONE - a * a)


@njit(_signature("f8", _VECTOR, _VECTOR, "f4", "b1", "f4", _VECTOR), cache=True, **OPTIONS)
@no_type_check
def step_virtually(policy_params, gradient, size, is_unit, shortest, moved):
    """Fill φ - η s(g) and return ‖g‖."""
    norm = sqrt(_sum_of_squares(gradient))
    rate = size / max(np.float32(norm), shortest) if is_unit else size
    for i in range(len(moved)):
        moved[i] = policy_params[i] - rate * gradient[i]
    return norm


@njit(_signature("void", _VECTOR, "f8", "f4", _VECTOR), cache=True, **OPTIONS)
@no_type_check
def pull_through_unit(gradient, norm, shortest, v):
    """Replace v by (∂s/∂g)ᵀ v of the unit step."""
    if norm <= shortest:
        for i in range(len(v)):
            v[i] /= shortest
        return
    inverse = np.float32(1.0 / norm)
    along = 0.0
    for i in range(len(v)):
        along += np.float64(gradient[i] * inverse) * np.float64(v[i])
    for i in range(len(v)):
        v[i] = (v[i] - gradient[i] * inverse * np.float32(along)) * inverse


@njit(
    _signature("void", _STEPS, _STEPS, _MASK, _MASK, _ROWS, _ROWS),
    cache=True,
    **OPTIONS,
)
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


@njit(_signature("void", _ROWS, _ROWS, _ROWS), cache=True, **OPTIONS)
@no_type_check
def split_values(q, value, next_value):
    """Fill V_t and V_{t+1} [batch, time] from Q at all T + 1 observations [1, rows]."""
    batch, steps = value.shape
    for b in range(batch):
        for t in range(steps):
            value[b, t] = q[0, b * (steps + 1) + t]
            next_value[b, t] = q[0, b * (steps + 1) + t + 1]
