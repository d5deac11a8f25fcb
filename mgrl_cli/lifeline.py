"""The tie of a process to the one that made it, in place before it has loaded anything.

A new process spends seconds on imports. Whoever kills its maker in that time must not leave
processes behind, so this module imports nothing that takes time, and knows nothing of what the
processes are for.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import final

_PR_SET_PDEATHSIG = 1
# Loaded here: between fork and exec nothing may be imported, loaded or looked up.
_LIBC = ctypes.CDLL(None)


@final
class Lifeline:
    """An argument of a new process that ties it to the one that made it.

    Make it the first argument: arguments are unpacked in order, and an object imports what it needs
    when it is unpacked.
    """

    def __init__(self) -> None:
        self._parent_pid = os.getpid()

    def __reduce__(self) -> tuple[Callable[[int], object], tuple[int]]:
        """Have the tie made wherever this object arrives."""
        return die_with, (self._parent_pid,)


def begin(_lifeline: object, body: Callable[..., None], *arguments: object) -> None:
    """Run a new process; the target beside which nothing but a lifeline is needed."""
    body(*arguments)


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies, even by SIGKILL (Linux).

    The parent is the thread that made it. Elsewhere a worker notices at its next round report, when
    the pipe is closed, and a run that lost its study goes on to its end.
    """
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # the parent died before the request was in place
        os._exit(1)
