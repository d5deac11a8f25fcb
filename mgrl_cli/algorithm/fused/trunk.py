"""The body of policy and critic with its derivatives from compiled kernels.

The interface of `algorithm.trunk` over the kernels of `trunk_passes`, and their memory. Imports no
numba before the first use.
"""

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from mgrl_cli.algorithm.fused.memory import BufferPool, aligned_zeros, array_of
from mgrl_cli.algorithm.fused.sources import digest_of, is_numba_installed

if TYPE_CHECKING:
    from mgrl_cli.algorithm.fused.trunk_passes import TrunkPasses

_Array = npt.NDArray[Any]

_TILE = 64
_DTYPES = (torch.float32, torch.float64)


def supports(hidden: int, params: Tensor) -> bool:
    """Return whether the kernels compute a trunk of this width with these parameters."""
    return (
        is_numba_installed()
        and hidden % 8 == 0
        and params.device.type == "cpu"
        and params.dtype in _DTYPES
    )


class _Key(NamedTuple):
    """What the sizes of the buffers follow from."""

    nets: int
    rows: int
    width_in: int
    hidden: int
    width_out: int
    dtype: Any


class _Buffers(NamedTuple):
    """The arrays of one evaluation, named as the kernels know them; features × 64 lanes."""

    sizes: tuple[int, int]
    """Inputs and outputs of the network, before padding."""
    inputs: _Array
    """[tile, in · 64]"""
    kept: _Array
    """ReLUs of both layers, [net, tile, 2, hidden · 64]."""
    stats: _Array
    """Mean and 1/σ of both layers, [net, tile, 2, 2 · 64]."""
    first: _Array
    """Padded first weights and their gradient or direction, [2, in · hidden]."""
    last: _Array
    """The same of the last weights, turned, [2, out · hidden]."""
    lanes_in: _Array
    lanes_out: _Array
    scratch: _Array
    sums: _Array
    """Lanes of the gradients of both LayerNorms' gains and biases, [2, 2 · hidden · 64]."""
    work: _Array


def _allocate(key: _Key) -> _Buffers:
    nets, rows, width_in, hidden, width_out, dtype = key
    tiles = -(-rows // _TILE)
    padded_in, padded_out = -(-width_in // 4) * 4, -(-width_out // 4) * 4
    shapes = {
        "inputs": (tiles, padded_in * _TILE),
        "kept": (nets, tiles, 2, hidden * _TILE),
        "stats": (nets, tiles, 2, 2 * _TILE),
        "first": (2, padded_in * hidden),
        "last": (2, padded_out * hidden),
        "lanes_in": (padded_in * _TILE,),
        "lanes_out": (padded_out * _TILE,),
        "scratch": (4, hidden * _TILE),
        "sums": (2, 2 * hidden * _TILE),
        "work": (2 * _TILE,),
    }
    arrays: dict[str, _Array] = {
        name: aligned_zeros(shape, dtype) for name, shape in shapes.items()
    }
    return _Buffers(sizes=(width_in, width_out), **arrays)


_pool: BufferPool[_Key, _Buffers] = BufferPool(_allocate)


@cache
def _passes(hidden: int) -> "TrunkPasses":
    from mgrl_cli.algorithm.fused.trunk_passes import compile_trunk_passes

    names = ("kernels.py", "scalar_math.py", "trunk_layers.py", "trunk_passes.py")
    return compile_trunk_passes(
        hidden, digest_of("parameters.py", *(f"fused/{name}" for name in names))
    )


@final
class ArrayTape:
    """A forward pass, kept for its derivatives, on contiguous arrays.

    `trunk.TrunkTape` says what the methods mean. Bound to the thread that made it. The parameters
    must not change while it is in use.
    """

    def __init__(self, params: _Array, x: _Array, hidden: int, width_out: int) -> None:
        """Run forward: params [net, param], x [rows, in]; `supports` must hold."""
        (nets, _), (rows, width_in) = params.shape, x.shape
        self._params = params
        self._key = _Key(nets, rows, width_in, hidden, width_out, params.dtype)
        self._passes = _passes(hidden)
        self._buffers = _pool.borrow(self._key)
        self.output: _Array = np.empty((nets, rows, width_out), params.dtype)
        self._passes.forward(params, x, self._buffers, self.output)

    def __del__(self) -> None:
        """Give the buffers back."""
        if hasattr(self, "_buffers"):
            _pool.give_back(self._key, self._buffers)

    def vjp(self, cotangent: _Array) -> _Array:
        """Return ∂⟨cotangent, output⟩/∂params."""
        gradient = np.empty_like(self._params)
        self._passes.vjp(self._params, self._buffers, cotangent, gradient)
        return gradient

    def input_vjp(self, cotangent: _Array) -> _Array:
        """Return ∂⟨cotangent, output⟩/∂x, [net, rows, in]."""
        gradient = np.empty((*cotangent.shape[:2], self._key.width_in), self._params.dtype)
        self._passes.input_vjp(self._params, self._buffers, cotangent, gradient)
        return gradient

    def jvp(self, direction: _Array) -> _Array:
        """Return (∂output/∂params) · direction."""
        tangent = np.empty(self.output.shape, self._params.dtype)
        self._passes.jvp(self._params, self._buffers, direction, tangent)
        return tangent


@final
class FusedTape:
    """The same on tensors."""

    def __init__(
        self,
        params: Float[Tensor, "net param"],
        x: Float[Tensor, "rows in"],
        hidden: int,
        width_out: int,
    ) -> None:
        """Run forward; `supports` must hold."""
        self._tape = ArrayTape(array_of(params), array_of(x), hidden, width_out)
        self.output: Float[Tensor, "net rows out"] = torch.from_numpy(self._tape.output)

    def vjp(self, cotangent: Float[Tensor, "net rows out"]) -> Float[Tensor, "net param"]:
        """Return ∂⟨cotangent, output⟩/∂params."""
        return torch.from_numpy(self._tape.vjp(array_of(cotangent)))

    def input_vjp(self, cotangent: Float[Tensor, "net rows out"]) -> Float[Tensor, "net rows in"]:
        """Return ∂⟨cotangent, output⟩/∂x."""
        return torch.from_numpy(self._tape.input_vjp(array_of(cotangent)))

    def jvp(self, direction: Float[Tensor, "net param"]) -> Float[Tensor, "net rows out"]:
        """Return (∂output/∂params) · direction."""
        return torch.from_numpy(self._tape.jvp(array_of(direction)))
