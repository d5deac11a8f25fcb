"""`mgrl inspect`: look at a run, checkpoint, replay or objective, whole or not, and leave it so.

Draws the sections of a report as tables with text sparklines. Knows nothing of what the figures
mean or how they are read.
"""

from collections.abc import Callable, Iterable, Iterator
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgrl_cli.commands import DebugOption, JsonOption
from mgrl_cli.errors import FileError, UsageError
from mgrl_cli.inspection.plain_text import plain_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

    from mgrl_cli.inspection.checkpoint import CheckpointReport
    from mgrl_cli.inspection.objective import ObjectiveReport
    from mgrl_cli.inspection.replay_figures import AgentReplay, Buffer
    from mgrl_cli.inspection.run import RunReport
    from mgrl_cli.inspection.sections import Cell, Facts, Section, Table
    from mgrl_cli.plots.buffer import ReplayColumns

    Report = AgentReplay | Buffer | RunReport | CheckpointReport | ObjectiveReport

_WIDE_FROM = 110
"""Console width from which sparklines have room."""
_SHORT_CURVE, _LONG_CURVE = 10, 24
"""Width of a sparkline in a narrow and in a wide console."""
_COARSE_FROM = 9_999.5
"""Figures of this size are written as "12.3k"."""
_BYTES_PER_KIB = 1024


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A run directory, a checkpoint, a buffer.zarr, one agent's group in it, or an "
            "objective file.",
        ),
    ],
    *,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw it to FILE.png or FILE.svg, the data beside it as CSV."),
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Look into what mgrl wrote: what is in it, is it whole, does it look sane.

    Reads only, also while a run goes on. Exit code 4 if it is not whole; what can still be read is
    shown all the same. Example: mgrl inspect runs/demo/buffer.zarr --plot buffer.png
    """
    from json import dumps

    from mgrl_cli.inspection.document import as_json
    from mgrl_cli.inspection.recognition import recognise
    from mgrl_cli.plots.style import check_figure_path

    kind = recognise(path)
    if plot is not None:
        check_figure_path(plot)
    report, sections = _look(path, kind)
    draw = None if plot is None else _figure_of(report, plot)
    if json:
        typer.echo(dumps({"type": kind, **as_json(report)}, indent=2, allow_nan=False))
    else:
        _print(sections)
    if draw is not None:
        for written in draw():
            typer.echo(f"{written}", err=json)
    _check_whole(report, path)


def _look(path: Path, kind: str) -> "tuple[Report, Iterator[Section]]":
    """Return the report on `path` and how it reads."""
    from mgrl_cli.inspection.checkpoint import inspect_checkpoint
    from mgrl_cli.inspection.describe_checkpoint import describe_checkpoint
    from mgrl_cli.inspection.describe_objective import describe_objective
    from mgrl_cli.inspection.describe_replay import describe_agent, describe_buffer
    from mgrl_cli.inspection.describe_run import describe_run
    from mgrl_cli.inspection.objective import inspect_objective
    from mgrl_cli.inspection.replay import inspect_agent, inspect_buffer
    from mgrl_cli.inspection.run import inspect_run

    if kind == "agent":
        return (report := inspect_agent(path)), describe_agent(report)
    if kind == "buffer":
        return (report := inspect_buffer(path)), describe_buffer(report)
    if kind == "run":
        return (report := inspect_run(path)), describe_run(report)
    if kind == "checkpoint":
        return (report := inspect_checkpoint(path)), describe_checkpoint(report)
    return (report := inspect_objective(path)), describe_objective(report)


def _check_whole(report: "Report", path: Path) -> None:
    from mgrl_cli.inspection.objective import ObjectiveReport

    if isinstance(report, ObjectiveReport) or report.is_whole:
        return
    first, *others = report.problems
    more = f" and {len(others)} more problems" if others else ""
    raise FileError(f"'{path}' is not whole: {first}{more}")


def _figure_of(report: "Report", plot: Path) -> Callable[[], tuple[Path, Path]]:
    """Return what draws the figure that belongs to the report, and returns it and its data."""
    from mgrl_cli.inspection.checkpoint import CheckpointReport
    from mgrl_cli.inspection.objective import ObjectiveReport
    from mgrl_cli.inspection.replay_figures import Buffer
    from mgrl_cli.inspection.run import RunReport
    from mgrl_cli.plots.buffer import plot_buffer

    if isinstance(report, CheckpointReport | ObjectiveReport):
        raise UsageError(
            f"--plot got '{report.path}', expected a run or a replay; leave --plot out"
        )
    if isinstance(report, RunReport):
        return lambda: _plot_run(report, plot)
    agents = report.agents if isinstance(report, Buffer) else (report,)
    return lambda: plot_buffer([_columns(agent) for agent in agents], plot)


def _plot_run(report: "RunReport", plot: Path) -> tuple[Path, Path]:
    from mgrl_cli.plots.curves import plot_learning_curves, plot_meta_training
    from mgrl_cli.run_dir.layout import RunDirectory
    from mgrl_cli.run_dir.metrics import evaluation_rows, population_rows, read_agent_metrics

    records = read_agent_metrics(RunDirectory(Path(report.path)).metrics)
    if report.kind == "meta-test":
        return plot_learning_curves(evaluation_rows(records), plot, title=report.name)
    return plot_meta_training(population_rows(records), plot)


def _columns(agent: "AgentReplay") -> "ReplayColumns":
    """Return what is drawn of one agent."""
    from envs.registry import ALIASES
    from mgrl_cli.plots.buffer import Bars, ObsRange, ReplayColumns

    # The name by which other figures know the environment, and colour it.
    aliases = {env_id: alias for alias, env_id in ALIASES.items()}
    env_id = agent.attribute("environment")
    reward, action = agent.reward_histogram, agent.action.histogram
    return ReplayColumns(
        agent=agent.name,
        environment=aliases.get(env_id, env_id),
        env_steps=agent.episodes.env_steps,
        returns=agent.episodes.episode_return,
        reward=Bars(reward.low, reward.high, reward.counts),
        action=Bars(action.low, action.high, action.counts),
        obs=[ObsRange(dim.mean, dim.std, dim.min, dim.max) for dim in agent.obs],
    )


def _print(sections: "Iterable[Section]") -> None:
    from mgrl_cli.ui.tables import stdout_console

    console = stdout_console()
    for number, section in enumerate(sections):
        if number:
            console.print()
        print_section(console, section)


def print_section(console: "Console", section: "Section") -> None:
    """Draw one section as wide as the console."""
    from rich.text import Text

    from mgrl_cli.inspection.sections import Facts, Notes

    console.print(Text(plain_text(section.title), style="bold"))
    if isinstance(section, Notes):
        for line in section.lines:
            console.print(Text(f"! {plain_text(line)}", style="yellow"))
    elif isinstance(section, Facts):
        console.print(_facts_grid(section, console.width))
    else:
        console.print(_table(section, console.width))
        if section.note:
            console.print(Text(plain_text(section.note), style="dim"))


def _facts_grid(facts: "Facts", width: int) -> "RichTable":
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, cell in facts.items:
        grid.add_row(Text(plain_text(name), style="dim"), Text(_text(cell, width)))
    return grid


def _table(section: "Table", width: int) -> "RichTable":
    """Return the figures, numbers to the right, text and sparklines to the left."""
    from rich.table import Table
    from rich.text import Text

    from mgrl_cli.inspection.sections import Curve

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for index, name in enumerate(section.columns):
        cells = [row[index] for row in section.rows]
        is_text = any(isinstance(cell, str | Curve) for cell in cells)
        table.add_column(
            name,
            justify="left" if is_text else "right",
            style="bold" if index == 0 else "",
            overflow="fold",
        )
    for row in section.rows:
        table.add_row(*(Text(_text(cell, width)) for cell in row))
    return table


def _text(cell: "Cell", width: int) -> str:
    """Return how a cell is written in a console `width` columns wide."""
    from mgrl_cli.inspection.sections import Curve, Share, Size
    from mgrl_cli.ui.number_text import MISSING, return_text, small_text
    from mgrl_cli.ui.sparkline import sparkline

    match cell:
        case None | "":
            return MISSING
        case str():
            return plain_text(cell)
        case int():
            return f"{cell:,}"
        case float():
            return return_text(cell) if abs(cell) >= _COARSE_FROM else small_text(cell)
        case Curve():
            curve_width = _LONG_CURVE if width >= _WIDE_FROM else _SHORT_CURVE
            return sparkline(cell.values, curve_width) or MISSING
        case Share():
            return MISSING if isnan(cell.fraction) else f"{cell.fraction:.1%}"
        case Size():
            return size_text(cell.num_bytes)


def size_text(num_bytes: int) -> str:
    """Return a size in its own unit, such as "1.2 MiB"."""
    size, units = float(num_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= _BYTES_PER_KIB and len(units) > 1:
        size /= _BYTES_PER_KIB
        units.pop(0)
    return f"{num_bytes} B" if units[0] == "B" else f"{size:.1f} {units[0]}"
