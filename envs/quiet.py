"""Keep what physics libraries print, and the files they drop, away from the user.

MuJoCo writes warnings straight to file descriptor 2 and a log file into the working directory, out
of Python's reach.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Generator


@contextlib.contextmanager
def quiet_libraries() -> Generator[None]:
    """Discard what is printed to the process's own stdout and stderr, from an empty directory.

    Python exceptions pass through untouched. Not for threads: descriptors and the working directory
    belong to the whole process.
    """
    _flush()
    saved = {descriptor: os.dup(descriptor) for descriptor in (1, 2) if _is_open(descriptor)}
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in saved:
            os.dup2(nothing, descriptor)
        with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
            yield
    finally:
        _flush()
        for descriptor, original in saved.items():
            os.dup2(original, descriptor)
            os.close(original)
        os.close(nothing)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _flush() -> None:
    """Write out what Python still holds; a process may have no streams at all."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # pyright: ignore[reportUnnecessaryComparison]
            stream.flush()
