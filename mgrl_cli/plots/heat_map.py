"""A table of scores as a figure: rows against environments, every cell with its numbers.

Each column has a colour scale of its own, from its lowest to its highest mean: returns of different
environments have no common scale. Knows nothing of where scores come from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mgrl_cli.plots.data import check_rows, write_table
from mgrl_cli.plots.drawing import (
    add_caption,
    figure_text,
    range_text,
    short_label,
    title_lines,
)
from mgrl_cli.plots.style import (
    COLUMN_WIDTH,
    PAGE_WIDTH,
    check_figure_path,
    literal,
    new_figure,
    save_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOR_MAP = "cividis"
"""Grows in lightness and is read alike by colour-blind readers."""
_LONGEST_LABEL = 30
_CHARACTER_WIDTH = 0.062
"""Of text in `_FONT_SIZE`, in inches."""
_FONT_SIZE, _SMALLEST_FONT = 7.5, 4.5
_LONGEST_FIGURE = len("± 1,234.5†")
_CELL_WIDTH = 1.0
"""From which mean and deviation stand beside each other, in inches."""
_LINE_HEIGHT, _TITLE_HEIGHT, _FOOT_HEIGHT, _MARGIN = 0.135, 0.19, 0.45, 0.2
"""In inches."""
_DARK_BELOW = 0.18
"""Relative luminance at which black and white text contrast alike, 4.6 to 1."""
_ONLY_SHADE = 0.5
"""Of a column whose means are all the same."""
_BLANK, _NO_RESULT = "#F2F2F2", "#DDDDDD"
_INCOMPLETE_MARK = "†"


class HeatCell(NamedTuple):
    """Final scores of one row in one column."""

    row: str
    column: str
    """The test environment."""
    mean: float
    """NaN: it was to be measured, and nothing came of it."""
    deviation: float
    """Sample standard deviation over runs; NaN for a single one."""
    runs: int
    objectives: int = 0
    """Learned objectives that the runs share among them; 0: there is none."""
    is_incomplete: bool = False
    """True where runs are missing or ended early; the cell gets a dagger."""


def plot_heat_map(cells: Sequence[HeatCell], path: Path, *, title: str) -> tuple[Path, Path]:
    """Draw mean ± deviation of every cell on its column's colour scale.

    Rows and columns stand in the order in which they first come. A cell that is not given stays
    blank, one whose mean is NaN reads "no result".

    Args:
        cells: at least one; each row and column at most once together.
        path: .png or .svg; the cells go beside it as .csv.
        title: above the figure.

    Returns:
        The paths of figure and CSV.

    Raises:
        UsageError: no cells, another suffix, or matplotlib is not installed.
        StorageError: the system refuses to write.
    """
    check_figure_path(path)
    check_rows(cells, path)
    layout = _layout(cells, title)
    with new_figure(layout.width, layout.height) as figure:
        axes = figure.add_subplot()
        for cell in cells:
            column = [other.mean for other in cells if other.column == cell.column]
            _draw_cell(axes, cell, _shade(cell.mean, column), layout)
        _frame(axes, layout)
        figure.suptitle(literal(layout.heading), fontsize=9.5)
        add_caption(figure, _caption(cells))
        save_figure(figure, path)
    csv_path = path.with_suffix(".csv")
    write_table(HeatCell._fields, cells, csv_path)
    return path, csv_path


class _Layout(NamedTuple):
    """What stands where, and how large."""

    rows: list[str]
    columns: list[str]
    heading: str
    width: float
    height: float
    is_split: bool
    """True where the deviation stands below the mean, as cells are narrow."""
    is_upright: bool
    """True where column labels are wider than their columns, so they stand on end."""
    font_size: float


def _layout(cells: Sequence[HeatCell], title: str) -> _Layout:
    rows = list(dict.fromkeys(cell.row for cell in cells))
    columns = list(dict.fromkeys(cell.column for cell in cells))
    row_width = max(len(short_label(row, _LONGEST_LABEL)) for row in rows) * _CHARACTER_WIDTH
    row_width += _MARGIN
    is_small = row_width + len(columns) * _CELL_WIDTH <= COLUMN_WIDTH
    width = COLUMN_WIDTH if is_small else PAGE_WIDTH
    cell_width = (width - row_width) / len(columns)
    is_split = cell_width < _CELL_WIDTH
    column_width = max(len(short_label(name, _LONGEST_LABEL)) for name in columns)
    column_width *= _CHARACTER_WIDTH
    is_upright = column_width > cell_width
    heading = title_lines(title, width)
    head_height = _TITLE_HEIGHT * (heading.count("\n") + 1)
    head_height += column_width if is_upright else _LINE_HEIGHT
    row_height = (2 if is_split else 1) * _LINE_HEIGHT + 0.12
    foot_height = _FOOT_HEIGHT + _LINE_HEIGHT * any(cell.is_incomplete for cell in cells)
    fitting = _FONT_SIZE * cell_width / (_LONGEST_FIGURE * _CHARACTER_WIDTH)
    return _Layout(
        rows=rows,
        columns=columns,
        heading=heading,
        width=width,
        height=head_height + len(rows) * row_height + foot_height,
        is_split=is_split,
        is_upright=is_upright,
        font_size=max(_SMALLEST_FONT, min(_FONT_SIZE, fitting)) if is_split else _FONT_SIZE,
    )


def _shade(mean: float, column: Sequence[float]) -> float:
    """Return where a mean lies between its column's lowest (0) and highest (1); NaN stays NaN."""
    known = [value for value in column if not math.isnan(value)]
    if math.isnan(mean) or min(known) == max(known):
        return math.nan if math.isnan(mean) else _ONLY_SHADE
    # Halved, as the difference itself may overflow.
    return (mean / 2 - min(known) / 2) / (max(known) / 2 - min(known) / 2)


def _draw_cell(axes: Axes, cell: HeatCell, shade: float, layout: _Layout) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    is_missing = math.isnan(shade)
    color = to_rgb(_NO_RESULT) if is_missing else colormaps[_COLOR_MAP](shade)[:3]
    x, y = layout.columns.index(cell.column), layout.rows.index(cell.row)
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=color, linewidth=0))
    separator = "\n" if layout.is_split else " "
    text = f"no{separator}result" if is_missing else figure_text(cell.mean)
    if not (is_missing or math.isnan(cell.deviation)):
        text += f"{separator}± {figure_text(cell.deviation)}"
    text += _INCOMPLETE_MARK if cell.is_incomplete else ""
    is_dark = _luminance(color) < _DARK_BELOW
    axes.text(
        x, y, text, ha="center", va="center", fontsize=layout.font_size,
        color="white" if is_dark else "black", linespacing=1.1,
    )  # fmt: skip


def _luminance(color: Sequence[float]) -> float:
    """Return the relative luminance of an sRGB colour, 0 to 1: https://www.w3.org/TR/WCAG21/."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _frame(axes: Axes, layout: _Layout) -> None:
    rows = [literal(short_label(row, _LONGEST_LABEL)) for row in layout.rows]
    columns = [literal(short_label(column, _LONGEST_LABEL)) for column in layout.columns]
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_facecolor(_BLANK)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(columns)), columns, rotation=90 if layout.is_upright else 0)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    # White lines part the cells.
    for x in range(1, len(columns)):
        axes.axvline(x - 0.5, color="white", linewidth=1.5)
    for y in range(1, len(rows)):
        axes.axhline(y - 0.5, color="white", linewidth=1.5)


def _caption(cells: Sequence[HeatCell]) -> str:
    scored = [cell for cell in cells if not math.isnan(cell.mean)]
    if not scored:
        return "Nothing was scored."
    most_runs = max(cell.runs for cell in scored)
    shared = [cell.objectives for cell in scored if cell.objectives > 1]
    text = range_text(cell.runs for cell in scored)
    text += f" run{'s' if most_runs > 1 else ''}"
    text += f", learned ones of {range_text(shared)} objectives" if shared else ""
    spread = " ± sample standard deviation" if most_runs > 1 else ""
    lines = [
        f"Final score: mean{spread}, {text}.",
        "Colours: lowest (dark) to highest (light) of each column by itself.",
    ]
    if any(cell.is_incomplete for cell in scored):
        lines.append(f"{_INCOMPLETE_MARK} Some runs are missing or ended early.")
    return "\n".join(lines)
