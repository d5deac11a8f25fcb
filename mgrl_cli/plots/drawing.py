"""The strokes all figures share: strong and thin lines, legends, captions.

Knows matplotlib's object interface and curves; knows nothing of what they mean.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mgrl_cli.plots.aggregate import Curve, FloatArray
from mgrl_cli.plots.style import LineStyle, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CHARACTER_WIDTH = 0.063
_HANDLE_WIDTH = 0.58
_LEGEND_LINE_HEIGHT = 0.155
"""Sizes of a legend's text, in inches."""
_TITLE_CHARACTER_WIDTH = 0.085
_MOST_LEGEND_COLUMNS = 4
_LONGEST_LABEL = 44
_WHOLE_FROM = 99.95
_THOUSANDS_FROM = 9_999.5
_MILLIONS_FROM = 999_950
_HUGE_FROM = 999_950_000
"""Sizes from which a score is written without decimals, in thousands and so on."""


class LegendEntry(NamedTuple):
    """What one line of the figure stands for."""

    label: str
    color: str
    line_style: LineStyle = "-"


def draw_thin(axes: Axes, curves: Iterable[Curve], color: str) -> None:
    """Draw single curves pale, behind what sums them up."""
    for curve in curves:
        marker = _marker(curve.x)
        axes.plot(
            curve.x, curve.y, color=color, linewidth=0.6, alpha=0.4, marker=marker, markersize=1.5
        )


def draw_strong(
    axes: Axes, x: FloatArray, y: FloatArray, color: str, line_style: LineStyle = "-"
) -> None:
    """Draw a line that carries the message; a single point becomes a dot."""
    axes.plot(x, y, color=color, linestyle=line_style, marker=_marker(x), markersize=3)


class LegendPlan(NamedTuple):
    """How a legend is laid out."""

    columns: int
    height: float
    """Of its lines, and those of its title but the first, in inches."""


def plan_legend(labels: Sequence[str], width: float, title: str = "") -> LegendPlan:
    """Return how many columns of these labels fit into `width` inches, and how high they get."""
    longest = max((len(short_label(label)) for label in labels), default=0)
    fitting = int(width / (longest * _CHARACTER_WIDTH + _HANDLE_WIDTH))
    columns = max(1, min(fitting, _MOST_LEGEND_COLUMNS, len(labels)))
    lines = -(-len(labels) // columns) + title_lines(title, width).count("\n")
    return LegendPlan(columns, lines * _LEGEND_LINE_HEIGHT)


def add_legend(figure: Figure, entries: Sequence[LegendEntry], *, title: str | None = None) -> None:
    """Explain the lines above all panels, below the figure's title, in as many columns as fit.

    The title is the legend's: matplotlib would draw a title of the figure over the legend.
    """
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=entry.color,
            linestyle=entry.line_style,
            label=literal(short_label(entry.label)),
        )
        for entry in entries
    ]
    width = figure.get_figwidth()
    legend = figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=plan_legend([entry.label for entry in entries], width).columns,
        title=None if title is None else literal(title_lines(title, width)),
    )
    legend.get_title().set_multialignment("center")


def short_label(label: str, longest: int = _LONGEST_LABEL) -> str:
    """Return a label of at most `longest` characters, without its middle where it is longer."""
    if len(label) <= longest:
        return label
    tail = longest // 2
    return f"{label[: longest - tail - 1]}…{label[-tail:]}"


def title_lines(title: str, width: float) -> str:
    """Return a title broken into at most three lines that fit `width` inches."""
    characters = int(width / _TITLE_CHARACTER_WIDTH)
    lines = textwrap.wrap(title, characters, max_lines=3, placeholder=" …")
    return "\n".join(lines)


def figure_text(value: float) -> str:
    """Return a score in at most 7 characters: "-12.3", "1,234", "-45.6k", "1e+09"; "–" for NaN."""
    if math.isnan(value):
        return "–"
    for limit, unit, text in (
        (_HUGE_FROM, 1, ""), (_MILLIONS_FROM, 1e6, "M"), (_THOUSANDS_FROM, 1e3, "k"),
    ):  # fmt: skip
        if abs(value) >= limit:
            return f"{value / unit:.1f}{text}" if text else f"{value:.0e}"
    return f"{value:,.0f}" if abs(value) >= _WHOLE_FROM else f"{round(value, 1) + 0.0:.1f}"


def range_text(counts: Iterable[int]) -> str:
    """Return "3", or "2–3" where counts, of which there is at least one, differ."""
    numbers = list(counts)
    fewest, most = min(numbers), max(numbers)
    return f"{most}" if fewest == most else f"{fewest}–{most}"


def add_caption(figure: Figure, caption: str) -> None:
    """Say below all panels how to read them."""
    figure.supxlabel(caption, fontsize=6.5, color="#555555")


def _marker(x: FloatArray) -> str:
    return "o" if x.size == 1 else ""
