"""What signals mean to a study: the first asks it to stop in good order, a second ends it."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from mgrl_cli.errors import Interrupted

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_signals(how_to_continue: str) -> Generator[Callable[[], int | None]]:
    """Listen for signals; yield what returns the first that came, None as long as none has.

    A second one raises Interrupted wherever the process is. Under nohup a hang-up stays ignored.

    Args:
        how_to_continue: a sentence for whoever stops the study at once.
    """
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise Interrupted(f"stopped at once; {how_to_continue}", number)

    numbers = set(_STOP_SIGNALS)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
