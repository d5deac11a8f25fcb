"""A frame on a terminal that is drawn again in place.

Owns the terminal while it is open and gives it back on every way out. Knows nothing of what the
frames show and keeps no clock: whoever calls `update` decides how often.
"""

from types import TracebackType
from typing import Generic, Protocol, Self, TextIO, TypeVar, cast

from rich.console import Console, RenderableType
from rich.live import Live

from mgrl_cli.stop_signals import stop_signals_put_off
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

    A context manager. Text that others write to stderr meanwhile appears above the frame.
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

    def __enter__(self) -> Self:
        """Hide the cursor and take over stderr."""
        # rich answers a closed pipe by ending the process; the guard never lets it see one.
        self._console.file = cast("TextIO", GuardedStream(self._file))
        self._live.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Draw the last frame and give the terminal back, whoever wants to stop meanwhile."""
        with stop_signals_put_off():
            try:
                if self._last is not None:
                    width = self._console.size.width
                    self._live.update(self._render(self._last, width=width, height=None))
            finally:
                self._live.stop()
                self._console.file = self._file

    def update(self, snapshot: Snapshot) -> None:
        """Draw `snapshot` in place of the frame before, at the terminal's present size."""
        self._last = snapshot
        size = self._console.size
        frame = self._render(snapshot, width=size.width, height=size.height)
        self._live.update(frame, refresh=True)
