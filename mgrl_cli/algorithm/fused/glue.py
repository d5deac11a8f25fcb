"""Compiled: what lies between the networks in the updates of critic and policy.

One call where torch takes many. The plain forms, and what the quantities mean, are in `td3` and
`objectives`; tests hold both to the same numbers. float32 only. Needs numba (the extra "fast").
"""

# ruff: noqa: ANN001, ANN201, ANN202, PLR0913 - numba infers the types; kernels take arrays one by one

from typing import no_type_check

import numpy as np

from mgrl_cli.algorithm.fused.scalar_math import compiled, kernel, tanh

_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
_VECTOR, _ROWS, _STEPS = "f4[::1]", "f4[:,::1]", "f4[:,:,::1]"
_BOOLS, _MASK = "b1[::1]", "b1[:,::1]"


@kernel
@no_type_check
def _clip(x, low, high):
    return min(max(x, low), high)


@kernel
@no_type_check
def _put_pairs(obs, action, pairs):
    """Fill [s, a]."""
    obs_size = obs.shape[1]
    for row in range(len(obs)):
        for i in range(obs_size):
            pairs[row, i] = obs[row, i]
        for j in range(action.shape[1]):
            pairs[row, obs_size + j] = action[row, j]


@compiled("void", _STEPS, _ROWS)
@no_type_check
def line_up(obs, rows):
    """Fill the rows of windows [batch, time + 1, obs]: all steps, then the last observations.

    Without these where there are rows for the steps only.
    """
    batch, steps = obs.shape[0], obs.shape[1] - 1
    for b in range(batch):
        for t in range(steps + 1):
            row = b * steps + t if t < steps else batch * steps + b
            if row < len(rows):
                for i in range(obs.shape[2]):
                    rows[row, i] = obs[b, t, i]


@compiled("void", _ROWS, _ROWS, _ROWS, _ROWS)
@no_type_check
def act(obs, pre_activation, action, pairs):
    """Fill a = tanh(z) and the critic's input [s, a]."""
    given, made = pre_activation.ravel(), action.ravel()
    for i in range(len(given)):
        made[i] = tanh(given[i])
    _put_pairs(obs, action, pairs)


@compiled("void", _ROWS, _ROWS, _ROWS, "f4", "f4", _ROWS)
@no_type_check
def smooth(next_obs, pre_activation, noise, deviation, noise_clip, pairs):
    """Fill the target critics' input [s', clip(tanh z' + clip(σε, -c, c), -1, 1)]."""
    next_action = np.empty_like(noise)
    z, shifts, made = pre_activation.ravel(), noise.ravel(), next_action.ravel()
    for i in range(len(made)):
        shift = _clip(shifts[i] * deviation, -noise_clip, noise_clip)
        made[i] = _clip(tanh(z[i]) + shift, -_ONE, _ONE)
    _put_pairs(next_obs, next_action, pairs)


@compiled("void", _ROWS, _ROWS, _ROWS)
@no_type_check
def pair(obs, action, pairs):
    """Fill the critic's input [s, a]."""
    _put_pairs(obs, action, pairs)


@compiled("f8", _ROWS, _ROWS, _VECTOR, _BOOLS, _BOOLS, "f4", "f4", "b1", _ROWS)
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
            target += discount * np.minimum(next_q[0, row], next_q[1, row])  # NaN stays
        for net in range(2):
            error = q[net, row] - target if is_valid[row] else _ZERO
            slope[net, row] = _TWO * share * error
            total += np.float64(error) * np.float64(share * error)
    return total


@kernel
@no_type_check
def _count(is_valid):
    count = 0
    for b in range(is_valid.shape[0]):
        for t in range(is_valid.shape[1]):
            count += is_valid[b, t]
    return count


@compiled("void", _MASK, "b1", "f4", _ROWS, _VECTOR)
@no_type_check
def weigh(is_valid, over_padding, share, weights, q_cotangent):
    """Fill the weight of every step in a mean, and ∂((1 - p) · mean(-Q))/∂Q of every step."""
    batch, steps = is_valid.shape
    count = batch * steps
    if not over_padding:
        count = _count(is_valid)
    weight = _ONE / np.float32(max(count, 1))
    for b in range(batch):
        for t in range(steps):
            weights[b, t] = weight if is_valid[b, t] else _ZERO
            q_cotangent[b * steps + t] = (share - _ONE) * weights[b, t]


@compiled(
    "Tuple((f8, f8))",
    *(_STEPS, _STEPS, _ROWS, _ROWS, _VECTOR, _ROWS, _ROWS, _ROWS, _MASK, "f4", "f4", _ROWS),
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
        q_slope: gradient of the first critic in the action [1, steps, act] under `q_cotangent`;
            no rows where p = 1.
        losses: ℓ [batch, time].
        q: Q at all rows, see `line_up`, [1, rows].
        q_cotangent: of every step, see `weigh`.
        weights: of every step, see `weigh`.
        action: tanh z at all rows [rows, act].
        pre_activation: z.
        is_valid: [batch, time].
        share: p.
        limit: of |z|, above which it is pulled back; 0: never.
        cotangent: to fill, of all steps [steps, act].
    """
    batch, steps, act_size = c.shape
    count = max(_count(is_valid), 1)
    pull = np.float32(2.0 / (act_size * count))
    has_slope = q_slope.shape[1] > 0
    loss, slack = 0.0, 0.0
    for b in range(batch):
        for t in range(steps):
            row = b * steps + t
            counts = is_valid[b, t]
            if counts:
                loss += share * weights[b, t] * losses[b, t] + q_cotangent[row] * q[0, row]
            for j in range(act_size):
                a, z = action[row, j], pre_activation[row, j]
                d_action = share * c[b, t, j]  # also at padded steps, where L_α may read them
                if has_slope:
                    d_action += q_slope[0, row, j]
                d = d_action * (_ONE - a * a)
                if counts:
                    slack += _ONE - a * a
                    if limit > _ZERO:
                        d += pull * (z - _clip(z, -limit, limit))
                cotangent[row, j] = d
    return loss, slack / (count * act_size)
