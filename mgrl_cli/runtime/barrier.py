"""Where worker processes wait for each other, made of pipes alone.

The barrier of `multiprocessing` is made of named semaphores: a SIGKILL of all processes at once,
its resource tracker included, leaves the names in shared memory until the machine restarts. A pipe
ends with the last process that has it open. Knows nothing of what the processes meet for.
"""

import os
import select
import time
from collections.abc import Callable
from multiprocessing import get_context
from typing import final

from mgrl_cli.cores import usable_cores
from mgrl_cli.errors import StorageError

_NUMBER_BYTES = 8
_LOOKING_S = 2e-4
"""How long to look out for the others before going to sleep, where everyone has a core: to be woken
takes longer than a meeting."""


@final
class Barrier:
    """A place to wait for all others; give it to processes as an argument of their start.

    Whoever dies here may take the turn along, so the others wait for ever: end them too.
    """

    def __init__(self, parties: int) -> None:
        """Open the pipes.

        Args:
            parties: processes that meet.

        Raises:
            StorageError: the system refused.
        """
        try:
            self._turn, self._gates = _Pipe(), (_Pipe(), _Pipe())
        except OSError as error:
            raise StorageError(
                f"cannot open pipes between workers: {error.strerror or error}; "
                "raise the limit of 'ulimit -n' (open files)"
            ) from error
        self._parties = parties
        self._looking_s = _LOOKING_S if parties <= usable_cores() else 0.0
        self._turn.write((0).to_bytes(_NUMBER_BYTES))

    def arrive(self, action: Callable[[], None]) -> "Passage":
        """Say that this process is there; the last to arrive acts.

        Returns:
            What lets this process on when all have arrived and the last has acted. Everyone must
            pass before arriving again.
        """
        # The turn is the number of arrivals so far, in the hands of one process at a time. Meetings
        # use two gates in turns: a token is never taken by one who is a meeting ahead.
        self._turn.look(self._looking_s)
        arrivals = int.from_bytes(self._turn.read(_NUMBER_BYTES))
        gate = self._gates[arrivals // self._parties % 2]
        if (arrivals + 1) % self._parties == 0:
            action()
            gate.write(bytes(self._parties))
        self._turn.write((arrivals + 1).to_bytes(_NUMBER_BYTES))
        return Passage(gate, self._looking_s)


@final
class Passage:
    """What is left to do of a meeting after the arrival."""

    def __init__(self, gate: "_Pipe", looking_s: float) -> None:
        self._gate = gate
        self._looking_s = looking_s

    def wait(self) -> None:
        """Wait until all others have arrived and the last of them has acted."""
        self._gate.look(self._looking_s)
        self._gate.sleep()
        self._gate.read(1)


@final
class _Pipe:
    """Both ends of a pipe. Nobody sees its end, as each has both open."""

    def __init__(self) -> None:
        self._reader, self._writer = get_context("spawn").Pipe(duplex=False)

    def read(self, size: int) -> bytes:
        """Take what somebody wrote in one piece, or one of several bytes; wait for it."""
        return os.read(self._reader.fileno(), size)

    def write(self, data: bytes) -> None:
        os.write(self._writer.fileno(), data)

    def look(self, duration_s: float) -> None:
        """Return when there is something to read, or after this time."""
        poll, until_s = self._poll(), time.perf_counter() + duration_s
        while time.perf_counter() < until_s and not poll.poll(0):
            pass

    def sleep(self) -> None:
        """Sleep until there is something to read.

        All who sleep here wake at once. Those who sleep in `read` wake one after the other, each
        when the one before has had its turn on a core.
        """
        self._poll().poll()

    def _poll(self) -> select.poll:
        poll = select.poll()
        poll.register(self._reader.fileno(), select.POLLIN)
        return poll
