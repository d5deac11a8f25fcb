"""The fork server: one process that has imported what workers need, and becomes them on request.

A worker that starts from nothing spends seconds of processor time on imports, and keeps a copy of
its own of all that they leave in memory. To fork the coordinator instead would be no way out: it
has threads, locks and a terminal. The server has one thread and waits; `multiprocessing` makes it.
Linux only. Elsewhere workers start from nothing: the system's libraries need not survive a fork.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from multiprocessing import resource_tracker

from mgrl_cli.stop_signals import stop_signals_blocked

START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
FORKS: bool = sys.platform == "linux"
USERS_PYTHONPATH = "MGRL_USERS_PYTHONPATH"
"""Tells the server what PYTHONPATH was before it was told where to import from."""


def start_fork_server() -> None:
    """Have the server running, where there is one, and doing its imports by itself.

    The earlier, the more of them are done while this process does its own. Call from the main
    thread only: it dies with the calling thread.

    Raises:
        OSError: the system starts no process.
    """
    # Workers have one thread. Set before anyone imports torch, whose pools read it once: a process
    # whose pools have started must not fork.
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    _start_resource_tracker()
    if START_METHOD == "forkserver":
        from multiprocessing import forkserver

        multiprocessing.set_forkserver_preload(["mgrl_cli.runtime.preload"])
        with stop_signals_blocked(), _import_path_handed_on():
            forkserver.ensure_running()


@contextmanager
def _import_path_handed_on() -> Generator[None]:
    """Have a Python that starts meanwhile import what this one would; `preload` tidies up there.

    The server is a `python -c`, which looks into the working directory before anywhere else. A
    directory `envs` there is not ours.
    """
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTHONSAFEPATH")}
    os.environ.update(
        {
            USERS_PYTHONPATH: before["PYTHONPATH"] or "",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONSAFEPATH": "1",
        }
    )
    try:
        yield
    finally:
        del os.environ[USERS_PYTHONPATH]
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def stop_signals_blocked_if_spawned() -> AbstractContextManager[None]:
    """Block them where a process starts from nothing.

    A forked one begins with them blocked anyway, and to make it may take as long as the fork
    server's imports, in which a Ctrl-C should be heard.
    """
    return nullcontext() if FORKS else stop_signals_blocked()


def _start_resource_tracker() -> None:
    """Start multiprocessing's helper process so that a hang-up of the terminal does not kill it.

    It shields itself from SIGINT and SIGTERM, but a SIGHUP to the process group would end it and
    make Python complain when the next worker starts. What is ignored at its start stays ignored.
    """
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        resource_tracker.ensure_running()
    finally:
        signal.signal(signal.SIGHUP, previous)
