"""`mgrl envs`: the environments that have a name here, what they measure and what they still need.

Knows how to print the list and nothing about how an environment is found or made.
"""

from typing import TYPE_CHECKING

from mgrl_cli.commands import DebugOption, JsonOption

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from envs.registry import EnvironmentInfo


def envs(*, json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the known environments and what they need.

    Shown are the sizes of observations and actions, the time limit in steps and the extra that is
    not installed. Any other Gymnasium id works too (module:Name-v0 imports the module first) if
    its observations and actions are one-dimensional float boxes.
    """
    from dataclasses import asdict
    from json import dumps

    import typer

    from envs.registry import known_environments
    from mgrl_cli.ui.tables import stdout_console

    environments = known_environments()
    if json:
        typer.echo(dumps({"environments": [asdict(info) for info in environments]}, indent=2))
        return
    stdout_console().print(_table(environments))


def _table(environments: "Iterable[EnvironmentInfo]") -> "Table":
    """Return one row per environment; "-" is not known while an extra is missing."""
    from rich.text import Text

    from mgrl_cli.ui.tables import plain_table

    table = plain_table()
    table.add_column("name", style="bold")
    table.add_column("id")
    table.add_column("obs", justify="right")
    table.add_column("act", justify="right")
    table.add_column("steps", justify="right")
    table.add_column("needs")
    for info in environments:
        missing = info.missing_extra
        sizes = (info.obs_size, info.act_size, info.max_episode_steps)
        table.add_row(
            info.alias,
            info.id,
            *("-" if size is None else str(size) for size in sizes),
            Text(f"pip install 'mgrl[{missing}]'" if missing else ""),
        )
    return table
