"""Signs of life: one row per worker in shared memory, written by it, watched by the coordinator.

Nothing that decides results passes through here.
"""

from collections.abc import Collection
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

_BEATS, _ARRIVALS, _AGENT, _IS_WAITING = range(4)
_LONGEST_TICK_S = 1.0
"""Time counted between two looks at most: where this process was itself stopped, or the machine
asleep, nobody is to blame for the silence."""


@final
class PulseBoard:
    """The pulses of all workers."""

    def __init__(self, num_workers: int) -> None:
        self._table = torch.zeros((num_workers, 4), dtype=torch.int64).share_memory_()

    def row(self, worker: int) -> NDArray[np.int64]:
        """Return a worker's row, shared: beats, arrivals, agent, is_waiting."""
        return self._table[worker].numpy()


@final
class Pulse:
    """A worker's own end; a beat costs a fraction of a microsecond."""

    def __init__(self, board: PulseBoard, worker: int, first_agent: int) -> None:
        """Start to beat, on behalf of its first agent."""
        self._row = board.row(worker)
        self._row[_AGENT] = first_agent

    def beat(self) -> None:
        """Give a sign of life."""
        self._row[_BEATS] += 1

    def work_on(self, agent_id: int) -> None:
        """Give a sign of life and say whom the worker works for from now on."""
        self._row[_AGENT] = agent_id
        self._row[_IS_WAITING] = 0
        self._row[_BEATS] += 1

    def wait(self) -> None:
        """Say that from now on the worker waits for the others."""
        self._row[_ARRIVALS] += 1
        self._row[_IS_WAITING] = 1


@final
class Watchdog:
    """Notices workers that live but do nothing."""

    def __init__(self, board: PulseBoard, num_workers: int, timeout_s: float) -> None:
        """Watch workers 0 ... num_workers - 1.

        Args:
            board: their pulses.
            num_workers: how many.
            timeout_s: longest silence of a worker that others wait for.
        """
        self._rows = [board.row(worker) for worker in range(num_workers)]
        self._timeout_s = timeout_s
        self._beats = [-1] * num_workers
        self._silence_s = [0.0] * num_workers

    def agent_of(self, worker: int) -> int:
        """Return the agent that a worker works for, or last worked for."""
        return int(self._rows[worker][_AGENT])

    def look(self, passed_s: float, at_rest: Collection[int]) -> int | None:
        """Return a worker that hangs, if any.

        Args:
            passed_s: time since the last look.
            at_rest: workers that have reported and wait for the coordinator, or have finished.
        """
        for worker, row in enumerate(self._rows):
            beats = int(row[_BEATS])
            if worker in at_rest or beats != self._beats[worker]:
                self._silence_s[worker] = 0.0
            else:
                self._silence_s[worker] += min(passed_s, _LONGEST_TICK_S)
            self._beats[worker] = beats
        awaited = [worker for worker in range(len(self._rows)) if worker not in at_rest]
        silent = [worker for worker in awaited if self._silence_s[worker] > self._timeout_s]
        busy = [worker for worker in silent if not self._rows[worker][_IS_WAITING]]
        if busy:
            return busy[0]
        if silent and len(silent) == len(awaited):
            # All wait for each other: one never noticed that its wait was over.
            return min(silent, key=lambda worker: int(self._rows[worker][_ARRIVALS]))
        return None
