"""The live view on a terminal.

Owns the terminal while it is open and gives it back on every way out. Knows nothing of what the
frames show and keeps no clock: whoever calls `update` decides how often.
"""

from types import TracebackType
from typing import Self, TextIO, cast, final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mgrl_cli.telemetry import RunSnapshot
from mgrl_cli.ui.event_text import event_text
from mgrl_cli.ui.guarded_stream import GuardedStream
from mgrl_cli.ui.panels import render_run


@final
class LiveView:
    """Redraws a run in place; the last frame, then with every agent, stays on the screen.

    A context manager. Events, and text that others write to stderr meanwhile, appear above the
    view.
    """

    def __init__(self, console: Console) -> None:
        """Prepare a view on `console`, an interactive terminal. Nothing is drawn yet."""
        self._console = console
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
        self._last: RunSnapshot | None = None

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
        """Draw the last frame and give the terminal back."""
        try:
            if self._last is not None:
                width = self._console.size.width
                self._live.update(render_run(self._last, width=width, height=None))
        finally:
            self._live.stop()
            self._console.file = self._file

    def update(self, snapshot: RunSnapshot) -> None:
        """Draw `snapshot` in place of the frame before, at the terminal's present size."""
        self._last = snapshot
        size = self._console.size
        frame = render_run(snapshot, width=size.width, height=size.height)
        self._live.update(frame, refresh=True)

    def announce(self, event: str) -> None:
        """Print `event` above the view, where it stays."""
        # The terminal wraps the line: a path in it can still be copied whole.
        self._console.print(Text.assemble(("! ", "bold yellow"), event_text(event)), soft_wrap=True)
