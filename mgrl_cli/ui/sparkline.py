"""A curve in one line of text, for tables.

Knows nothing of agents, terminals or colours.
"""

import itertools
import math
from collections.abc import Sequence

_LEVELS = "▁▂▃▄▅▆▇█"
_FLAT = "▄"
_GAP = " "


def sparkline(values: Sequence[float], width: int) -> str:
    """Return `values`, oldest first, as block characters scaled from minimum to maximum.

    One character per value; where there are more values than `width`, each character is the mean
    of a run of neighbours, so the whole history stays in view. Values that are not finite leave a
    gap, equal values give a line at half height, no values (or no width) give "".

    Args:
        values: any number of figures.
        width: most characters to use.
    """
    if width <= 0:
        return ""
    means = _bucket_means(values, min(width, len(values)))
    finite = [mean for mean in means if math.isfinite(mean)]
    if not finite:
        return _GAP * len(means)
    low, high = min(finite), max(finite)
    return "".join(_block(mean, low, high) for mean in means)


def _bucket_means(values: Sequence[float], num_buckets: int) -> list[float]:
    edges = [index * len(values) // max(1, num_buckets) for index in range(num_buckets + 1)]
    return [_finite_mean(values[start:end]) for start, end in itertools.pairwise(edges)]


def _finite_mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    # Divided before summing: the sum of huge finite values may overflow, their mean does not.
    return math.fsum(value / len(finite) for value in finite) if finite else math.nan


def _block(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return _GAP
    if low == high:
        return _FLAT
    # Halved, as `high - low` itself may overflow.
    fraction = (value / 2 - low / 2) / (high / 2 - low / 2)
    return _LEVELS[min(int(fraction * len(_LEVELS)), len(_LEVELS) - 1)]
