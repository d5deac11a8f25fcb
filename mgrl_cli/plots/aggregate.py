"""Several curves drawn as one: mean and range over agents that were not measured in step.

Knows nothing of what the curves are or how they are drawn.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class Curve(NamedTuple):
    """One measured curve: x strictly growing, y finite, both [points]."""

    x: FloatArray
    y: FloatArray


class Band(NamedTuple):
    """Mean and range of several curves on one grid, all [points]."""

    x: FloatArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray


def curve_of(points: Iterable[tuple[float, float]]) -> Curve:
    """Return the points in the order of x, without those where y is not finite.

    Of several points with one x the last one given counts.
    """
    finite = {x: y for x, y in points if np.isfinite(y)}
    ordered = sorted(finite.items())
    return Curve(
        x=np.array([x for x, _ in ordered], dtype=np.float64),
        y=np.array([y for _, y in ordered], dtype=np.float64),
    )


def band_of(curves: Sequence[Curve]) -> Band:
    """Return mean, minimum and maximum over `curves` at every x where any was measured.

    Rounds end with whole episodes, so agents are measured at slightly different env steps: in
    between, each curve is interpolated linearly. The band covers only what all curves cover
    (nothing is extrapolated, and the mean never jumps because a curve ends); it may be empty.
    """
    measured = [curve for curve in curves if curve.x.size > 0]
    if not measured:
        empty = np.zeros(0)
        return Band(x=empty, mean=empty, low=empty, high=empty)
    start = max(curve.x[0] for curve in measured)
    end = min(curve.x[-1] for curve in measured)
    grid = np.unique(np.concatenate([curve.x for curve in measured]))
    grid = grid[(grid >= start) & (grid <= end)]
    values = np.stack([np.interp(grid, curve.x, curve.y) for curve in measured])
    return Band(x=grid, mean=values.mean(axis=0), low=values.min(axis=0), high=values.max(axis=0))


def running_mean(values: FloatArray, window: int) -> FloatArray:
    """Return the mean of up to `window` neighbours around each value, fewer towards the ends.

    Args:
        values: any number of finite figures.
        window: at least 1; an even window reaches as far as the next odd one.
    """
    reach = window // 2
    sums = np.concatenate([np.zeros(1), np.cumsum(values)])
    index = np.arange(values.size)
    # The same reach to both sides: at the ends of a slope the mean stays on the slope.
    reaches = np.minimum(reach, np.minimum(index, values.size - 1 - index))
    return (sums[index + reaches + 1] - sums[index - reaches]) / (2 * reaches + 1)
