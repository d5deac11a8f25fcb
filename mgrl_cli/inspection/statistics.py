"""Summing up columns that need not fit into memory: blocks of rows in, a few figures out.

Numbers that are not finite are counted and left out. Knows nothing of replay or files.
"""

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Where the numbers of one column lie; all NaN where there are none."""

    mean: float
    std: float
    """Of the population."""
    min: float
    max: float

    @property
    def is_constant(self) -> bool:
        """True where there are numbers and all are the same."""
        return self.min == self.max


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """How many numbers lie in each of several equal parts of [low, high]."""

    low: float
    high: float
    counts: tuple[int, ...]
    """Empty where there are no numbers."""


@final
class SpreadSum:
    """Mean, deviation and range of every column of a table, block by block.

    Blocks are merged by their means and squared deviations, which loses no digits where the mean is
    far from zero (Chan, Golub and LeVeque 1983, https://doi.org/10.1080/00031305.1983.10483115).
    """

    def __init__(self, columns: int = 1) -> None:
        """Start with no rows."""
        self.not_finite = 0
        """Numbers left out so far."""
        self._count = np.zeros(columns)
        self._mean = np.zeros(columns)
        self._squares = np.zeros(columns)
        self._min = np.full(columns, math.inf)
        self._max = np.full(columns, -math.inf)

    def add(self, block: NDArray[Any]) -> None:
        """Add rows, [rows, columns]; a flat block is one column."""
        values = np.asarray(block, np.float64).reshape(-1, len(self._count))
        is_finite = np.isfinite(values)
        self.not_finite += int(values.size - is_finite.sum())
        values = np.where(is_finite, values, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):  # a damaged file may hold any number
            self._merge(values, is_finite)
        self._min = np.minimum(self._min, values.min(axis=0, initial=math.inf, where=is_finite))
        self._max = np.maximum(self._max, values.max(axis=0, initial=-math.inf, where=is_finite))

    def _merge(self, values: FloatArray, is_finite: NDArray[np.bool_]) -> None:
        count = is_finite.sum(axis=0)
        mean = values.sum(axis=0) / np.maximum(count, 1)
        squares = np.where(is_finite, values - mean, 0.0) ** 2
        total = self._count + count
        share = count / np.maximum(total, 1)
        shift = mean - self._mean
        self._squares += squares.sum(axis=0) + shift**2 * self._count * share
        self._mean += shift * share
        self._count = total

    def spreads(self) -> tuple[Spread, ...]:
        """Return one spread per column."""
        return tuple(
            Spread(mean=mean, std=math.sqrt(squares / count), min=low, max=high)
            if count
            else Spread(mean=math.nan, std=math.nan, min=math.nan, max=math.nan)
            for count, mean, squares, low, high in zip(
                *(
                    column.tolist()
                    for column in (self._count, self._mean, self._squares, self._min, self._max)
                ),
                strict=True,
            )
        )


@final
class HistogramSum:
    """A histogram of one column over a range known beforehand, block by block."""

    def __init__(self, low: float, high: float, bins: int) -> None:
        """Start empty.

        Args:
            low: start of the range; NaN where no number is to be expected.
            high: end of the range, not below `low`.
            bins: equal parts.
        """
        # An empty range would have no parts.
        pad = max(0.5, abs(low) / 2) if low == high else 0.0
        self._low, self._high = low - pad, high + pad
        self._counts = np.zeros(0 if math.isnan(low) else bins, np.int64)

    def add(self, block: NDArray[Any]) -> None:
        """Count numbers of any shape; those outside the range are left out."""
        if self._counts.size:
            values = np.asarray(block, np.float64).ravel()
            values = values[np.isfinite(values)]
            self._counts += np.histogram(values, self._counts.size, (self._low, self._high))[0]

    def histogram(self) -> Histogram:
        """Return the counts so far; none at all where no number was counted."""
        counts = self._counts.tolist() if self._counts.any() else []
        return Histogram(low=self._low, high=self._high, counts=tuple(counts))


def spread_of(values: FloatArray) -> Spread:
    """Return the spread of one column that is in memory."""
    total = SpreadSum()
    total.add(values)
    return total.spreads()[0]
