"""Memory that evaluations hand on to each other."""

import numpy as np

from mgrl_cli.algorithm.fused.memory import SlabPool, divided, size_of


def pool_of_bytes():
    """Buffers are so many bytes, of a slab that is as large."""
    return SlabPool(lambda size: size, lambda size, memory: memory[:size])


def test_arrays_lie_one_after_the_other_each_at_a_cache_line():
    shapes = {"a": (3, 5), "b": (1,), "c": (2, 2, 2)}
    size = size_of(shapes, np.float64)
    assert size == 128 + 64 + 64
    slab, memory = SlabPool[int, np.ndarray](lambda size: size, lambda _, memory: memory).borrow(
        size
    )
    arrays = divided(memory, shapes, np.float64)
    assert {name: array.shape for name, array in arrays.items()} == shapes
    starts = [array.ctypes.data for array in arrays.values()]
    assert [start - starts[0] for start in starts] == [0, 128, 192]
    assert starts[0] % 64 == 0
    assert all(array.flags.c_contiguous for array in arrays.values())
    assert len(slab.memory) == size


def test_what_came_back_last_is_lent_first_whatever_its_key():
    pool = pool_of_bytes()
    (first, _), (second, _) = pool.borrow(100), pool.borrow(100)
    pool.give_back(first)
    pool.give_back(second)
    slab, buffers = pool.borrow(60)
    assert slab is second
    assert np.shares_memory(buffers, second.memory)
    assert pool.borrow(100)[0] is first


def test_slabs_in_use_are_not_lent():
    pool = pool_of_bytes()
    slabs = [pool.borrow(10)[0] for _ in range(3)]
    assert len({id(slab) for slab in slabs}) == 3


def test_a_slab_that_is_too_small_makes_room_for_one_as_large_as_the_largest_key():
    pool = pool_of_bytes()
    small, _ = pool.borrow(10)
    large, _ = pool.borrow(1000)
    pool.give_back(large)
    pool.give_back(small)
    replacement, buffers = pool.borrow(500)
    assert len(replacement.memory) == 1000
    assert len(buffers) == 500
    assert pool.borrow(20)[0] is large


def test_buffers_of_a_slab_are_made_once_per_key():
    pool = pool_of_bytes()
    slab, buffers = pool.borrow(10)
    pool.give_back(slab)
    assert pool.borrow(10)[1] is buffers
