"""Stopping a run in this process with real signals at chosen moments."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mgrl_cli.errors import Interrupted
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
def signal_after(seconds: float, number: signal.Signals = signal.SIGINT) -> Iterator[None]:
    """Send this process a signal unless the block is over by then."""
    is_over = threading.Event()

    def send() -> None:
        if not is_over.wait(seconds):
            os.kill(os.getpid(), number)

    # Should the signal come too late to be caught by the run, it is not to end the tests.
    previous = signal.signal(number, lambda *_: None)
    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        signal.signal(number, previous)


def run_with_stops(attempts: Callable[[], None], waits_s: Iterator[float]) -> int:
    """Call `attempts` until one comes to its end, each stopped after a while; count the stops."""
    stops = 0
    while True:
        try:
            with signal_after(next(waits_s)):
                attempts()
        except Interrupted:
            stops += 1
        else:
            return stops
