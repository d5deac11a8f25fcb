"""What signals mean to a study: the first asks it to stop in good order, a second ends it."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from mgrl_cli.errors import Interrupted
from mgrl_cli.stop_signals import stop_signals_heard


@contextmanager
def stop_signal(how_to_continue: str) -> Generator[Callable[[], int | None]]:
    """Listen for signals; yield what returns the first that came, None as long as none has.

    A second one raises Interrupted wherever the process is.

    Args:
        how_to_continue: a sentence for whoever stops the study at once.
    """
    received: list[int] = []

    def hear(number: int) -> None:
        received.append(number)
        if len(received) > 1:
            raise Interrupted(f"stopped at once; {how_to_continue}", number)

    with stop_signals_heard(hear):
        yield lambda: received[0] if received else None
