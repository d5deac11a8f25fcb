"""The signals that ask mgrl to stop, and who hears them. What they mean, the hearer decides."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""A terminal sends them to the whole process group, but only the run's or the study's own process
decides what they mean; workers and their server ignore them."""
_Handler = Callable[[int, FrameType | None], object] | int | None


@contextmanager
def stop_signals_heard(hear: Callable[[int], None]) -> Generator[None]:
    """Have stop signals call `hear` with their number, between any two steps of the main thread.

    Under nohup a hang-up stays ignored: the process is to outlive its terminal. Main thread only.
    """

    def handle(number: int, _frame: FrameType | None) -> None:
        hear(number)

    previous: list[tuple[int, _Handler]] = []
    try:
        # SIGINT first, and last below: of what these signals mean at first it alone raises, and
        # would leave the others as they are.
        for number in STOP_SIGNALS:
            handler = signal.getsignal(number)
            if number != signal.SIGHUP or handler is not signal.SIG_IGN:
                previous.append((number, handler))
                signal.signal(number, handle)
        yield
    finally:
        for number, handler in reversed(previous):
            signal.signal(number, handler)


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
