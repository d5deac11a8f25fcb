"""The tie of a process to the one that made it."""

import ctypes
import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from mgrl_cli.stop_signals import STOP_SIGNALS

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


def begin_life() -> None:
    """Begin a process that `multiprocessing` has made: it dies with its maker, and only then.

    Whatever asks a run to stop is for the maker to hear and to hand on.
    """
    # The fork server has such a tie too. It may have died already, and then is no parent any more.
    die_with(fork_server_pid or os.getppid())
    maker = multiprocessing.parent_process()
    if maker is None or not maker.is_alive():
        os._exit(1)  # it died before the tie was made
    with suppress(OSError):  # another system than Linux
        Path("/proc/self/comm").write_text(multiprocessing.current_process().name)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # see `stop_signals_blocked`
