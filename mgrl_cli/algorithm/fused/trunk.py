"""The body of policy and critic with its derivatives from compiled kernels.

The interface of `algorithm.trunk` over the kernels of `trunk_passes`, and their memory. Imports no
numba before the first use.
"""

from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from mgrl_cli.algorithm.fused.memory import (
    UNITS_AT_A_TIME,
    Shapes,
    SlabPool,
    aligned_zeros,
    array_of,
    divided,
    padded,
    size_of,
)
from mgrl_cli.algorithm.fused.sources import digest_of, is_numba_installed
from mgrl_cli.algorithm.parameters import TrunkSizes, trunk_shapes

if TYPE_CHECKING:
    from mgrl_cli.algorithm.fused.trunk_passes import TrunkPasses

_Array = npt.NDArray[Any]

_TILE, _FOLD = 64, 16
_DTYPES = (torch.float32, torch.float64)


def supports(params: Tensor) -> bool:
    """Return whether the kernels compute a trunk with these parameters."""
    return is_numba_installed() and params.device.type == "cpu" and params.dtype in _DTYPES


class _Key(NamedTuple):
    """What the sizes of the buffers follow from."""

    nets: int
    rows: int
    sizes: TrunkSizes
    dtype: Any


class _Buffers(NamedTuple):
    """The arrays of one evaluation, named as the kernels know them; features × 64 lanes."""

    sizes: tuple[int, int]
    """Inputs and outputs of the network, before padding."""
    inputs: _Array
    """[tile, in · 64]"""
    kept: _Array
    """Pre-activations of both layers, [net, tile, 2, hidden · 64]."""
    stats: _Array
    """Mean and 1/σ of both layers' ReLUs, [net, tile, 2, 2 · 64]."""
    first: _Array
    """Padded first weights and their gradient or direction, [2, in · hidden]."""
    last: _Array
    """The same of the last weights, turned, [2, out · hidden]; no gradient."""
    lanes_in: _Array
    lanes_out: _Array
    scratch: _Array
    last_sums: _Array
    """Folded sums of the last weights' gradient, [out, hidden · 16]."""
    norm_sums: _Array
    """Folded sums of the gradients of both LayerNorms, [2, hidden · 2 · 16]."""
    work: _Array


def _shapes(key: _Key) -> Shapes:
    nets, rows, sizes, _ = key
    tiles, hidden = -(-rows // _TILE), _padded(sizes).hidden
    padded_in, padded_out = padded(sizes.width_in, 4), padded(sizes.width_out, 4)
    return {
        "inputs": (tiles, padded_in * _TILE),
        "kept": (nets, tiles, 2, hidden * _TILE),
        "stats": (nets, tiles, 2, 2 * _TILE),
        "first": (2, padded_in * hidden),
        "last": (2, padded_out * hidden),
        "lanes_in": (padded_in * _TILE,),
        "lanes_out": (padded_out * _TILE,),
        "scratch": (4, hidden * _TILE),
        "last_sums": (sizes.width_out, hidden * _FOLD),
        "norm_sums": (2, 2 * hidden * _FOLD),
        "work": (2 * _TILE,),
    }


def _buffers(key: _Key, memory: npt.NDArray[np.uint8]) -> _Buffers:
    arrays = divided(memory, _shapes(key), key.dtype)
    return _Buffers(sizes=(key.sizes.width_in, key.sizes.width_out), **arrays)


_pool: SlabPool[_Key, _Buffers] = SlabPool(lambda key: size_of(_shapes(key), key.dtype), _buffers)


def _padded(sizes: TrunkSizes) -> TrunkSizes:
    """Return the sizes that a trunk has inside the kernels."""
    return sizes._replace(hidden=padded(sizes.hidden, UNITS_AT_A_TIME))


class _Padding(NamedTuple):
    """How the parameters of a trunk lie among those of the padded one."""

    size: int
    """Parameters of the padded trunk."""
    positions: npt.NDArray[np.int64]
    """Of every true one among them."""


@cache
def _padding(sizes: TrunkSizes) -> _Padding | None:
    """Return the padding of a trunk's parameters, None where hidden layers need none."""
    if _padded(sizes) == sizes:
        return None
    positions: list[npt.NDArray[np.int64]] = []
    start = 0
    shapes = trunk_shapes(_padded(sizes)).values(), trunk_shapes(sizes).values()
    for whole, shape in zip(*shapes, strict=True):
        block = np.arange(start, start + prod(whole)).reshape(whole)
        positions.append(block[tuple(slice(n) for n in shape)].ravel())
        start += block.size
    return _Padding(start, np.concatenate(positions))


@cache
def _passes(hidden: int, layer_norm: bool) -> "TrunkPasses":
    from mgrl_cli.algorithm.fused.trunk_layers import LayerShape
    from mgrl_cli.algorithm.fused.trunk_passes import compile_trunk_passes

    names = ("kernels", "memory", "scalar_math", "vectors", "trunk_layers", "trunk_passes")
    return compile_trunk_passes(
        LayerShape(hidden, layer_norm),
        digest_of("parameters.py", *(f"fused/{name}.py" for name in names)),
    )


def _require_width(rows: _Array, width: int) -> None:
    if rows.shape[-1] != width:
        raise ValueError(f"rows of {rows.shape[-1]} numbers, expected {width}")


@final
class ArrayTape:
    """A forward pass, kept for its derivatives, on contiguous arrays.

    `trunk.TrunkTape` says what the methods mean. Derivatives may be asked for the first rows only.
    Bound to the thread that made it. The parameters must not change while it is in use.
    """

    def __init__(self, params: _Array, x: _Array, sizes: TrunkSizes) -> None:
        """Run forward: params [net, param], x [rows, in].

        Raises:
            ValueError: x is not as wide as the trunk; kernels do not look.
        """
        _require_width(x, sizes.width_in)
        self._key = _Key(len(params), len(x), sizes, params.dtype)
        self._padding = _padding(sizes)
        self._params = self._pad(params)
        self._passes = _passes(sizes.hidden, sizes.layer_norm)
        self._slab, self._buffers = _pool.borrow(self._key)
        self.output: _Array = np.empty((len(params), len(x), sizes.width_out), params.dtype)
        self._passes.forward(self._params, x, self._buffers, self.output)

    def __del__(self) -> None:
        """Give the memory back."""
        if hasattr(self, "_slab"):
            _pool.give_back(self._slab)

    def vjp(self, cotangent: _Array) -> _Array:
        """Return ∂⟨cotangent, output⟩/∂params, contiguous; cotangent [net, first rows, out]."""
        self._require_cotangent(cotangent)
        gradient = np.empty_like(self._params)
        self._passes.vjp(self._params, self._buffers, cotangent, gradient)
        if self._padding is None:
            return gradient
        return gradient.take(self._padding.positions, axis=1)

    def input_vjp(self, cotangent: _Array, last: int) -> _Array:
        """Return ∂⟨cotangent, output⟩/∂x of its rows and so many last inputs, [net, rows, last]."""
        self._require_cotangent(cotangent)
        first = self._key.sizes.first_of_last(last)
        gradient = np.empty((*cotangent.shape[:2], last), self._params.dtype)
        self._passes.input_vjp(self._params, self._buffers, cotangent, first, gradient)
        return gradient

    def jvp(self, direction: _Array, rows: int | None = None) -> _Array:
        """Return (∂output/∂params) · direction of the first rows; None: of all."""
        nets, all_rows, width_out = self.output.shape
        number = all_rows if rows is None else rows
        self._require(len(direction), number)
        tangent = np.empty((nets, number, width_out), self._params.dtype)
        self._passes.jvp(self._params, self._buffers, self._pad(direction), tangent)
        return tangent

    def _require_cotangent(self, cotangent: _Array) -> None:
        _require_width(cotangent, self._key.sizes.width_out)
        self._require(*cotangent.shape[:2])

    def _require(self, nets: int, rows: int) -> None:
        if nets != self._key.nets or rows > self._key.rows:
            raise ValueError(
                f"derivatives of {nets} networks at {rows} rows, "
                f"the tape has {self._key.nets} at {self._key.rows}"
            )

    def _pad(self, params: _Array) -> _Array:
        """Return parameters as the kernels want them, those of padding zero."""
        if self._padding is None:
            return params
        whole = aligned_zeros((len(params), self._padding.size), params.dtype)
        whole[:, self._padding.positions] = params
        return whole


@final
class FusedTape:
    """The same on tensors."""

    def __init__(
        self,
        params: Float[Tensor, "net param"],
        x: Float[Tensor, "rows in"],
        sizes: TrunkSizes,
    ) -> None:
        """Run forward; `supports` must hold."""
        self._tape = ArrayTape(array_of(params), array_of(x), sizes)
        self.output: Float[Tensor, "net rows out"] = torch.from_numpy(self._tape.output)

    def vjp(self, cotangent: Float[Tensor, "net rows out"]) -> Float[Tensor, "net param"]:
        """Return ∂⟨cotangent, output⟩/∂params."""
        return torch.from_numpy(self._tape.vjp(array_of(cotangent)))

    def input_vjp(
        self, cotangent: Float[Tensor, "net rows out"], last: int
    ) -> Float[Tensor, "net rows last"]:
        """Return ∂⟨cotangent, output⟩/∂x of so many last inputs."""
        return torch.from_numpy(self._tape.input_vjp(array_of(cotangent), last))

    def jvp(self, direction: Float[Tensor, "net param"]) -> Float[Tensor, "net rows out"]:
        """Return (∂output/∂params) · direction."""
        return torch.from_numpy(self._tape.jvp(array_of(direction)))
