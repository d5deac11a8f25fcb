"""What LLVM makes badly of loops, written as vectors in its own language, for numba kernels.

From a loop that transposes 8 × 8 numbers it makes loads and stores of single ones, before one that
moves 16 it compares pointers every time; both take four times as long.
"""

# ruff: noqa: ANN201, ANN401, PLR0913 - numba's and LLVM's objects have no types

from collections.abc import Sequence
from typing import Any, no_type_check

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_SIDE = 8


@intrinsic
@no_type_check
def move_16(typing_context: Any, x: Any, start: Any, y: Any, begin: Any):
    """Write y[begin : begin + 16] = x[start : start + 16], of flat arrays; nothing is checked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        x_type, _, y_type, _ = signature.args
        source, first, target, place = arguments
        source, target = (
            _Flat(context, builder, x_type, source),
            _Flat(context, builder, y_type, target),
        )
        target.store(source.load(first, 16), place)
        return context.get_dummy_value()

    return types.void(x, types.intp, y, types.intp), generate


@intrinsic
@no_type_check
def transpose_8x8(
    typing_context: Any, x: Any, start: Any, step: Any, y: Any, begin: Any, stride: Any
):
    """Write y[begin + stride · j + k] = x[start + step · k + j] for all j, k below 8.

    x and y are flat; nothing is checked.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        x_type, _, _, y_type, _, _ = signature.args
        source, first, distance, target, place, gap = arguments
        source, target = (
            _Flat(context, builder, x_type, source),
            _Flat(context, builder, y_type, target),
        )

        def row(begin: Any, apart: Any, k: int) -> Any:
            return builder.add(begin, builder.mul(apart, ir.Constant(apart.type, k)))

        rows = [source.load(row(first, distance, k), _SIDE) for k in range(_SIDE)]
        for size in (4, 2, 1):
            # Swap, in every square of 2 · size, the block above the diagonal with the one below.
            upper = [j if not j & size else _SIDE + j - size for j in range(_SIDE)]
            lower = [j + size if not j & size else _SIDE + j for j in range(_SIDE)]
            for k in (k for k in range(_SIDE) if not k & size):
                above, below = rows[k], rows[k + size]
                rows[k] = builder.shuffle_vector(above, below, _mask(upper))
                rows[k + size] = builder.shuffle_vector(above, below, _mask(lower))
        for k, vector in enumerate(rows):
            target.store(vector, row(place, gap, k))
        return context.get_dummy_value()

    index = types.intp
    return types.void(x, index, index, y, index, index), generate


# As of dispatchers, see `scalar_math.kernel`: with numba's random identities no process would find
# what another one has compiled.
for _intrinsic in (move_16, transpose_8x8):
    _intrinsic._set_uuid(f"{__name__}.{_intrinsic._defn.__name__}")


class _Flat:
    """A flat array inside a kernel that is being written."""

    @no_type_check
    def __init__(self, context: Any, builder: Any, array_type: Any, array: Any) -> None:
        self._builder = builder
        self._data = context.make_array(array_type)(context, builder, array).data
        self._number = context.get_data_type(array_type.dtype)
        self._alignment = context.get_abi_sizeof(self._number)

    @no_type_check
    def load(self, place: Any, size: int) -> Any:
        """Return `size` numbers from `place` on."""
        return self._builder.load(self._pointer(place, size), align=self._alignment)

    @no_type_check
    def store(self, vector: Any, place: Any) -> None:
        """Write numbers from `place` on."""
        self._builder.store(vector, self._pointer(place, vector.type.count), align=self._alignment)

    @no_type_check
    def _pointer(self, place: Any, size: int) -> Any:
        pointer = self._builder.gep(self._data, [place])
        return self._builder.bitcast(pointer, ir.VectorType(self._number, size).as_pointer())


@no_type_check
def _mask(lanes: Sequence[int]) -> Any:
    """Return which numbers of two vectors, counted through, a shuffle takes."""
    return ir.Constant(ir.VectorType(ir.IntType(32), _SIDE), lanes)
