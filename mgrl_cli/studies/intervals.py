"""Intervals over runs of several objectives: objectives are resampled first, then runs of each.

Runs that one objective drives share it, so they are more alike than runs of different objectives:
resampling all runs alike would take them for independent and give too narrow an interval. Knows
nothing of cells or tables.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mgrl_cli.statistics import Estimate, FloatArray, interquartile_mean

Groups = Sequence[Sequence[float]]
"""Final scores by objective: at least one group, none empty. A hand-written rule is one group."""

_TAILS = (0.025, 0.975)


def interquartile_mean_of(groups: Groups, rng: np.random.Generator, num_resamples: int) -> Estimate:
    """Return the interquartile mean of all runs with its 95 % interval.

    The percentile bootstrap in two stages (Davison and Hinkley 1997, section 3.8). Of a single
    group it is the ordinary one. A drawn objective gives as many runs as the largest group has, so
    that one which lost runs weighs no less in the resamples.

    Args:
        groups: finite scores.
        rng: the only source of chance.
        num_resamples: of which the middle 95 % are the interval.
    """
    runs = _pooled(groups)
    resampled = interquartile_mean([runs[_draws(groups, rng, num_resamples)]])
    return _estimate(float(interquartile_mean([runs])), resampled, _units(groups))


def improvement_over(
    groups: Groups, reference: Groups, rng: np.random.Generator, num_resamples: int
) -> Estimate:
    """Return how likely a run beats one of the reference, with its 95 % interval; ties are half.

    Over all pairs of runs, as `statistics.probability_of_improvement`; both sides are resampled
    apart, each in two stages as above.
    """
    runs, others = _pooled(groups), _pooled(reference)
    wins = (runs[:, np.newaxis] > others) + 0.5 * (runs[:, np.newaxis] == others)
    # How often each run was drawn, in place of the runs: pairs need not be compared again.
    drawn = _shares(_draws(groups, rng, num_resamples), runs.size)
    drawn_others = _shares(_draws(reference, rng, num_resamples), others.size)
    resampled = ((drawn @ wins) * drawn_others).sum(axis=1)
    return _estimate(float(wins.mean()), resampled, min(_units(groups), _units(reference)))


def _pooled(groups: Groups) -> FloatArray:
    return np.concatenate([np.asarray(group, np.float64) for group in groups])


def _units(groups: Groups) -> int:
    """Return how many independent draws the scores are: objectives, or runs of a single one."""
    return len(groups) if len(groups) > 1 else len(groups[0])


def _draws(groups: Groups, rng: np.random.Generator, num_resamples: int) -> NDArray[np.int64]:
    """Return resamples as indices into the pooled runs, [resample, draw]."""
    sizes = np.array([len(group) for group in groups])
    starts = np.cumsum(sizes) - sizes
    chosen = rng.integers(sizes.size, size=(num_resamples, sizes.size))[..., np.newaxis]
    within = rng.integers(sizes[chosen], size=(num_resamples, sizes.size, int(sizes.max())))
    return (starts[chosen] + within).reshape(num_resamples, -1)


def _shares(draws: NDArray[np.int64], num_runs: int) -> FloatArray:
    """Return each run's share of every resample, [resample, run]."""
    num_resamples, num_draws = draws.shape
    cells = draws + num_runs * np.arange(num_resamples)[:, np.newaxis]
    counts = np.bincount(cells.ravel(), minlength=num_resamples * num_runs)
    return counts.reshape(num_resamples, num_runs) / num_draws


def _estimate(value: float, resampled: FloatArray, units: int) -> Estimate:
    low, high = np.quantile(resampled, _TAILS).tolist() if units > 1 else (np.nan, np.nan)
    return Estimate(value=value, low=low, high=high, num_seeds=units)
