"""Memory of the fused objective: the arrays of one evaluation, and what goes into them.

Imports no numba: the compiled kernels read these arrays by name, `kernels` explains tiles.
"""

from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from mgrl_cli.algorithm.fused.memory import BufferPool, aligned_zeros
from mgrl_cli.algorithm.objective_network import SIGNAL_INPUTS, ObjectiveNetwork, ObjectiveShape

_Array = npt.NDArray[Any]

_WIDTH, _SIGNALS, _GATES = 32, 8, 128
_LANES, _TILE_STEPS, _TILE = 16, 4, 64
_BLOCK, _STATE = _WIDTH * _TILE, _WIDTH * _LANES


class Buffers(NamedTuple):
    """The arrays of one batch, named as the kernels know them; tiles first."""

    params: _Array
    gradient: _Array
    pairs: _Array
    action_z: _Array
    action_zd: _Array
    action_dout: _Array
    action_stats: _Array
    features: _Array
    features_d: _Array
    d_features: _Array
    d_features_d: _Array
    signal_input: _Array
    signal: _Array
    is_read: _Array
    gates: _Array
    d_gates: _Array
    gates_d: _Array
    d_gates_d: _Array
    state: _Array
    hidden: _Array
    hidden_d: _Array
    d_hidden: _Array
    head_z: _Array
    head_zd: _Array
    head_dout: _Array
    head_stats: _Array
    output: _Array
    sums: _Array
    scratch: _Array
    scratch_lane: _Array
    wide: _Array


_Key = tuple[int, int, int, Any]


def _allocate(key: _Key) -> Buffers:
    """Return zeroed buffers; lanes and steps of no window stay zero for good."""
    batch, steps, dimensions, dtype = key
    groups, quads = -(-batch // _LANES), -(-steps // _TILE_STEPS)
    tiles = groups * quads
    shapes: dict[str, tuple[int, ...]] = {
        "params": (ObjectiveNetwork().layout.size,),
        "gradient": (ObjectiveNetwork().layout.size,),
        "pairs": (tiles, dimensions, 4, _TILE),
        "action_z": (tiles, dimensions, 2, _BLOCK),
        "action_zd": (tiles, dimensions, 2, _BLOCK),
        "action_dout": (tiles, dimensions, 2, _BLOCK),
        "action_stats": (tiles, dimensions, 3, 8 * _TILE),
        "features": (tiles, _BLOCK + _SIGNALS * _TILE),
        "features_d": (tiles, _BLOCK),
        "d_features": (tiles, _BLOCK),
        "d_features_d": (tiles, _BLOCK + _SIGNALS * _TILE),
        "signal_input": (tiles, 4 * _TILE),
        "signal": (tiles, 2, _BLOCK),
        "gates": (groups, steps, _GATES * _LANES),
        "d_gates": (groups, steps, _GATES * _LANES),
        "gates_d": (groups, steps, _GATES * _LANES),
        "d_gates_d": (groups, steps, _GATES * _LANES),
        "state": (groups, steps + 1, 10 * _STATE),
        "hidden": (tiles, _BLOCK),
        "hidden_d": (tiles, _BLOCK),
        "d_hidden": (tiles, _BLOCK),
        "head_z": (tiles, 2, _BLOCK),
        "head_zd": (tiles, 2, _BLOCK),
        "head_dout": (tiles, 2, _BLOCK),
        "head_stats": (tiles, 2, 8 * _TILE),
        "output": (tiles, 4, _TILE),
        "sums": (6, 2, _BLOCK),
        "scratch": (10 * _BLOCK,),
        "scratch_lane": (_TILE,),
        "wide": (3, _GATES * _TILE),
    }
    arrays: dict[str, _Array] = {name: aligned_zeros(s, dtype) for name, s in shapes.items()}
    return Buffers(is_read=np.zeros((groups, steps, _LANES), np.bool_), **arrays)


_pool: BufferPool[_Key, Buffers] = BufferPool(_allocate)


class Batch(NamedTuple):
    """What the objective sees of a batch of windows, each array contiguous."""

    action: _Array
    policy_action: _Array
    reward: _Array
    value: _Array
    next_value: _Array
    terminated: _Array
    is_valid: _Array


class Options(NamedTuple):
    """What of an objective's shape the kernels need to know."""

    bound: float
    shows_zero: bool
    """Whether a terminal step shows a next value of zero, not the batch mean."""
    padding_first: bool
    normalises: bool
    shown: tuple[bool, ...]
    """For every input of the signal network."""


@final
class Tape:
    """All intermediates of one evaluation; its buffers go back to the pool with the last reference.

    Bound to the thread that made it.
    """

    def __init__(self, shape: ObjectiveShape, key: _Key) -> None:
        """Borrow buffers.

        Args:
            shape: of the objective.
            key: windows, steps, action dimensions and dtype of the batch.
        """
        self.options = Options(
            bound=shape.bound,
            shows_zero=shape.terminal_value == "zero",
            padding_first=shape.padding_first,
            normalises=shape.normalise,
            shown=tuple(shape.shows(name) for name in SIGNAL_INPUTS),
        )
        self.key = key
        self.buffers = _pool.borrow(key)

    def __del__(self) -> None:
        """Give the buffers back."""
        if hasattr(self, "buffers"):
            _pool.give_back(self.key, self.buffers)
