"""The panels of a meta-training: returns by environment, and what the objective did.

Draws into a figure it is given; knows nothing of files.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from mgrl_cli.plots.aggregate import Curve, band_of, curve_of, running_mean
from mgrl_cli.plots.data import PopulationRow
from mgrl_cli.plots.drawing import LegendEntry, add_caption, add_legend, draw_strong, draw_thin
from mgrl_cli.plots.style import environment_colors, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS_PER_LINE = 3
_DIAGNOSTICS_PER_LINE = 2
_GRID_CELLS = 6
"""Cells of a line of panels: one, two or three panels share them evenly."""
_LINE_HEIGHT = 1.75
_FRAME_HEIGHT = 0.75
"""Room for legend and caption, in inches."""
_SMOOTHING_PARTS = 15
"""Means of noisy diagnostics run over this part of the curve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Diagnostic:
    """One panel over all environments."""

    title: str
    figure_of: Callable[[PopulationRow], float]
    scale: Literal["linear", "symlog", "log"] = "linear"
    has_zero_line: bool = False


_DIAGNOSTICS = (
    _Diagnostic(
        title="gain of the virtual step (units of Q)",
        figure_of=lambda row: row.gain,
        scale="symlog",
        has_zero_line=True,
    ),
    _Diagnostic(
        title="cosine with the critic's policy gradient",
        figure_of=lambda row: row.cosine,
        has_zero_line=True,
    ),
    _Diagnostic(title="action slack, mean of 1 − a²", figure_of=lambda row: row.action_slack),
    _Diagnostic(
        title="raw meta-gradient norm", figure_of=lambda row: row.meta_gradient_norm, scale="log"
    ),
)


def population_height(rows: Iterable[PopulationRow]) -> float:
    """Return the height in inches that `draw_population` needs."""
    num_environments = len({row.environment for row in rows})
    return _LINE_HEIGHT * _num_lines(num_environments) + _FRAME_HEIGHT


def draw_population(figure: Figure, rows: Sequence[PopulationRow]) -> None:
    """Draw the panels, their legend and their caption into an empty, page-wide figure."""
    colors = environment_colors(row.environment for row in rows)
    num_columns = min(len(colors), _PANELS_PER_LINE)
    num_lines = _num_lines(len(colors))
    grid = figure.add_gridspec(num_lines, _GRID_CELLS)
    for index, (environment, color) in enumerate(colors.items()):
        line, column = divmod(index, num_columns)
        axes = figure.add_subplot(grid[line, _cells(column, num_columns)])
        _draw_returns(axes, [row for row in rows if row.environment == environment], color)
        style_axes(axes, title=environment, y_label="return" if column == 0 else "")
    first_line = num_lines - math.ceil(len(_DIAGNOSTICS) / _DIAGNOSTICS_PER_LINE)
    for index, diagnostic in enumerate(_DIAGNOSTICS):
        line, column = divmod(index, _DIAGNOSTICS_PER_LINE)
        axes = figure.add_subplot(grid[first_line + line, _cells(column, _DIAGNOSTICS_PER_LINE)])
        _draw_diagnostic(axes, rows, diagnostic, colors)
        style_axes(axes, title=diagnostic.title)
        if first_line + line == num_lines - 1:
            axes.set_xlabel("env steps per agent")
    add_legend(figure, [LegendEntry(name, color) for name, color in colors.items()])
    caption = (
        "Returns, one line per agent: thin in training, with dots in noise-free evaluation.\n"
        "Below: thin for single agents; strong for an environment's mean over its agents "
        f"and a running 1/{_SMOOTHING_PARTS} of the steps."
    )
    add_caption(figure, caption)


def _num_lines(num_environments: int) -> int:
    returns = math.ceil(num_environments / _PANELS_PER_LINE)
    return returns + math.ceil(len(_DIAGNOSTICS) / _DIAGNOSTICS_PER_LINE)


def _cells(column: int, num_columns: int) -> slice:
    span = _GRID_CELLS // num_columns
    return slice(column * span, (column + 1) * span)


def _draw_returns(axes: Axes, rows: Sequence[PopulationRow], color: str) -> None:
    draw_thin(axes, _curves_by_agent(rows, lambda row: row.mean_return), color)
    for curve in _curves_by_agent(rows, lambda row: row.evaluation_return):
        axes.plot(curve.x, curve.y, color=color, linewidth=1.2, marker="o", markersize=1.8)


def _draw_diagnostic(
    axes: Axes,
    rows: Sequence[PopulationRow],
    diagnostic: _Diagnostic,
    colors: Mapping[str, str],
) -> None:
    if diagnostic.has_zero_line:
        axes.axhline(0.0, color="#444444", linewidth=0.6)
    is_log = diagnostic.scale == "log"
    drawn: list[float] = []
    for environment, color in colors.items():
        group = [row for row in rows if row.environment == environment]
        curves = _curves_by_agent(group, diagnostic.figure_of)
        if is_log:
            curves = [Curve(x=curve.x[curve.y > 0], y=curve.y[curve.y > 0]) for curve in curves]
        draw_thin(axes, curves, color)
        mean = _smooth_mean(curves, is_log=is_log)
        draw_strong(axes, mean.x, mean.y, color)
        drawn += [float(y) for curve in curves for y in curve.y]
    if not drawn:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="#777777")
    elif is_log:
        # Whole decades: two labels at least.
        axes.set_yscale("log")
        low, high = math.floor(math.log10(min(drawn))), math.ceil(math.log10(max(drawn)))
        axes.set_ylim(10.0**low, 10.0 ** max(high, low + 1))
    elif diagnostic.scale == "symlog" and any(drawn):
        # Figures of both signs and many sizes: linear below their usual size, logarithmic above.
        usual = float(np.median([abs(y) for y in drawn if y != 0]))
        axes.set_yscale("symlog", linthresh=10.0 ** math.floor(math.log10(usual)))


def _smooth_mean(curves: Sequence[Curve], *, is_log: bool) -> Curve:
    """Return the running mean over agents; geometric on a log axis, where it stays central."""
    if is_log:
        mean = _smooth_mean([Curve(x=x, y=np.log(y)) for x, y in curves], is_log=False)
        return Curve(x=mean.x, y=np.exp(mean.y))
    band = band_of(curves)
    window = max(1, band.x.size // _SMOOTHING_PARTS)
    return Curve(x=band.x, y=running_mean(band.mean, window))


def _curves_by_agent(
    rows: Iterable[PopulationRow], figure_of: Callable[[PopulationRow], float]
) -> list[Curve]:
    points: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        points[row.agent_id].append((row.env_steps, figure_of(row)))
    return [curve_of(agent_points) for _, agent_points in sorted(points.items())]
