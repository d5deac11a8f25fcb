"""The kernels in numba's cache before a run begins: what is missing is compiled on all cores."""

import gc
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from mgrl_cli.agents.kernels import kernel_loads
from mgrl_cli.algorithm.fused.sources import is_numba_installed
from mgrl_cli.config import RunConfig
from mgrl_cli.fork_server import (
    START_METHOD,
    start_fork_server,
    stop_signals_held_back_if_spawned,
    usable_cores,
)
from mgrl_cli.lifeline import begin_life


def prepare_kernels(config: RunConfig, say: Callable[[str], None], *, workers: int | None) -> None:
    """Load the kernels of a run's agents, compiled first where that is still to be done.

    Args:
        config: says whether kernels are wanted.
        say: told in one line what is going on, before it takes its time.
        workers: 0: compile in this process; otherwise in one process per core.
    """
    if not config.compiled:
        return
    if not is_numba_installed():
        say("numba is not installed, learning is several times slower: pip install 'mgrl[fast]'")
        return
    say("loading kernels")
    loads = kernel_loads(config)
    for number, load in enumerate(loads):
        if _compiles(load):
            say("compiling kernels, once per machine; it takes up to a minute")
            if workers != 0:
                _compile_in_processes(config, range(number + 1, len(loads)))
            break
    for load in loads:
        load()


def _compiles(load: Callable[[], object]) -> bool:
    """Load a kernel; return whether it had to be compiled."""
    from numba.core.event import install_recorder

    with install_recorder("numba:compile") as recorder:
        load()
    return bool(recorder.buffer)


def _compile_in_processes(config: RunConfig, numbers: range) -> None:
    """Have several kernels compiled into the cache at once, by their numbers in `kernel_loads`.

    What fails here fails again, and is told, where this process loads the kernel.
    """
    reader, writer = get_context("spawn").Pipe(duplex=False)
    with ExitStack() as stack, suppress(OSError, EOFError):
        stack.callback(reader.close)
        with writer:
            os.write(writer.fileno(), bytes(numbers))
        start_fork_server()
        processes: list[BaseProcess] = []
        for _ in range(min(usable_cores(), len(numbers))):
            process = get_context(START_METHOD).Process(
                target=_compile, args=(config, reader), name="mgrl-compiler", daemon=True
            )
            with stop_signals_held_back_if_spawned():
                process.start()
            stack.callback(_end, process)
            processes.append(process)
        for process in processes:
            process.join()


def _end(process: BaseProcess) -> None:
    process.kill()
    process.join()


def _compile(config: RunConfig, numbers: Connection) -> None:
    """Compile kernels as long as there are any that nobody has begun with."""
    begin_life()
    gc.disable()  # a seventh of the time; whatever is left over ends with the process
    loads = kernel_loads(config)
    while number := os.read(numbers.fileno(), 1):
        loads[number[0]]()
