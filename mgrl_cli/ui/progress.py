"""Which progress a run shows, and where.

Looks at the streams and at what the user asked for; knows nothing of what is shown.
"""

import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol, TextIO, cast, final

from rich.console import Console

from mgrl_cli.telemetry import RunSnapshot
from mgrl_cli.ui.json_lines import JsonLinesProgress
from mgrl_cli.ui.live import LiveView
from mgrl_cli.ui.plain import PlainProgress


class Progress(Protocol):
    """Takes snapshots and events of a run while it runs."""

    def update(self, snapshot: RunSnapshot) -> None:
        """Show `snapshot`, as far as it is news."""
        ...

    def announce(self, event: str) -> None:
        """Show at once, on one line, that something out of the ordinary happened.

        Args:
            event: any text; what cannot be shown safely is escaped.
        """
        ...


@final
class CombinedProgress:
    """Passes each snapshot and event on to every one of `parts`; silent without any."""

    def __init__(self, parts: Sequence[Progress]) -> None:
        self.parts = tuple(parts)

    def update(self, snapshot: RunSnapshot) -> None:
        """Update all parts, in order."""
        for part in self.parts:
            part.update(snapshot)

    def announce(self, event: str) -> None:
        """Tell all parts, in order."""
        for part in self.parts:
            part.announce(event)


@contextmanager
def open_progress(
    *, quiet: bool, json: bool, console: Console, rounds_before: int = 0
) -> Generator[CombinedProgress]:
    """Open the progress that fits the streams: live view, plain lines, JSON lines or nothing.

    Lines come one per round's end, and only for rounds that `update` gets to see: call it at
    each round's end, and in between a few times a second for the live view. Events are shown in
    all of them as they are announced.

    Args:
        quiet: nothing on stderr.
        json: one JSON object per round or event on stdout; on stderr then the live view alone, and
            only where the two do not share a terminal.
        console: stderr.
        rounds_before: rounds that had ended before, where a run is continued.
    """
    with ExitStack() as stack:
        parts: list[Progress] = []
        if json:
            parts.append(JsonLinesProgress(sys.stdout, rounds_before))
        is_live = can_show_live(console) and not (json and sys.stdout.isatty())
        if not quiet and is_live:
            parts.append(stack.enter_context(LiveView(console)))
        elif not quiet and not json:
            parts.append(PlainProgress(cast("TextIO", console.file), rounds_before))
        yield CombinedProgress(parts)


def can_show_live(console: Console) -> bool:
    """Return whether `console` can redraw a view in place.

    False off-TTY even where FORCE_COLOR or TTY_COMPATIBLE ask for colours: moving the cursor
    would garble a log. TTY_INTERACTIVE=0 turns the view off.
    """
    is_terminal = console.file.isatty() and console.is_interactive
    return (
        is_terminal
        and not console.is_dumb_terminal
        and console.encoding.lower().replace("-", "") == "utf8"
    )
