"""What a file holds, in two figures: what a manifest keeps and a resume compares.

Knows nothing of what the file means.
"""

import builtins
import hashlib
import stat
from pathlib import Path
from typing import Annotated, BinaryIO, Self, final

from pydantic import BaseModel, ConfigDict, Field

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.run_dir.atomic import explain_os_error

_BLOCK_BYTES = 1 << 20
"""Files are read this much at a time, however large somebody made them."""


@final
class FileRecord(BaseModel):
    """Size and SHA-256 of a file's content."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    bytes: Annotated[int, Field(ge=0)]
    """Length of the content."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Lowercase hexadecimal digest."""

    @classmethod
    def of(cls, content: builtins.bytes) -> Self:
        """Return the record of `content`."""
        return cls(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


@final
class RollingRecord:
    """The record of content that comes in pieces."""

    def __init__(self) -> None:
        self._bytes = 0
        self._digest = hashlib.sha256()

    @property
    def record(self) -> FileRecord:
        """Record of all pieces so far."""
        return FileRecord(bytes=self._bytes, sha256=self._digest.hexdigest())

    def add(self, piece: bytes) -> None:
        """Take in the next piece."""
        self._bytes += len(piece)
        self._digest.update(piece)

    def add_from(self, file: BinaryIO, size_bytes: int) -> None:
        """Take in the next `size_bytes` of an open file, or as many as it has.

        Raises:
            OSError: the operating system refused to read.
        """
        while block := file.read(min(_BLOCK_BYTES, size_bytes)):
            self.add(block)
            size_bytes -= len(block)


def record_of_file(path: Path, limit_bytes: int | None = None) -> FileRecord:
    """Return the record of a file's whole content.

    Args:
        path: a regular file.
        limit_bytes: a file larger than this is refused unread, None for no limit.

    Raises:
        FileError: missing, larger than `limit_bytes`, or no regular file, as links, pipes and
            devices are.
        StorageError: the operating system refused to read.
    """
    rolling = RollingRecord()
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"'{path}' is not a regular file; restore it from a copy")
        if limit_bytes is not None and status.st_size > limit_bytes:
            raise FileError(
                f"'{path}' is too large: got {status.st_size} bytes, expected {limit_bytes} at "
                "most; restore it from a copy"
            )
        with path.open("rb") as file:
            rolling.add_from(file, status.st_size)
    except FileNotFoundError as error:
        raise FileError(f"'{path}' is missing; restore it from a copy") from error
    except OSError as error:
        raise StorageError(explain_os_error(error, f"read '{path}'")) from error
    return rolling.record
