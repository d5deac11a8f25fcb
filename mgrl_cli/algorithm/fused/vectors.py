"""What LLVM makes badly of loops, or not at all, written in its own language, for numba kernels.

From a loop that transposes 8 × 8 numbers it makes loads and stores of single ones, before one that
moves 16 it compares pointers every time; both take four times as long. In a product with rows of 16
it keeps sums in memory where registers would do, which takes 1.7 times as long. A loop that copies
a few numbers costs twice what memcpy does, and no loop asks for memory ahead of its use.
"""

# ruff: noqa: ANN201, ANN401, PLR0913 - numba's and LLVM's objects have no types

from collections.abc import Sequence
from typing import Any, no_type_check

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_SIDE = 8
_CONTRACT = ("contract",)
"""Of fast-math the fused multiply-add alone, as `scalar_math.OPTIONS`."""


@intrinsic
@no_type_check
def move_16(typing_context: Any, x: Any, start: Any, y: Any, begin: Any):
    """Write y[begin : begin + 16] = x[start : start + 16], of flat arrays; nothing is checked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        x_type, _, y_type, _ = signature.args
        source, first, target, place = arguments
        source = _Flat(context, builder, x_type, source)
        target = _Flat(context, builder, y_type, target)
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
        source = _Flat(context, builder, x_type, source)
        target = _Flat(context, builder, y_type, target)

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


@intrinsic
@no_type_check
def add_products_16(
    typing_context: Any,
    w: Any,
    at: Any,
    step: Any,
    apart: Any,
    x: Any,
    y: Any,
    begin: Any,
):
    """Add to four rows of 16 in y, from `begin` on, the weighted sum of all rows of 16 in x.

    y[q] += Σ_i w[at + i · step + q · apart] x[i] for q < 4, of flat arrays; nothing is checked.
    """
    rows = 4

    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        w_type, _, _, _, x_type, y_type, _ = signature.args
        weights, first, along, across, source, target, place = arguments
        weights = _Flat(context, builder, w_type, weights)
        source = _Flat(context, builder, x_type, source)
        target = _Flat(context, builder, y_type, target)
        number = ir.Constant(place.type, 16)

        def plus(a: Any, k: int, b: Any) -> Any:
            return builder.add(a, builder.mul(ir.Constant(a.type, k), b))

        places = [plus(place, q, number) for q in range(rows)]
        sums = [cgutils.alloca_once_value(builder, target.load(each, 16)) for each in places]
        with cgutils.for_range(builder, builder.sdiv(source.size, number)) as loop:
            row = source.load(builder.mul(loop.index, number), 16)
            start = builder.add(first, builder.mul(loop.index, along))
            for q, total in enumerate(sums):
                product = builder.fmul(
                    weights.spread(plus(start, q, across), 16), row, flags=_CONTRACT
                )
                builder.store(builder.fadd(builder.load(total), product, flags=_CONTRACT), total)
        for total, each in zip(sums, places, strict=True):
            target.store(builder.load(total), each)
        return context.get_dummy_value()

    index = types.intp
    return types.void(w, index, index, index, x, y, index), generate


@intrinsic
@no_type_check
def copy(typing_context: Any, x: Any, start: Any, y: Any, begin: Any, size: Any):
    """Write y[begin : begin + size] = x[start : start + size], of flat arrays that do not overlap.

    Nothing is checked.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        x_type, _, y_type, _, _ = signature.args
        source, first, target, place, number = arguments
        source = _Flat(context, builder, x_type, source)
        target = _Flat(context, builder, y_type, target)
        addresses = target.address(place), source.address(first)
        cgutils.raw_memcpy(builder, *addresses, number, source.item_size)
        return context.get_dummy_value()

    return types.void(x, types.intp, y, types.intp, types.intp), generate


@intrinsic
@no_type_check
def ask_for(typing_context: Any, x: Any, place: Any):
    """Have the cache line of x[place], of a flat array, brought to the second cache meanwhile.

    A place outside the array does nothing.
    """
    read, second_cache, data = 0, 2, 1

    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        x_type, _ = signature.args
        source, place = arguments
        address = _Flat(context, builder, x_type, source).address(place)
        address = builder.bitcast(address, ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        prefetch = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [address.type, number, number, number]),
            "llvm.prefetch.p0i8",
        )
        how = [ir.Constant(number, each) for each in (read, second_cache, data)]
        builder.call(prefetch, [address, *how])
        return context.get_dummy_value()

    return types.void(x, types.intp), generate


# As of dispatchers, see `scalar_math.kernel`: with numba's random identities no process would find
# what another one has compiled.
for _intrinsic in (move_16, transpose_8x8, add_products_16, copy, ask_for):
    _intrinsic._set_uuid(f"{__name__}.{_intrinsic._defn.__name__}")


class _Flat:
    """A flat array inside a kernel that is being written."""

    @no_type_check
    def __init__(self, context: Any, builder: Any, array_type: Any, array: Any) -> None:
        self._builder = builder
        structure = context.make_array(array_type)(context, builder, array)
        self._data = structure.data
        self.size = structure.nitems
        self._number = context.get_data_type(array_type.dtype)
        self.item_size = context.get_abi_sizeof(self._number)
        """Bytes."""

    @no_type_check
    def address(self, place: Any) -> Any:
        """Return where a number is."""
        return self._builder.gep(self._data, [place])

    @no_type_check
    def load(self, place: Any, size: int) -> Any:
        """Return `size` numbers from `place` on."""
        return self._builder.load(self._pointer(place, size), align=self.item_size)

    @no_type_check
    def spread(self, place: Any, size: int) -> Any:
        """Return one number, `size` times."""
        vector = ir.VectorType(self._number, size)
        number = self._builder.load(self.address(place))
        first = self._builder.insert_element(
            ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0)
        )
        return self._builder.shuffle_vector(first, first, _mask([0] * size))

    @no_type_check
    def store(self, vector: Any, place: Any) -> None:
        """Write numbers from `place` on."""
        self._builder.store(vector, self._pointer(place, vector.type.count), align=self.item_size)

    @no_type_check
    def _pointer(self, place: Any, size: int) -> Any:
        vector = ir.VectorType(self._number, size)
        return self._builder.bitcast(self.address(place), vector.as_pointer())


@no_type_check
def _mask(lanes: Sequence[int]) -> Any:
    """Return which numbers of two vectors, counted through, a shuffle takes."""
    return ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
