"""`mgrl doctor`: what this machine offers mgrl, what it lacks, and what to do about it.

Knows how to print the findings and nothing about how they are made.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mgrl_cli.commands import DebugOption, JsonOption
from mgrl_cli.commands.run_options import RunsDirOption
from mgrl_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mgrl_cli.diagnosis.check import Check, Group
    from mgrl_cli.diagnosis.terminal import TerminalFacts

_STYLES = {"ok": "green", "warning": "yellow", "missing": "bold red"}


def doctor(
    *, runs_dir: RunsDirOption = Path("runs"), json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Tell what this machine offers and what it lacks, with what to do.

    Everything is tried, not guessed: packages are imported, processes spawned, files written in the
    runs directory (and removed). Exit code 2 if something that a run needs is missing; warnings do
    not count. Takes a few seconds.
    """
    from dataclasses import asdict
    from json import dumps

    from mgrl_cli.diagnosis.check import is_usable
    from mgrl_cli.diagnosis.examination import examine

    groups = examine(runs_dir, _terminal_facts(), show_errors=debug)
    usable = is_usable(groups)
    if json:
        checks = [{"group": g.title, **asdict(check)} for g in groups for check in g.checks]
        typer.echo(dumps({"checks": checks, "usable": usable}, indent=2, allow_nan=False))
    else:
        print_groups(groups)
    if not usable:
        missing = ", ".join(c.name for g in groups for c in g.checks if c.status == "missing")
        raise UsageError(f"not everything that mgrl needs is here, see: {missing}")


def _terminal_facts() -> "TerminalFacts":
    import os

    from rich.console import Console

    from mgrl_cli.diagnosis.terminal import TerminalFacts
    from mgrl_cli.ui.progress import can_show_live

    console = Console(stderr=True)
    return TerminalFacts(
        is_terminal=console.file.isatty(),
        encoding=console.encoding,
        term=os.environ.get("TERM", ""),
        width=console.size.width,
        has_live_view=can_show_live(console),
    )


def print_groups(groups: "Sequence[Group]") -> None:
    """Print a table for each group and the outcome on stdout."""
    from rich.text import Text

    from mgrl_cli.ui.tables import stdout_console

    console = stdout_console()
    for group in groups:
        console.print(Text(group.title, style="bold"))
        console.print(_table(group, console))
        console.print()
    console.print(summary([check for group in groups for check in group.checks]), markup=False)


def summary(checks: "Sequence[Check]") -> str:
    """Return the whole outcome on one line."""
    warnings = sum(check.status == "warning" for check in checks)
    missing = sum(check.status == "missing" for check in checks)
    first = {0: "everything needed is here", 1: "1 thing that is needed is missing"}.get(
        missing, f"{missing} things that are needed are missing"
    )
    return f"{first}; {warnings or 'no'} warning{'' if warnings == 1 else 's'}"


def _table(group: "Group", console: "Console") -> "Table":
    """Return one row per check, what to do below what was found."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    for overflow in ("ignore", "ignore", "fold"):
        table.add_column(no_wrap=overflow == "ignore", overflow=overflow)
    for check in group.checks:
        finding = Text(_plain(check.finding, console.encoding))
        if check.remedy:
            finding.append(f"\n-> {_plain(check.remedy, console.encoding)}", style="yellow")
        table.add_row(Text(check.status, style=_STYLES[check.status]), Text(check.name), finding)
    return table


def _plain(text: str, encoding: str) -> str:
    """Return text that may hold paths and messages so that any stdout can take it, on one line."""
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
    return shown.encode(encoding, "backslashreplace").decode(encoding)
