"""Memory of the fused objective: the arrays of one evaluation and the packing of batches into them.

Imports no numba: the compiled kernels read these arrays by name, `kernels` explains tiles.
"""

import threading
from collections import defaultdict
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mgrl_cli.algorithm.objective_network import ObjectiveNetwork

_Array = npt.NDArray[Any]

_WIDTH, _SIGNALS, _GATES = 32, 8, 128
_LANES, _TILE_STEPS, _TILE = 16, 4, 64
_BLOCK, _STATE = _WIDTH * _TILE, _WIDTH * _LANES


class Buffers(NamedTuple):
    """The arrays of one batch, named as the kernels know them; tiles first."""

    params: _Array
    pairs: _Array
    action: _Array
    action_stats: _Array
    features: _Array
    features_d: _Array
    d_features: _Array
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
    head: _Array
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
        "pairs": (tiles, dimensions, 4, _TILE),
        "action": (tiles, dimensions, 3, 3, _BLOCK),
        "action_stats": (tiles, dimensions, 3, 8, _TILE),
        "features": (tiles, _BLOCK + _SIGNALS * _TILE),
        "features_d": (tiles, _BLOCK),
        "d_features": (tiles, _BLOCK + _SIGNALS * _TILE),
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
        "head": (tiles, 2, 3, _BLOCK),
        "head_stats": (tiles, 2, 8, _TILE),
        "output": (tiles, 4, _TILE),
        "sums": (6, 2, _BLOCK),
        "scratch": (9, _BLOCK),
        "scratch_lane": (_TILE,),
        "wide": (3, _GATES * _TILE),
    }
    arrays: dict[str, _Array] = {name: np.zeros(s, dtype) for name, s in shapes.items()}
    return Buffers(is_read=np.zeros((groups, steps, _LANES), np.bool_), **arrays)


class _Pool(threading.local):
    """Buffers that no tape holds, per thread: fresh pages would cost more than the arithmetic."""

    def __init__(self) -> None:
        self.free: defaultdict[_Key, list[Buffers]] = defaultdict(list)


_pool = _Pool()


@final
class Tape:
    """All intermediates of one evaluation; its buffers go back to the pool with the last reference.

    Bound to the thread that made it.
    """

    def __init__(self, network: ObjectiveNetwork, key: _Key) -> None:
        self.bound = network.shape.bound
        self._key = key
        self._free = _pool.free[key]
        self.buffers = self._free.pop() if self._free else _allocate(key)

    def __del__(self) -> None:
        """Give the buffers back."""
        self._free.append(self.buffers)

    def lanes_of(self, x: Tensor) -> _Array:
        """Return [batch, time, feature] as lanes [group, quad, feature, step in quad, lane]."""
        batch, steps, features = x.shape
        groups, quads = -(-batch // _LANES), -(-steps // _TILE_STEPS)
        source = x.detach().numpy()
        if batch % _LANES or steps % _TILE_STEPS:
            padded = np.zeros((groups * _LANES, quads * _TILE_STEPS, features), source.dtype)
            padded[:batch, :steps] = source
            source = padded
        lanes = source.reshape(groups, _LANES, quads, _TILE_STEPS, features)
        return lanes.transpose(0, 2, 4, 3, 1)

    def put(self, x: Tensor, lanes: _Array) -> None:
        """Copy x [batch, time, feature] into `lanes` [tile, feature, 64]."""
        packed = self.lanes_of(x)
        lanes.reshape(packed.shape)[...] = packed

    def take(self, lanes: _Array) -> Tensor:
        """Return lanes [tile, feature, 64] as a new tensor [batch, time, feature]."""
        batch, steps, _, dtype = self._key
        groups, quads = -(-batch // _LANES), -(-steps // _TILE_STEPS)
        features = lanes.shape[1]
        split = lanes.reshape(groups, quads, features, _TILE_STEPS, _LANES).transpose(0, 4, 1, 3, 2)
        whole = np.empty(split.shape, dtype)
        whole[...] = split
        whole = whole.reshape(groups * _LANES, quads * _TILE_STEPS, features)
        return torch.from_numpy(whole)[:batch, :steps].contiguous()

    def put_is_read(self, is_read: Tensor) -> None:
        """Copy the mask [batch, time] of the steps that the LSTM reads."""
        groups, steps, _ = self.buffers.is_read.shape
        padded = np.zeros((groups * _LANES, steps), np.bool_)
        padded[: len(is_read)] = is_read.numpy()
        self.buffers.is_read[...] = padded.reshape(groups, _LANES, steps).transpose(0, 2, 1)
