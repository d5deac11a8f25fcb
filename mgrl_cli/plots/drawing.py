"""The strokes all figures share: strong and thin lines, legends, captions.

Knows matplotlib's object interface and curves; knows nothing of what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from mgrl_cli.plots.aggregate import Curve, FloatArray
from mgrl_cli.plots.style import literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LineStyle = tuple[float, tuple[float, ...]] | Literal["-"]
"""Offset and dashes in line widths, or "-" for solid."""


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


def add_legend(
    figure: Figure, entries: Sequence[LegendEntry], *, num_columns: int, title: str | None = None
) -> None:
    """Explain the lines above all panels, below the figure's title.

    The title is the legend's: matplotlib would draw a title of the figure over the legend.
    """
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=entry.color, linestyle=entry.line_style, label=literal(entry.label))
        for entry in entries
    ]
    heading = None if title is None else literal(title)
    figure.legend(handles=handles, loc="outside upper center", ncols=num_columns, title=heading)


def add_caption(figure: Figure, caption: str) -> None:
    """Say below all panels how to read them."""
    figure.supxlabel(caption, fontsize=6.5, color="#555555")


def _marker(x: FloatArray) -> str:
    return "o" if x.size == 1 else ""
