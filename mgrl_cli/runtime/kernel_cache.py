"""The kernels in numba's cache before a run begins: what is missing is compiled on all cores."""

import gc
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from mgrl_cli.agents.kernels import kernel_loads
from mgrl_cli.algorithm.fused.sources import is_numba_installed
from mgrl_cli.config import RunConfig
from mgrl_cli.cores import usable_cores
from mgrl_cli.fork_server import (
    START_METHOD,
    start_fork_server,
    stop_signals_blocked_if_spawned,
)
from mgrl_cli.lifeline import begin_life

COMPILER_NAME = "mgrl-compiler"
"""How the system calls a process that compiles (Linux)."""


def prepare_kernels(config: RunConfig, say: Callable[[str], None], *, workers: int | None) -> None:
    """Load the kernels of a run's agents, compiled first where that is still to be done.

    Args:
        config: says whether kernels are wanted.
        say: told in one line what is going on, before it takes its time.
        workers: 0: compile in this process; otherwise in one process per core, where there are
            several and something for each.
    """
    if not config.compiled:
        return
    if not is_numba_installed():
        say("numba is not installed, learning is several times slower: pip install 'mgrl[fast]'")
        return
    say("loading kernels")
    loads = kernel_loads(config)
    missing = [number for number, load in enumerate(loads) if not _is_cached(load)]
    if not missing:
        return
    say("compiling kernels, once per machine; it takes up to a minute")
    num_processes = min(usable_cores(), len(missing))
    if workers != 0 and num_processes > 1:
        _compile_in_processes(config, missing, num_processes)
    for number in missing:
        loads[number]()


class _CompilesError(Exception):
    """numba is about to compile."""


def _is_cached(load: Callable[[], object]) -> bool:
    """Load a kernel, or return False, at once, where it would have to be compiled."""
    from numba.core.event import Listener, install_listener

    class Refusal(Listener):
        def on_start(self, event: Any) -> None:  # noqa: ANN401 - numba's, whose data are untyped
            # numba's extensions, which it loads with the first kernel, may compile.
            if event.data["dispatcher"].__module__.startswith("mgrl_cli."):
                raise _CompilesError

        def on_end(self, event: object) -> None:
            pass

    try:
        with install_listener("numba:compile", Refusal()):
            load()
    except _CompilesError:
        return False
    return True


def _compile_in_processes(config: RunConfig, numbers: Sequence[int], num_processes: int) -> None:
    """Have several kernels compiled into the cache at once, by their numbers in `kernel_loads`.

    What fails here fails again, and is told, where this process loads the kernel.
    """
    reader, writer = get_context("spawn").Pipe(duplex=False)
    with writer:
        os.write(writer.fileno(), bytes(numbers))
    try:
        with reader, suppress(OSError, EOFError):  # no more processes; the fork server died
            start_fork_server()
            for _ in range(num_processes):
                with stop_signals_blocked_if_spawned():
                    get_context(START_METHOD).Process(
                        target=_compile, args=(config, reader), name=COMPILER_NAME, daemon=True
                    ).start()
        for process in _compilers():
            process.join()
    finally:
        left = _compilers()  # all are killed before any is waited for: a second Ctrl-C ends a wait
        for process in left:
            process.kill()
        for process in left:
            process.join()


def _compilers() -> list[BaseProcess]:
    return [process for process in active_children() if process.name == COMPILER_NAME]


def _compile(config: RunConfig, numbers: Connection) -> None:
    """Compile kernels as long as there are any that nobody has begun with."""
    begin_life()
    gc.disable()  # a seventh of the time; whatever is left over ends with the process
    loads, maker = kernel_loads(config), parent_process()
    while (number := os.read(numbers.fileno(), 1)) and maker is not None and maker.is_alive():
        with suppress(Exception):
            loads[number[0]]()
