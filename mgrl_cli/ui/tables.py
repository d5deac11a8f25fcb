"""What commands print on stdout: one kind of console, one kind of table.

Knows nothing of what is printed.
"""

from rich.console import Console
from rich.table import Table

_PIPE_WIDTH = 200
"""Columns where stdout is no terminal: wide enough that nothing is cut off for `grep`."""


def stdout_console() -> Console:
    """Return a console as wide as the terminal, or wide enough for a pipe; it colours no words."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def plain_table() -> Table:
    """Return an empty table without lines."""
    return Table(box=None, pad_edge=False, padding=(0, 1))
