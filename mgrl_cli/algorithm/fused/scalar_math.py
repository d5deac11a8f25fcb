"""Exponential functions that LLVM can vectorise inside numba kernels, in float32 and float64.

libm's are calls, one number at a time; numba vectorises them only with Intel's SVML library, which
most installations lack. Error: below 2 units in the last place.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - numba infers the types, one set per dtype

from collections.abc import Callable
from math import factorial, log
from typing import Any, no_type_check

import numpy as np
from numba import njit, types
from numba.extending import overload

from mgrl_cli.algorithm.fused.sources import digest_of

OPTIONS: Any = {"fastmath": {"contract"}, "error_model": "numpy"}
"""`contract` (fused multiply-add) is the only liberty: the same bits in every run, NaN kept."""


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that only other compiled functions call.

    Python wrappers for all of them would take half of the compile time.
    """
    options: Any = OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    dispatcher: Any = njit(**options)(function)
    # A cached function is found again by what it closes over, and a dispatcher among that counts
    # with an identity that numba draws at random: without this no process would find it.
    dispatcher._set_uuid(f"{function.__module__}.{function.__qualname__}")
    return dispatcher


def named(*constants: object) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a function with the constants it closes over; use below `kernel` and `njit`.

    The names under which numba links compiled functions tell neither closures nor processes apart.
    Of two with one name, in caches filled by different processes, the one loaded first would be
    called for both, with the other's constants.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__qualname__ += "".join(f"_{constant}" for constant in constants)
        return function

    return decorate


def compiled(result: str, *types: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function that Python calls, at once, for one signature; or load it from the cache.

    Put `no_type_check` below.

    numba's cache looks at the function's own file only: the digest in the name, of this file and
    `vectors`, keeps old machine code from outliving a change there.

    Args:
        result: type of the result, in numba's notation.
        types: of the arguments.
    """
    signature = f"{result}({', '.join(types)})"

    def decorate(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - numba's
        return njit(signature, cache=True, **OPTIONS)(named(_SOURCE)(function))

    return decorate


_SOURCE = digest_of("fused/scalar_math.py", "fused/vectors.py")[:16]
_TAYLOR = tuple(1.0 / factorial(k) for k in range(14))
_ROUND_32, _ROUND_64 = np.float32(1.5 * 2**23), 1.5 * 2.0**52
_LOG2_E = 1.0 / log(2.0)
# ln 2 in two parts, the first short enough for an exact product with the exponent (Cody & Waite).
_LN2_32 = (np.float32(0.693359375), np.float32(-2.12194440e-4))
_LN2_64 = (6.93145751953125e-1, 1.42860682030941723212e-6)
_TAYLOR_32 = tuple(np.float32(c) for c in _TAYLOR)
_LOG2_E_32 = np.float32(_LOG2_E)
_LOW_32, _HIGH_32 = np.float32(-87.0), np.float32(87.0)
_ONE_32, _INFINITY_32 = np.float32(1.0), np.float32(np.inf)


@kernel
@no_type_check
def _expm1_32(x):
    x = _LOW_32 if x < _LOW_32 else x
    is_over = x > _HIGH_32
    x = _HIGH_32 if is_over else x
    shifted = x * _LOG2_E_32 + _ROUND_32
    exponent = shifted - _ROUND_32
    r = x - exponent * _LN2_32[0]
    r = r - exponent * _LN2_32[1]
    c = _TAYLOR_32
    p = c[7] * r + c[6]
    p = ((((p * r + c[5]) * r + c[4]) * r + c[3]) * r + c[2]) * r * r + r
    bits = (np.float32(shifted).view(np.int32) << np.int32(23)) + np.int32(0x3F800000)
    power = np.int32(bits).view(np.float32)
    return _INFINITY_32 if is_over else power * p + (power - _ONE_32)


@kernel
@no_type_check
def _expm1_64(x):
    x = -700.0 if x < -700.0 else x
    is_over = x > 700.0
    x = 700.0 if is_over else x
    shifted = x * _LOG2_E + _ROUND_64
    exponent = shifted - _ROUND_64
    r = x - exponent * _LN2_64[0]
    r = r - exponent * _LN2_64[1]
    c = _TAYLOR
    p = ((c[13] * r + c[12]) * r + c[11]) * r + c[10]
    p = (((p * r + c[9]) * r + c[8]) * r + c[7]) * r + c[6]
    p = ((((p * r + c[5]) * r + c[4]) * r + c[3]) * r + c[2]) * r * r + r
    bits = (np.float64(shifted).view(np.int64) << np.int64(52)) + np.int64(0x3FF0000000000000)
    power = np.int64(bits).view(np.float64)
    return np.inf if is_over else power * p + (power - 1.0)


def expm1(x: float) -> float:
    """Return eˣ - 1; ∞ above 87 (float32) or 700, so that no sigmoid is a slow subnormal number."""
    raise NotImplementedError(f"only inside compiled kernels, got {x}")


@overload(expm1, jit_options=OPTIONS)
@no_type_check
def _expm1_by_type(x):
    if x == types.float32:
        return lambda x: _expm1_32(x)
    return lambda x: _expm1_64(x)


@kernel
@no_type_check
def sigmoid(x):
    """Return 1 / (1 + e⁻ˣ)."""
    one = type(x)(1)
    return one / (one + one + expm1(-x))


@kernel
@no_type_check
def tanh(x):
    """Return tanh x to full relative precision, also near 0."""
    two, limit = type(x)(2), type(x)(40)
    twice = two * x
    # Beyond, tanh x rounds to 1, and e / (e + 2) would become ∞ / ∞.
    e = expm1(limit if twice > limit else twice)
    return e / (e + two)
