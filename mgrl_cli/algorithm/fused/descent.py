"""Compiled: steps along gradients, of networks, of a virtual policy and of the objective.

One call where torch takes many. The plain forms are in `adam`, `meta_gradient` and
`runtime.exchange`; tests hold both to the same numbers. float32 only; every sum is one fixed order
of additions. Needs numba (the extra "fast").
"""

# ruff: noqa: ANN001, ANN201, ANN202, PLR0913 - numba infers the types; kernels take arrays one by one

from math import isfinite, sqrt
from typing import no_type_check

import numpy as np

from mgrl_cli.algorithm.fused.scalar_math import compiled, kernel

_BLOCK = 256
"""Numbers of a gradient at a time, where several are added up."""
_ONE = np.float32(1.0)
_VECTOR, _ROWS = "f4[::1]", "f4[:,::1]"


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


@kernel
@no_type_check
def _adam_constants(steps, rate, beta1, beta2):
    """Return the step size and what the root of the second moment is divided by."""
    return np.float32(rate / (1.0 - beta1**steps)), np.float32(sqrt(1.0 - beta2**steps))


@compiled("b1", *[_VECTOR] * 4, *["f8"] * 6)
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
    step, root = _adam_constants(steps, rate, beta1, beta2)
    keep1, add1, keep2 = np.float32(beta1), np.float32(1.0 - beta1), np.float32(beta2)
    add2, floor = np.float32(1.0 - beta2), np.float32(epsilon)
    for i in range(len(params)):
        g = scale * gradient[i]
        m = keep1 * first_moment[i] + add1 * g
        v = keep2 * second_moment[i] + add2 * g * g
        first_moment[i] = m
        second_moment[i] = v
        params[i] -= step * m / (np.sqrt(v) / root + floor)
    return True


@compiled("b1", _VECTOR, _VECTOR)
@no_type_check
def put(gradient, slot):
    """Copy a gradient into its slot; return whether its squares and their sum fit float32."""
    for i in range(len(slot)):
        slot[i] = gradient[i]
    return isfinite(np.float32(_sum_of_squares(gradient)))


@compiled("f8", _ROWS, "i8[::1]", *[_VECTOR] * 3, *["f8"] * 5)
@no_type_check
def combine(slots, agents, params, first_moment, second_moment, steps, rate, beta1, beta2, epsilon):
    """Make Adam's step number `steps` by the mean of some slots; return the mean's norm.

    Slots are summed in float64 in the order of `agents`.
    """
    step, root = _adam_constants(steps, rate, beta1, beta2)
    keep1, add1, keep2 = np.float32(beta1), np.float32(1.0 - beta1), np.float32(beta2)
    add2, floor = np.float32(1.0 - beta2), np.float32(epsilon)
    squares, total = 0.0, np.empty(_BLOCK)
    for start in range(0, len(params), _BLOCK):
        size = min(_BLOCK, len(params) - start)
        total[:] = 0.0
        for agent in agents:
            slot = slots[agent, start : start + size]
            for i in range(size):
                total[i] += slot[i]
        for i in range(size):
            mean = total[i] / len(agents)
            squares += mean * mean
            g, k = np.float32(mean), start + i
            m = keep1 * first_moment[k] + add1 * g
            v = keep2 * second_moment[k] + add2 * g * g
            first_moment[k] = m
            second_moment[k] = v
            params[k] -= step * m / (np.sqrt(v) / root + floor)
    return sqrt(squares)


@compiled("f8", _VECTOR, _VECTOR, "f4", "b1", "f4", _VECTOR)
@no_type_check
def step_virtually(policy_params, gradient, size, is_unit, shortest, moved):
    """Fill φ - η s(g) and return ‖g‖."""
    norm = sqrt(_sum_of_squares(gradient))
    rate = size / max(np.float32(norm), shortest) if is_unit else size
    for i in range(len(moved)):
        moved[i] = policy_params[i] - rate * gradient[i]
    return norm


@compiled("void", _VECTOR, "f8", "f4", _VECTOR)
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
