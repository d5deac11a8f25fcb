"""Where worker processes wait for each other, made of pipes alone.

The barrier of `multiprocessing` is made of named semaphores: a SIGKILL of all processes at once,
its resource tracker included, leaves the names in shared memory until the machine restarts. A pipe
ends with the last process that has it open. Knows nothing of what the processes meet for.
"""

import os
from collections.abc import Callable
from multiprocessing import get_context
from typing import final

from mgrl_cli.errors import StorageError

_NUMBER_BYTES = 8


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
        self._turn.write((0).to_bytes(_NUMBER_BYTES))

    def wait(self, action: Callable[[], None]) -> None:
        """Wait for all others; the last to arrive acts before anyone goes on."""
        # The turn is the number of arrivals so far, in the hands of one process at a time. Meetings
        # use two gates in turns: a token is never taken by one who is a meeting ahead.
        arrivals = int.from_bytes(self._turn.read(_NUMBER_BYTES))
        gate = self._gates[arrivals // self._parties % 2]
        is_last = (arrivals + 1) % self._parties == 0
        if is_last:
            action()
            gate.write(bytes(self._parties - 1))
        self._turn.write((arrivals + 1).to_bytes(_NUMBER_BYTES))
        if not is_last:
            gate.read(1)


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
