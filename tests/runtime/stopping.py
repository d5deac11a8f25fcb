"""Stopping a run in this process with real signals at chosen moments."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from mgrl_cli.errors import Interrupted
from mgrl_cli.runtime.pulse import Pulse
from mgrl_cli.telemetry import RunSnapshot
from tests.runtime.conftest import Remembering


class StopAfterRound(Remembering):
    """A progress that sends this process one signal as soon as it sees the end of a round."""

    def __init__(self, round_index: int, number: signal.Signals = signal.SIGINT) -> None:
        super().__init__()
        self._round_index = round_index
        self._number = number
        self._has_sent = False

    def update(self, snapshot: RunSnapshot) -> None:
        super().update(snapshot)
        if snapshot.round_index == self._round_index and not self._has_sent:
            self._has_sent = True
            os.kill(os.getpid(), self._number)


@contextmanager
def signal_at_beat(beat: int, number: signal.Signals = signal.SIGINT) -> Iterator[None]:
    """Send this process a signal at a worker's sign of life of this number, from 1, if it comes.

    There is one for every step and every update of the agents that run in this process.
    """
    beats = count(1)

    def counted(give: Callable[..., None]) -> Callable[..., None]:
        def give_and_count(*arguments: object) -> None:
            give(*arguments)
            if next(beats) == beat:
                os.kill(os.getpid(), number)

        return give_and_count

    with pytest.MonkeyPatch.context() as patch:
        for name in ("beat", "work_on"):
            patch.setattr(Pulse, name, counted(getattr(Pulse, name)))
        yield


def run_with_stops(attempts: Callable[[], None], beats: Iterator[int]) -> int:
    """Call `attempts` until one comes to its end, each stopped at a beat; count the stops."""
    stops = 0
    while True:
        try:
            with signal_at_beat(next(beats)):
                attempts()
        except Interrupted:
            stops += 1
        else:
            return stops
