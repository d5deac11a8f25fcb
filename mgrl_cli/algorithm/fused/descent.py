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
_HALF, _ONE = np.float32(0.5), np.float32(1.0)
_SHORTEST = np.finfo(np.float32).tiny
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
def _adam_constants(steps, rate, beta1, beta2, epsilon):
    """Return what every entry of Adam's step number `steps` has in common."""
    return (
        np.float32(rate / (1.0 - beta1**steps)),
        np.float32(sqrt(1.0 - beta2**steps)),
        np.float32(beta1),
        np.float32(1.0 - beta1),
        np.float32(beta2),
        np.float32(1.0 - beta2),
        np.float32(epsilon),
    )


@kernel
@no_type_check
def _adam(params, gradient, scale, first_moment, second_moment, constants):
    """Make one step of Adam by the gradient times `scale`."""
    size, root, keep1, add1, keep2, add2, floor = constants
    for i in range(len(params)):
        g = scale * gradient[i]
        m = keep1 * first_moment[i] + add1 * g
        v = keep2 * second_moment[i] + add2 * g * g
        first_moment[i] = m
        second_moment[i] = v
        params[i] -= size * m / (np.sqrt(v) / root + floor)


@compiled("b1", *[_VECTOR] * 5, *["f8"] * 5)
@no_type_check
def descend(
    params, gradient, first_moment, second_moment, steps, rate, beta1, beta2, epsilon, limit
):
    """Make a step of Adam, the gradient cut to the norm `limit` (0: not cut), and count it.

    Return False, having changed nothing, where its squares or their sum overflow float32.
    """
    squares = _sum_of_squares(gradient)
    if not isfinite(np.float32(squares)):
        return False
    scale = _ONE
    if limit > 0.0:
        scale = np.float32(min(1.0, limit / max(sqrt(squares), _SHORTEST)))
    steps[0] += _ONE
    constants = _adam_constants(np.float64(steps[0]), rate, beta1, beta2, epsilon)
    _adam(params, gradient, scale, first_moment, second_moment, constants)
    return True


@compiled("b1", _VECTOR, _VECTOR)
@no_type_check
def put(gradient, slot):
    """Copy a gradient into its slot; return whether its squares and their sum fit float32."""
    for i in range(len(slot)):
        slot[i] = gradient[i]
    return isfinite(np.float32(_sum_of_squares(gradient)))


@compiled("f8", _ROWS, "i8[::1]", *[_VECTOR] * 4, *["f8"] * 4)
@no_type_check
def combine(slots, agents, params, first_moment, second_moment, steps, rate, beta1, beta2, epsilon):
    """Make a step of Adam by the mean of some slots, count it, and return the mean's norm.

    Slots are summed in float64 in the order of `agents`.
    """
    steps[0] += _ONE
    constants = _adam_constants(np.float64(steps[0]), rate, beta1, beta2, epsilon)
    squares, mean, gradient = 0.0, np.empty(_BLOCK), np.empty(_BLOCK, np.float32)
    for start in range(0, len(params), _BLOCK):
        stop = min(start + _BLOCK, len(params))
        size = stop - start
        mean[:] = 0.0
        for agent in agents:
            slot = slots[agent, start:stop]
            for i in range(size):
                mean[i] += slot[i]
        for i in range(size):
            mean[i] /= len(agents)
            gradient[i] = mean[i]
        squares += _sum_of_squares(mean[:size])
        first, second = first_moment[start:stop], second_moment[start:stop]
        _adam(params[start:stop], gradient[:size], _ONE, first, second, constants)
    return sqrt(squares)


@compiled("f8", _VECTOR, "f8", _VECTOR)
@no_type_check
def contribute(gradient, limit, contribution):
    """Fill the gradient cut to the norm `limit`, or of norm 1 where that is 0; return its norm.

    What is zero stays zero. Where the squares' sum overflows float32, the contribution is NaN.
    """
    squares = _sum_of_squares(gradient)
    norm, scale = sqrt(squares), np.nan
    if isfinite(np.float32(squares)):
        scale = 1.0 / max(norm, _SHORTEST)
        if limit > 0.0:
            scale = min(1.0, limit * scale)
    for i in range(len(gradient)):
        contribution[i] = gradient[i] * np.float32(scale)
    return norm


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


@compiled("void", _VECTOR, _VECTOR, "f4")
@no_type_check
def follow(target, params, rate):
    """Move a target towards parameters: θ⁻ ← θ⁻ + rate · (θ - θ⁻), from the nearer end.

    So at a rate of 1 the target becomes the parameters, whatever it was.
    """
    if rate < _HALF:
        for i in range(len(target)):
            target[i] += rate * (params[i] - target[i])
    else:
        for i in range(len(target)):
            target[i] = params[i] - (_ONE - rate) * (params[i] - target[i])
