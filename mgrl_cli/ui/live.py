"""The live view of a run: a frame that is drawn again, and events above it."""

from typing import final

from rich.console import Console
from rich.text import Text

from mgrl_cli.telemetry import RunSnapshot
from mgrl_cli.ui.event_text import event_text
from mgrl_cli.ui.live_frame import LiveFrame
from mgrl_cli.ui.panels import render_run


@final
class LiveView(LiveFrame[RunSnapshot]):
    """Redraws a run in place; the last frame, then with every agent, stays on the screen."""

    def __init__(self, console: Console) -> None:
        """Prepare a view on `console`, an interactive terminal. Nothing is drawn yet."""
        super().__init__(console, render_run)

    def announce(self, event: str) -> None:
        """Print `event` above the view, where it stays."""
        # The terminal wraps the line: a path in it can still be copied whole.
        self._console.print(Text.assemble(("! ", "bold yellow"), event_text(event)), soft_wrap=True)
