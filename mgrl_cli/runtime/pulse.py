"""Signs of life: one row per worker in shared memory, written by it, watched by the coordinator.

Nothing that decides results passes through here.
"""

from collections.abc import Collection, Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from mgrl_cli.runtime.shared_memory import shared

_BEATS, _ARRIVALS, _AGENT, _IS_WAITING = range(4)
_LONGEST_TICK_S = 0.5
"""Time counted between two looks at most: where this process was itself stopped, or the machine
asleep, nobody is to blame for the silence."""
_START_TIMEOUT_S = 120.0
"""Least silence that is taken for hanging before a worker's first report: until then it imports,
makes environments and reads its replay, and has no chance to beat."""


@final
class PulseBoard:
    """The pulses of all workers."""

    def __init__(self, first_agents: Sequence[int]) -> None:
        """Make a row for each worker, which counts as working for this agent until it says more."""
        self._table = shared(torch.zeros((len(first_agents), 4), dtype=torch.int64))
        self._table[:, _AGENT] = torch.tensor(first_agents)

    @property
    def num_workers(self) -> int:
        """Rows."""
        return len(self._table)

    def row(self, worker: int) -> NDArray[np.int64]:
        """Return a worker's row, shared: beats, arrivals, agent, is_waiting."""
        return self._table[worker].numpy()


@final
class Pulse:
    """A worker's own end; a beat costs a fraction of a microsecond."""

    def __init__(self, board: PulseBoard, worker: int) -> None:
        self._row = board.row(worker)

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

    def __init__(self, board: PulseBoard, timeout_s: float) -> None:
        """Watch all workers on a board.

        Args:
            board: their pulses.
            timeout_s: longest silence of a worker that others wait for.
        """
        self._rows = [board.row(worker) for worker in range(board.num_workers)]
        self._timeout_s = timeout_s
        self._beats = [-1] * board.num_workers
        self._silence_s = [0.0] * board.num_workers
        self._limit_s = [max(timeout_s, _START_TIMEOUT_S)] * board.num_workers

    def agent_of(self, worker: int) -> int:
        """Return the agent that a worker works for, or last worked for."""
        return int(self._rows[worker][_AGENT])

    def note_report(self, worker: int) -> None:
        """Take note that a worker has reported, so that it is no longer starting."""
        self._limit_s[worker] = self._timeout_s

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
        silent = [worker for worker in awaited if self._silence_s[worker] > self._limit_s[worker]]
        busy = [worker for worker in silent if not self._rows[worker][_IS_WAITING]]
        if busy:
            return busy[0]
        if silent and len(silent) == len(awaited):
            # All wait for each other: one never noticed that its wait was over.
            return min(silent, key=lambda worker: int(self._rows[worker][_ARRIVALS]))
        return None
