"""Refuse the n-th I/O operation below a directory, n = 1, 2, ..., after SQLite's test method.

Knows how operations fail and not what the files mean: the test says what must hold afterwards.

    for n in itertools.count(1):
        with crash_at(run_directory, n) as crash:
            work()
        check(run_directory)
        if not crash.fired:
            break
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOSPC
from pathlib import Path
from typing import final

from tests.faults.interception import FREES_SPACE, Operation, Trace, intercept


class SimulatedCrash(BaseException):
    """The process is dead from here on: no clean-up reaches the disk any more."""


class Crash(Trace):
    """Ends the process at operation `at`."""

    @property
    def is_dead(self) -> bool:
        return self.fired

    def refusal(self, operation: Operation) -> BaseException | None:
        return SimulatedCrash(self.operations[-1]) if self.fired else None


@final
class Failure(Trace):
    """Raises an OSError at operation `at`, and from then on if `sticky`."""

    def __init__(self, root: Path, at: int, errno_value: int, *, sticky: bool) -> None:
        super().__init__(root, at)
        self._errno = errno_value
        self._sticky = sticky

    def refusal(self, operation: Operation) -> BaseException | None:
        if self._sticky and self._errno == ENOSPC and operation.kind in FREES_SPACE:
            return None
        if self.is_at_fault or (self._sticky and self.fired):
            return OSError(self._errno, os.strerror(self._errno), operation.path)
        return None


@contextmanager
def count_operations(root: Path) -> Iterator[list[str]]:
    """Collect what is done below `root`, in order, such as "write metrics/agent-000.jsonl"."""
    trace = Trace(root)
    with intercept(trace):
        yield trace.operations


@contextmanager
def crash_at(root: Path, n: int) -> Iterator[Crash]:
    """End the process, as far as `root` can tell, at the n-th operation from 1.

    A write that is hit leaves half of its bytes. From then on every operation raises
    `SimulatedCrash`, also in `finally` blocks and other threads. The exception ends the `with`
    block and is not raised beyond it; `fired` tells whether there was an n-th operation.
    """
    crash = Crash(root, n)
    with intercept(crash), suppress(SimulatedCrash):
        yield crash


@contextmanager
def fail_at(root: Path, n: int, errno_value: int, *, sticky: bool = False) -> Iterator[Failure]:
    """Raise an OSError at the n-th operation from 1; if `sticky`, at every one from then on.

    A write that is hit leaves half of its bytes behind, where the next write overwrites them
    (unless the file is open for appending). With a sticky ENOSPC, unlink and rmdir still work.
    """
    failure = Failure(root, n, errno_value, sticky=sticky)
    with intercept(failure):
        yield failure
