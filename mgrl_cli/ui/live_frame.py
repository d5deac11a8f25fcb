"""A frame on a terminal that is drawn again in place.

Owns the terminal while it is open and gives it back on every way out. Knows nothing of what the
frames show and keeps no clock: whoever calls `update` decides how often.
"""

import signal
from contextlib import ExitStack
from types import TracebackType
from typing import Generic, Protocol, Self, TextIO, TypeVar, cast

from rich.console import Console, RenderableType
from rich.live import Live

from mgrl_cli.errors import Interrupted
from mgrl_cli.stop_signals import stop_signals_heard
from mgrl_cli.ui.guarded_stream import GuardedStream

Snapshot = TypeVar("Snapshot")
_Shown = TypeVar("_Shown", contravariant=True)


class Render(Protocol[_Shown]):
    """Lays a snapshot out."""

    def __call__(self, snapshot: _Shown, *, width: int, height: int | None) -> RenderableType:
        """Return a frame of at most `width` × `height` cells; None: as high as it takes."""
        ...


class LiveFrame(Generic[Snapshot]):
    """Redraws snapshots in place; the last frame, then in full height, stays on the screen.

    A context manager, for the main thread: it hears the stop signals that nobody inside hears, so
    that none ends the process with the terminal still taken. Text that others write to stderr
    meanwhile appears above the frame.
    """

    def __init__(self, console: Console, render: Render[Snapshot]) -> None:
        """Prepare a frame on `console`, an interactive terminal. Nothing is drawn yet."""
        self._console = console
        self._render = render
        self._file = cast("TextIO", console.file)
        # stdout is left alone: it may be a pipe that carries results.
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=False,
            screen=False,
            redirect_stdout=False,
            vertical_overflow="crop",
        )
        self._last: Snapshot | None = None
        self._opened = ExitStack()
        self._is_busy = False
        """With the terminal, which nobody is to leave half taken."""
        self._heard: int | None = None

    def __enter__(self) -> Self:
        """Hide the cursor and take over stderr."""
        with ExitStack() as stack:
            stack.enter_context(stop_signals_heard(self._hear))
            # rich answers a closed pipe by ending the process; the guard never lets it see one.
            self._console.file = cast("TextIO", GuardedStream(self._file))
            stack.callback(setattr, self._console, "file", self._file)
            stack.callback(self._live.stop)
            self._is_busy = True
            self._live.start()
            self._is_busy = False
            if self._heard is not None:
                self._hear(self._heard)
            self._opened = stack.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Draw the last frame and give the terminal back.

        Raises:
            Interrupted: by a second stop signal meanwhile; the first would change nothing any more.
        """
        self._is_busy = True
        with self._opened:
            if self._last is not None:
                width = self._console.size.width
                self._live.update(self._render(self._last, width=width, height=None))

    def _hear(self, number: int) -> None:
        # A second one is not put off: a terminal may never take what is written to it.
        if self._is_busy and self._heard is None:
            self._heard = number
        else:
            raise Interrupted(f"stopped by {signal.Signals(number).name}", number)

    def update(self, snapshot: Snapshot) -> None:
        """Draw `snapshot` in place of the frame before, at the terminal's present size."""
        self._last = snapshot
        size = self._console.size
        frame = self._render(snapshot, width=size.width, height=size.height)
        self._live.update(frame, refresh=True)
