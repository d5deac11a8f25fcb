"""Files that are either whole or absent."""

import errno
import os
import uuid
from pathlib import Path

from mgrl_cli.errors import StorageError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old content or the new.

    Temporary file beside it, flushed to disk, renamed over it; then the directory is flushed.

    Raises:
        StorageError: no space, or the operating system refused; no partial file stays behind.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StorageError(explain_os_error(error, f"write '{path}'")) from error


def explain_os_error(error: OSError, action: str) -> str:
    """Return one line for a failed operation, with what to do where space is the reason."""
    remedy = "; free some space and try again" if error.errno == errno.ENOSPC else ""
    return f"cannot {action}: {error.strerror or error}{remedy}"
