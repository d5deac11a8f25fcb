"""Memory of kernels: as they need it, and handed on from one evaluation to the next.

Fresh pages would cost more than the arithmetic, and what no cache holds nearly as much.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from math import prod
from typing import Any, Generic, TypeVar, final

import numpy as np
import numpy.typing as npt
from torch import Tensor

UNITS_AT_A_TIME = 8
"""Hidden layers of policy and critic are padded to a multiple of it."""
_CACHE_LINE = 64
"""Bytes."""

Shapes = Mapping[str, tuple[int, ...]]
Key = TypeVar("Key", bound=Hashable)
Buffers = TypeVar("Buffers")


@final
class BufferPool(threading.local, Generic[Key, Buffers]):
    """Buffers that nobody holds, by what they were made for; every thread has its own."""

    def __init__(self, allocate: Callable[[Key], Buffers]) -> None:
        """Begin empty.

        Args:
            allocate: makes new, zeroed buffers.
        """
        self._allocate = allocate
        self._free: defaultdict[Key, list[Buffers]] = defaultdict(list)

    def borrow(self, key: Key) -> Buffers:
        """Return buffers for `key`, with whatever their last user left in them."""
        free = self._free[key]
        return free.pop() if free else self._allocate(key)

    def give_back(self, key: Key, buffers: Buffers) -> None:
        """Take back what was borrowed; the giver must not use it again."""
        self._free[key].append(buffers)


@final
class Slab(Generic[Key, Buffers]):
    """A block of memory, and the buffers made of it so far: of one key at a time."""

    def __init__(self, size: int) -> None:
        """Reserve (not touch) so many bytes."""
        self.memory = aligned_zeros((size,), np.uint8)
        self.buffers: dict[Key, Buffers] = {}


@final
class SlabPool(threading.local, Generic[Key, Buffers]):
    """Slabs that nobody holds, each good for buffers of any key; every thread has its own.

    Evaluations of all sizes follow each other in the same memory, for what came back last is lent
    first: the caches still hold it.
    """

    def __init__(
        self, size_of: Callable[[Key], int], make: Callable[[Key, npt.NDArray[np.uint8]], Buffers]
    ) -> None:
        """Begin empty.

        Args:
            size_of: bytes that buffers take.
            make: buffers of memory, in which anything may stand.
        """
        self._size_of = size_of
        self._make = make
        self._free: list[Slab[Key, Buffers]] = []
        self._largest = 0

    def borrow(self, key: Key) -> tuple[Slab[Key, Buffers], Buffers]:
        """Return a slab and its buffers for `key`, with whatever their last user left in them."""
        slab = self._free.pop() if self._free else None
        if slab is None or key not in slab.buffers:
            size = self._size_of(key)
            self._largest = max(self._largest, size)
            # One that is too small goes for good: soon all are as large as the largest evaluation.
            if slab is None or len(slab.memory) < size:
                slab = Slab(self._largest)
            slab.buffers[key] = self._make(key, slab.memory)
        return slab, slab.buffers[key]

    def give_back(self, slab: Slab[Key, Buffers]) -> None:
        """Take back what was borrowed; the giver must not use its buffers again."""
        self._free.append(slab)


def padded(number: int, multiple: int) -> int:
    """Return the next multiple from a number on: what kernels work on in groups."""
    return -(-number // multiple) * multiple


def aligned_zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return zeros that begin at a cache line: vectors across two lines load at half the speed."""
    size = prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def size_of(shapes: Shapes, dtype: npt.DTypeLike) -> int:
    """Return the bytes that arrays take, each beginning at a cache line."""
    item_size = np.dtype(dtype).itemsize
    return sum(padded(prod(shape) * item_size, _CACHE_LINE) for shape in shapes.values())


def divided(
    memory: npt.NDArray[np.uint8], shapes: Shapes, dtype: npt.DTypeLike
) -> dict[str, npt.NDArray[Any]]:
    """Return arrays that lie one after the other in memory, each beginning at a cache line."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    start = 0
    for name, shape in shapes.items():
        size = prod(shape) * np.dtype(dtype).itemsize
        arrays[name] = memory[start : start + size].view(dtype).reshape(shape)
        start += padded(size, _CACHE_LINE)
    return arrays


def array_of(x: Tensor) -> npt.NDArray[Any]:
    """Return a tensor as the contiguous array that kernels are compiled for; copied if need be."""
    if x.requires_grad or not x.is_contiguous():
        x = x.detach().contiguous()
    return x.numpy()
