"""Memory of kernels: as they need it, and handed on from one evaluation to the next.

Fresh pages would cost more than the arithmetic.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable
from math import prod
from typing import Any, Generic, TypeVar, final

import numpy as np
import numpy.typing as npt
from torch import Tensor

UNITS_AT_A_TIME = 8
"""Hidden layers of policy and critic are padded to a multiple of it."""
_CACHE_LINE = 64
"""Bytes."""

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


def padded(number: int, multiple: int) -> int:
    """Return the next multiple from a number on: what kernels work on in groups."""
    return -(-number // multiple) * multiple


def aligned_zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return zeros that begin at a cache line: vectors across two lines load at half the speed."""
    size = prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def array_of(x: Tensor) -> npt.NDArray[Any]:
    """Return a tensor as the contiguous array that kernels are compiled for; copied if need be."""
    if x.requires_grad or not x.is_contiguous():
        x = x.detach().contiguous()
    return x.numpy()
