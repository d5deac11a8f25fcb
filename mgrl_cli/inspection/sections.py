"""What a report says in text, as data: facts and tables whose cells know what they mean.

How a share, a course or a size is written is left to whoever draws them.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Curve:
    """Figures in their order: a course over time or the counts of a histogram."""

    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole, in [0, 1]; NaN where there is no whole."""

    fraction: float


@dataclass(frozen=True, slots=True)
class Size:
    """Room taken on disk."""

    num_bytes: int


Cell = str | int | float | Curve | Share | Size | None
"""NaN and None: not known."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One figure a line."""

    title: str
    items: tuple[tuple[str, Cell], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of figures; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    """One line below: how to read it."""


@dataclass(frozen=True, slots=True)
class Notes:
    """Lines that stand out: warnings and problems."""

    title: str
    lines: tuple[str, ...]


Section = Facts | Table | Notes
