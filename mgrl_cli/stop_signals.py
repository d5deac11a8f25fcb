"""The signals that ask mgrl to stop, and who hears them. What they mean, the hearer decides."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""A terminal sends them to the whole process group, but only the process that the user started
decides what they mean; workers and their server ignore them."""


@contextmanager
def stop_signals_heard(hear: Callable[[int], None]) -> Generator[None]:
    """Have stop signals call `hear` with their number, between any two steps of this thread.

    Under nohup a hang-up stays ignored: the process is to outlive its terminal. Main thread only.
    """

    def handle(number: int, _frame: FrameType | None) -> None:
        hear(number)

    numbers = set(STOP_SIGNALS)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def stop_signals_put_off() -> Generator[None]:
    """Have stop signals mean nothing until the end, and then what they meant before.

    For what must not be left half done. Main thread only.
    """
    heard: list[int] = []
    with stop_signals_heard(heard.append):
        yield
    for number in heard:
        signal.raise_signal(number)


@contextmanager
def stop_signals_blocked() -> Generator[None]:
    """Block stop signals in this thread; they arrive at the end, unless another thread takes them.

    A process started meanwhile begins with them blocked. It may spend seconds on imports before it
    can ignore them, and a Ctrl-C in that time would kill it.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
