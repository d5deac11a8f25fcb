"""Whether worker processes can be started, share memory and end with their coordinator.

As a probe it starts two processes, as runs start their workers. Knows what workers need from the
system and nothing of what they compute.
"""

import ctypes
import multiprocessing as mp
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING

from mgrl_cli.diagnosis.check import BYTES_PER_MIB, Check, describe_error
from mgrl_cli.diagnosis.probe import ProbeReport, reporter
from mgrl_cli.fork_server import START_METHOD

if TYPE_CHECKING:
    from torch import Tensor

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
_OPEN_FILES_LOW = 256
_SHARED_LOW_BYTES = 32 * BYTES_PER_MIB
_SHARED_MEMORY = Path("/dev/shm")
_WRITTEN = 3.0
_RUN_AGAIN = "run mgrl doctor again when the machine is idle; report it if it stays"


def probe_processes(report: Callable[[str, object], None]) -> None:
    """Report what processes can do here; what fails is reported as "NAME problem"."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    report("open files", None if soft == resource.RLIM_INFINITY else soft)
    if _SHARED_MEMORY.is_dir():
        status = os.statvfs(_SHARED_MEMORY)
        report("shared free bytes", status.f_bavail * status.f_frsize)
    measures = {"spawn s": lambda: _measure_spawn_s(report), "shared memory": _shares_memory}
    for name, measure in measures.items():
        try:
            report(name, measure())
        except Exception as error:  # a system can refuse processes and semaphores in any way
            report(f"{name} problem", describe_error(error))


def _measure_spawn_s(report: Callable[[str, object], None]) -> float:
    """Return how long a fresh Python process takes to start, answer and end."""
    context = mp.get_context(START_METHOD)
    start_s = time.perf_counter()
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        report("dies with parent", ours.recv())
    except EOFError as error:
        process.join()
        message = f"the spawned process ended with {process.exitcode} and without an answer"
        raise ChildProcessError(message) from error
    process.join()
    return time.perf_counter() - start_s


def _answer(connection: Connection) -> None:
    """Tell whether the kernel takes the order to kill this process when its parent dies."""
    is_ordered = False
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        order = ctypes.c_int(0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(order))
        is_ordered = order.value == signal.SIGKILL
    connection.send(is_ordered)


def _shares_memory() -> bool:
    """Return whether this process sees what another writes into a tensor, and its event."""
    import torch.multiprocessing as torch_mp

    context = torch_mp.get_context(START_METHOD)
    import torch

    tensor = torch.zeros(4).share_memory_()
    is_written: Event = context.Event()
    process = context.Process(target=_write, args=(tensor, is_written), daemon=True)
    process.start()
    process.join()
    if process.exitcode != 0:
        message = f"the process that was to write ended with {process.exitcode}"
        raise ChildProcessError(message)
    return is_written.is_set() and bool((tensor == _WRITTEN).all())


def _write(tensor: "Tensor", is_written: Event) -> None:
    tensor.fill_(_WRITTEN)
    is_written.set()


def judge_processes(probed: ProbeReport) -> Iterator[Check]:
    """Yield the checks on processes."""
    yield _spawn(probed)
    yield _shared_tensor(probed)
    if "shared free bytes" in probed.facts:
        yield _shared_space(probed.facts["shared free bytes"])
    if "open files" in probed.facts:
        yield _open_files(probed.facts["open files"])
    if "dies with parent" in probed.facts:
        yield _end(probed.facts["dies with parent"])


def _spawn(probed: ProbeReport) -> Check:
    facts = probed.facts
    if "spawn s" in facts:
        return Check("spawn", "ok", f"a fresh process answers and ends in {facts['spawn s']:.2f} s")
    if "spawn s problem" in facts:
        return Check(
            "spawn",
            "missing",
            f"no process can be spawned: {facts['spawn s problem']}",
            "allow more processes (ulimit -u), or start runs with --workers 0",
        )
    return Check("spawn", "warning", f"not measured: the probe {probed.ending}", _RUN_AGAIN)


def _shared_tensor(probed: ProbeReport) -> Check:
    name, facts = "shared memory", probed.facts
    if facts.get(name) is True:
        return Check(name, "ok", "a process sees what another writes into a tensor")
    if name in facts or f"{name} problem" in facts:
        problem = facts.get(f"{name} problem", "what was written is not seen")
        return Check(
            name,
            "missing",
            f"tensors cannot be shared: {problem}",
            "see that torch can be imported and /dev/shm written, or start runs with --workers 0",
        )
    return Check(name, "warning", f"not measured: the probe {probed.ending}", _RUN_AGAIN)


def _shared_space(free_bytes: int) -> Check:
    finding = f"{free_bytes / BYTES_PER_MIB:,.0f} MiB free in {_SHARED_MEMORY}"
    if free_bytes < _SHARED_LOW_BYTES:
        remedy = "a large population may not fit: empty it, or give the container a larger one"
        return Check("shared space", "warning", finding, remedy)
    return Check("shared space", "ok", finding)


def _open_files(soft_limit: int | None) -> Check:
    """Judge the limit; None is no limit."""
    if soft_limit is None:
        return Check("open files", "ok", "no limit")
    if soft_limit < _OPEN_FILES_LOW:
        remedy = f"raise it before starting runs: ulimit -n {4 * _OPEN_FILES_LOW}"
        return Check("open files", "warning", f"at most {soft_limit} per process", remedy)
    return Check("open files", "ok", f"at most {soft_limit} per process")


def _end(is_ordered: bool) -> Check:
    if is_ordered:
        return Check("end of a run", "ok", "the kernel ends workers together with their run")
    finding = "workers notice at the next round that their run was killed"
    return Check("end of a run", "ok", finding)


if __name__ == "__main__":
    probe_processes(reporter())
