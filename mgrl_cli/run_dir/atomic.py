"""Files that are either whole or absent, and on disk rather than on their way there."""

import errno
import os
import uuid
from pathlib import Path

from mgrl_cli.errors import StorageError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old content or the new.

    Temporary file beside it, flushed to disk, renamed over it; then the directory is flushed. A
    missing directory is created, and survives a power loss just as the file does.

    Raises:
        StorageError: no space, or the operating system refused; no partial file stays behind.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        create_directory(path.parent)
        try:
            write_synced(temporary, content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise StorageError(explain_os_error(error, f"write '{path}'")) from error


def remove_unfinished(directory: Path) -> None:
    """Remove what a crash left of files that were being written atomically, if anything.

    Call it only where nobody else writes into the directory.

    Raises:
        StorageError: the operating system refused.
    """
    try:
        for path in directory.glob(".*.partial"):
            if path.is_file():
                path.unlink()
    except OSError as error:
        raise StorageError(explain_os_error(error, f"tidy '{directory}'")) from error


def create_directory(path: Path) -> None:
    """Create a directory and those missing above it, each of them on disk; it may be there already.

    Raises:
        OSError: no space, or the operating system refused.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)  # another process may be as fast
        sync_directory(folder.parent)


def write_synced(path: Path, content: bytes) -> None:
    """Write a file down to the disk; its directory is the caller's to flush.

    Raises:
        OSError: no space, or the operating system refused.
    """
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Wait until a directory's entries, as they are now, would survive a power loss.

    Raises:
        OSError: the operating system refused.
    """
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def explain_os_error(error: OSError, action: str) -> str:
    """Return one line for a failed operation, with what to do where space is the reason."""
    remedy = "; free some space and try again" if error.errno == errno.ENOSPC else ""
    return f"cannot {action}: {error.strerror or error}{remedy}"
