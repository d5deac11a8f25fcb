"""`mgrl runs`: the runs of a directory and how far each of them is."""

from pathlib import Path
from typing import TYPE_CHECKING

from mgrl_cli.commands import DebugOption, JsonOption
from mgrl_cli.commands.run_options import RunsDirOption

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from mgrl_cli.inspection.runs import RunLine


def runs(
    *, runs_dir: RunsDirOption = Path("runs"), json: JsonOption = False, debug: DebugOption = False
) -> None:
    """List runs with their state: running, interrupted (mgrl resume), finished, damaged."""
    from dataclasses import asdict
    from json import dumps

    import typer

    from mgrl_cli.inspection.runs import list_runs
    from mgrl_cli.ui.tables import stdout_console

    lines = list_runs(runs_dir)
    if json:
        typer.echo(dumps({"runs": [asdict(line) for line in lines]}, indent=2))
        return
    if not lines:
        typer.echo(f"no run in '{runs_dir}'", err=True)
        return
    stdout_console().print(_table(lines))


def _table(lines: "Iterable[RunLine]") -> "Table":
    from rich.text import Text

    from mgrl_cli.inspection.plain_text import plain_text
    from mgrl_cli.ui.number_text import MISSING, duration_text
    from mgrl_cli.ui.tables import plain_table

    table = plain_table()
    table.add_column("run", style="bold")
    for name in ("kind", "environments"):
        table.add_column(name)
    for name in ("agents", "rounds", "time"):
        table.add_column(name, justify="right")
    table.add_column("state")
    for line in lines:
        left_out = f" (-{line.quarantined})" if line.quarantined else ""
        table.add_row(
            Text(plain_text(line.name)),
            line.kind or MISSING,
            Text(plain_text(",".join(line.environments)) or MISSING),
            MISSING if line.agents is None else f"{line.agents}{left_out}",
            MISSING if line.rounds is None else f"{line.rounds}/{line.num_rounds}",
            MISSING if line.elapsed_s is None else duration_text(line.elapsed_s),
            Text(plain_text(f"{line.state}: {line.remark}" if line.remark else line.state)),
        )
    return table
