"""Files of tensors that describe themselves: what objective files and checkpoint files share.

Safetensors with one metadata key, `mgrl`, of canonical JSON. A header has one spelling only, so a
damaged bit cannot hide in white space or behind a repeated key; the tensors' own bits are for the
document to protect, by a digest that the caller chooses. Reading a stranger's file can fail, but it
runs nothing. Knows nothing of what tensors and document mean.
"""

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, TensorSpec, deserialize, serialize
from torch import Tensor

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.run_dir.atomic import explain_os_error

_METADATA_KEY = "mgrl"
_PREFIX_BYTES = 8
"""A safetensors file begins with the size of its header, little-endian."""
_LARGEST_HEADER_BYTES = 2**20
"""A hundred times what ours take; a header of millions of tensors would take minutes to parse."""
_MOST_DIMENSIONS = 8
_MOST_ELEMENTS = 2**40
"""Sizes of zero count as one: torch cannot compute the strides of an empty tensor beyond 2^63."""
_DTYPES = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""What a file may hold, by the format's own names."""


def canonical_json(document: Mapping[str, Any]) -> str:
    """Return the one spelling of a JSON object: sorted keys, no white space, ASCII.

    Raises:
        ValueError: a number is not finite.
        TypeError: a value has no form in JSON.
    """
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def tensor_file_bytes(tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> bytes:
    """Return a file's content; the same input gives the same bytes.

    Args:
        tensors: name → tensor on any device, of any strides; they may share memory.
        document: what the tensors mean, as JSON with text for keys.

    Raises:
        ValueError: the file could not be read back, such as with a number that is not finite, a
            type of tensor that the format lacks or more than 1 MiB of description.
        TypeError: a value of the document has no form in JSON.
    """
    copies = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    content = _packed(copies, canonical_json(document))
    _parse(content)  # What cannot be read must not be written.
    return content


def _packed(tensors: Mapping[str, Tensor], text: str) -> bytes:
    """Return what `safetensors.torch.save` returns, without what that leaves behind.

    For every size of a tensor it makes ctypes types that Python then keeps for good, and the
    tensors of checkpoints come in ever new sizes.
    """
    parts: dict[str, TensorSpec] = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES.values():
            raise ValueError(f"tensor {name!a:.80} has type {tensor.dtype}, which no file can hold")
        parts[name] = TensorSpec(
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=list(tensor.shape),
            data_ptr=tensor.data_ptr(),
            data_len=tensor.nbytes,
        )
    return bytes(serialize(parts, metadata={_METADATA_KEY: text}))


def read_tensor_file(
    path: Path, *, what: str, max_bytes: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a file's document and all its tensors, or nothing at all.

    The tensors own their memory: what happens to the file later does not reach them. The sizes of
    file and header are checked before anything is allocated; reading takes at most about three
    times `max_bytes`.

    Args:
        path: the file.
        what: what it should be, for messages: "objective file", "checkpoint file".
        max_bytes: the largest size that makes sense.

    Raises:
        FileError: missing, too large, not safetensors, not ours, or damaged.
        StorageError: the operating system refused.
    """
    try:
        return _parse(_read(path, max_bytes))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileError(f"{what} '{path}' does not exist; check the path") from error
    except OSError as error:
        raise StorageError(explain_os_error(error, f"read {what} '{path}'")) from error
    except (ValueError, RecursionError) as error:
        raise FileError(
            f"'{path}' is no {what}, or a damaged one: {error}; name another, or restore it"
        ) from error


def check_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    *,
    what: str,
) -> None:
    """Check that a file's tensors are exactly those of a template: names, types and shapes.

    Args:
        path: where the tensors come from, for messages.
        tensors: name → what was read.
        expected: name → type and shape.
        what: what the file is, for messages.

    Raises:
        FileError: something is missing, left over or different.
    """
    if set(tensors) != set(expected):
        missing = sorted(set(expected) - set(tensors))[:3]
        unknown = sorted(set(tensors) - set(expected))[:3]
        raise FileError(
            f"{what} '{path}' does not hold the tensors its metadata promises: "
            f"missing {missing!a:.150}, not expected {unknown!a:.150}; restore it from a copy"
        )
    for name, (dtype, shape) in expected.items():
        got = tensors[name]
        if (got.dtype, tuple(got.shape)) != (dtype, shape):
            raise FileError(
                f"{what} '{path}': tensor '{name}' is {got.dtype} {tuple(got.shape)}, "
                f"expected {dtype} {shape}; restore it from a copy"
            )


def _read(path: Path, max_bytes: int) -> bytes:
    # Looked at before it is opened: opening a pipe waits for somebody to write into it.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("expected a file, got a directory, pipe or device")
    with path.open("rb") as file:
        # The size of what was opened: the name may stand for a newer file by now.
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > max_bytes:
            raise ValueError(
                f"expected a file of at most {max_bytes / 2**20:g} MiB, got {size_bytes} bytes"
            )
        _header_end(file.read(_PREFIX_BYTES), size_bytes)
        file.seek(0)
        return file.read(size_bytes)


def _header_end(prefix: bytes, size_bytes: int) -> int:
    """Return where the header ends, as far as the beginning of a file of `size_bytes` tells."""
    header_bytes = int.from_bytes(prefix, "little")
    if header_bytes > _LARGEST_HEADER_BYTES:
        raise ValueError(
            "expected a safetensors header of at most "
            f"{_LARGEST_HEADER_BYTES // 2**20} MiB, got {header_bytes} bytes"
        )
    if _PREFIX_BYTES + header_bytes > size_bytes:
        raise ValueError(f"not safetensors, or cut short: got {size_bytes} bytes")
    return _PREFIX_BYTES + header_bytes


def _parse(content: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return document and tensors, or raise ValueError or RecursionError with the reason."""
    document = _parse_header(content)
    try:
        parts = deserialize(content)
    except SafetensorError as error:
        raise ValueError(f"not safetensors ({str(error)[:200]!a})") from error
    return document, {
        name: _tensor(name, part["dtype"], part["shape"], part["data"]) for name, part in parts
    }


def _parse_header(content: bytes) -> dict[str, Any]:
    end = _header_end(content[:_PREFIX_BYTES], len(content))
    try:
        text = content[_PREFIX_BYTES:end].decode()
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not safetensors ({error})") from error
    described = header.get("__metadata__") if isinstance(header, dict) else None
    metadata: dict[str, object] = described if isinstance(described, dict) else {}
    if set(metadata) != {_METADATA_KEY}:
        raise ValueError(
            f"expected one metadata key '{_METADATA_KEY}', got {sorted(metadata)[:5]!a:.100}"
        )
    # As safetensors writes it, padded with spaces; so nothing is there twice.
    if json.dumps(header, separators=(",", ":"), ensure_ascii=False) != text.rstrip(" "):
        raise ValueError("its safetensors header is not in the one spelling that we write")
    try:
        return _parse_document(metadata[_METADATA_KEY])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"invalid metadata: {error}") from error


def _parse_document(text: object) -> dict[str, Any]:
    document = json.loads(text) if isinstance(text, str) else None
    if not isinstance(document, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004 - as for any other content
    document = cast("dict[str, Any]", document)
    if canonical_json(document) != text:
        raise ValueError("expected canonical JSON: sorted keys, each once, no white space, ASCII")
    return document


def _tensor(name: str, dtype_name: str, shape: list[int], data: bytearray) -> Tensor:
    dtype = _DTYPES.get(dtype_name)
    if dtype is None:
        raise ValueError(f"tensor {name!a:.80} has type {dtype_name}, expected one of {[*_DTYPES]}")
    is_absurd = len(shape) > _MOST_DIMENSIONS
    if is_absurd or math.prod(max(size, 1) for size in shape) > _MOST_ELEMENTS:
        raise ValueError(f"tensor {name!a:.80} has an absurd shape: {shape[:9]}")
    if not data:
        return torch.empty(shape, dtype=dtype)
    # Copied into memory of torch's own: aligned as always, on which sums may depend.
    return torch.frombuffer(data, dtype=dtype).reshape(shape).clone()
