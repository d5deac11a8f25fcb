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
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in (1, 2):
            os.dup2(nothing, descriptor)
        with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
            yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, original in zip((1, 2), saved, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
        os.close(nothing)
