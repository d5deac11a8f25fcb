"""Reading one chunk of a replay on disk, and believing it only after a look at the file.

Memory follows the chunk size that the caller knows, never what is on disk. Must not know what the
rows mean, or which of them count.
"""

import stat
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.replay.schema import CHUNK_ROWS, Field

ZARR_ERRORS = (
    ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError, MemoryError,
)  # fmt: skip
"""What zarr raises for metadata or chunks it cannot make sense of."""


def read_chunk(
    group: Path, field: Field, array: zarr.Array[Any], chunk: int, stop: int
) -> NDArray[Any]:
    """Return the rows of one chunk, as far as they come before row `stop` of the array.

    Args:
        group: of one agent, on disk.
        field: which array.
        array: reads from `group`, and is as `field` describes it.
        chunk: its number.
        stop: rows that count.

    Raises:
        FileError: missing, of another size, or its CRC-32C is not that of its rows.
        StorageError: the operating system refused.
    """
    # Zarr alone would take a missing file for a chunk of zeros.
    where = f"{group}: array '{field.path}' chunk {chunk}"
    expected = field.chunk_bytes(array.shape[1:])
    try:
        size = plain_size(group, field.chunk_path(chunk))
        if size != expected:
            raise FileError(f"{where} has {size} bytes, expected {expected}: it is damaged.")
        return np.asarray(array[chunk * CHUNK_ROWS : min((chunk + 1) * CHUNK_ROWS, stop)])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileError(f"{where} is missing; restore it from a copy.") from error
    except OSError as error:
        raise StorageError(f"{where} cannot be read: {error.strerror}.") from error
    except ZARR_ERRORS as error:
        raise FileError(f"{where} is damaged; restore it from a copy.") from error


def plain_size(group: Path, inner: str) -> int:
    """Return the bytes of a file below `group`; a link or a pipe might lead or wait anywhere.

    Raises:
        FileError: not a plain file, or reached through a link.
        OSError: missing, or the operating system refused.
    """
    file, mode, size = group, 0, 0
    for part in inner.split("/"):
        file /= part
        status = file.lstat()
        mode, size = status.st_mode, status.st_size
        if stat.S_ISLNK(mode):
            raise FileError(f"{file} is a link; a replay has none: copy what it points to.")
    if not stat.S_ISREG(mode):
        raise FileError(f"{file} is no plain file; restore the replay from a copy.")
    return size
