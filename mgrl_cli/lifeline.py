"""The tie of a process to the one that made it."""

import ctypes
import os
import signal
import sys

fork_server_pid: int | None = None
"""Of the fork server, in it and in what it becomes: the parent of workers, dead or alive."""

_PR_SET_PDEATHSIG = 1
# Loaded here: between fork and exec nothing may be imported, loaded or looked up.
_LIBC = ctypes.CDLL(None)


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies, even by SIGKILL (Linux).

    The parent is the thread that made it. Elsewhere a worker notices at its next round report, when
    the pipe is closed, and a run that lost its study goes on to its end.
    """
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # the parent died before the request was in place
        os._exit(1)
