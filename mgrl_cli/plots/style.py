"""One look for all figures: colours, sizes, axes, and how a figure becomes a file.

matplotlib is an optional extra: it is imported here only, when a figure is made, and never through
pyplot, which keeps global state. Knows nothing of what is plotted.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mgrl_cli.errors import StorageError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_WIDTH = 3.3
"""Width of one column of a two-column paper, in inches."""
PAGE_WIDTH = 6.9
"""Width of both columns, in inches."""

LineStyle = tuple[float, tuple[float, ...]] | Literal["-"]
"""Offset and dashes in line widths, or "-" for solid."""


class LineLook(NamedTuple):
    """How one line is told from the others: by colour, and by dashes where there is none."""

    color: str
    dash: LineStyle


def _dashes(*lengths: float) -> LineStyle:
    return (0.0, lengths)


# Okabe and Ito's palette, made to be told apart by colour-blind readers, and a ninth colour, a dark
# one: https://jfly.uni-koeln.de/color/
RULE_LOOKS: Mapping[str, LineLook] = {
    "learned": LineLook("#0072B2", "-"),
    "ddpg": LineLook("#D55E00", _dashes(5, 1.5)),
    "td3": LineLook("#E69F00", _dashes(9, 2)),
    "reinforce": LineLook("#009E73", _dashes(5, 1.5, 1, 1.5)),
    "reinforce-is": LineLook("#56B4E9", _dashes(5, 1.5, 1, 1.5, 1, 1.5)),
    "reinforce-is-clipped": LineLook("#882255", _dashes(5, 1.5, 5, 1.5, 1, 1.5)),
    "vpg": LineLook("#CC79A7", _dashes(2.5, 1.2)),
    "ppo": LineLook("#000000", _dashes(9, 1.5, 1, 1.5)),
    "untrained": LineLook("#7A7A7A", _dashes(1, 1)),
}
"""The looks of known rules, in the order in which they are listed."""
_OTHER_COLORS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255"),
    "#7A7A7A",
)
_OTHER_DASHES: tuple[LineStyle, ...] = (
    "-",
    _dashes(5, 1.5),
    _dashes(1, 1),
    _dashes(5, 1.5, 1, 1.5),
    _dashes(2.5, 1.2),
)
# Paul Tol's "bright" palette: other colours than the rules', as the two never mean the same.
ENVIRONMENT_COLORS: Mapping[str, str] = {
    "lunar": "#4477AA",
    "cheetah": "#EE6677",
    "hopper": "#228833",
}
_OTHER_ENVIRONMENT_COLORS = (
    *("#AA3377", "#CCBB44", "#66CCEE", "#222222", "#999999"),
    *("#E68310", "#332288", "#8C564B", "#44AA99", "#D55FDE"),
)

_SETTINGS: dict[Any, Any] = {  # matplotlib types the keys by a union of a few hundred literals
    "axes.axisbelow": True,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8.5,
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 3.4,
    "legend.title_fontsize": 9.5,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "savefig.dpi": 300,
    "svg.fonttype": "none",
    "svg.hashsalt": "mgrl",
    "xtick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.labelsize": 7.5,
    "ytick.major.width": 0.6,
}
_SUFFIXES = (".png", ".svg")


def line_looks(names: Iterable[str]) -> dict[str, LineLook]:
    """Return how the line of each name is drawn; those of known rules never change.

    Known rules come first, in their order, then the others by name, 2 before 10. The others share
    the colours that are left, then other dashes with the same colours: 20 and more can be told
    apart.
    """
    unique = set(names)
    looks = {name: look for name, look in RULE_LOOKS.items() if name in unique}
    taken = {look.color for look in looks.values()}
    free = [color for color in _OTHER_COLORS if color not in taken] or list(_OTHER_COLORS)
    for index, name in enumerate(sorted(unique - looks.keys(), key=_natural)):
        turn, place = divmod(index, len(free))
        # Neighbours differ in dashes too, and a colour that comes again has others than before.
        looks[name] = LineLook(free[place], _OTHER_DASHES[(place + turn) % len(_OTHER_DASHES)])
    return looks


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts numbers within names by their size."""
    parts = re.split(r"([0-9]+)", name)
    # A number is the longer the larger it is, once zeros in front are gone.
    return [(len(part.lstrip("0")) if part.isdecimal() else 0, part) for part in parts], name


def environment_colors(environments: Iterable[str]) -> dict[str, str]:
    """Return the colour of each environment, in sorted order; the aliases' never change.

    An unknown name gets the colour its own letters pick, or the next free one.
    """
    palette = _OTHER_ENVIRONMENT_COLORS
    colors: dict[str, str] = {}
    taken: set[int] = set()
    for name in sorted(set(environments)):
        if name in ENVIRONMENT_COLORS:
            colors[name] = ENVIRONMENT_COLORS[name]
            continue
        index = zlib.crc32(name.encode(errors="backslashreplace")) % len(palette)
        while index in taken and len(taken) < len(palette):
            index = (index + 1) % len(palette)
        taken.add(index)
        colors[name] = palette[index]
    return colors


def check_figure_path(path: Path) -> None:
    """Refuse a file name that does not say PNG or SVG.

    Raises:
        UsageError: another suffix.
    """
    if path.suffix.lower() not in _SUFFIXES:
        message = (
            f"Cannot plot to {path}: got '{path.suffix}', expected .png or .svg. Rename the file"
        )
        raise UsageError(message)


@contextmanager
def new_figure(width: float, height: float) -> Generator[Figure]:
    """Open an empty figure of `width` × `height` inches in the common look.

    The look holds inside the context only: draw and save there.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        message = (
            "Plots need matplotlib, which is not installed. Install it: pip install 'mgrl[plot]'"
        )
        raise UsageError(message) from error
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure as PNG or SVG, by suffix; the same figure gives the same bytes.

    Raises:
        StorageError: the system refuses to write.
    """
    is_svg = path.suffix.lower() == ".svg"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # SVG files carry the time of day unless told not to.
        figure.savefig(
            path, format="svg" if is_svg else "png", metadata={"Date": None} if is_svg else None
        )
    except OSError as error:
        message = f"Cannot write {path}: {error.strerror}. Free space or choose another place"
        raise StorageError(message) from error


def literal(text: str) -> str:
    """Return what matplotlib draws as `text`: between two dollar signs it would read a formula."""
    return text.replace("$", r"\$")


def style_axes(axes: Axes, *, title: str = "", y_label: str = "") -> None:
    """Label axes over env steps, once everything is drawn: few ticks, "10k", from 0 on."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.set_title(literal(title), loc="left")
    axes.set_ylabel(y_label)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    # Fixes the right end too, at the data drawn so far.
    axes.set_xlim(left=0)
    axes.minorticks_off()
    axes.tick_params(length=2.5, color="#444444")
