"""What scores over a few seeds allow to say: estimates with intervals, for tables and comparisons.

Reporting follows Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice", https://arxiv.org/abs/2108.13264. Knows nothing of runs, rules, files or how a result is
shown. Input that is empty or not finite is refused: a failed run must be scored or counted by
whoever knows what its failure means, never dropped by an average.

Percentile intervals (Efron 1979, https://doi.org/10.1214/aos/1176344552) from few seeds are too
narrow: of 95 % intervals of a normal mean, 75 % hold the truth at 3 seeds, 85 % at 5, 91 % at 10,
92 % at 20; where one run in five gets stuck 52 %, 66 %, 86 %, 92 %.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mgrl_cli.errors import UsageError

FloatArray = NDArray[np.float64]

TaskScores = Mapping[str, ArrayLike]
"""One algorithm's final scores: task → [seed]. Tasks may differ in their numbers of seeds."""

Statistic = Callable[[Sequence[FloatArray]], FloatArray]
"""Scores of every task, each [..., seed], to one figure [...]; the axes in front are resamples."""

_TAILS = (0.025, 0.975)
_FEWEST_RESAMPLES = 40  # with fewer not even one resample lies in each tail
_FEW_SEEDS = 10
"""With fewer an interval that promises 95 % holds less than 91 % (see above)."""


class MeanAndDeviation(NamedTuple):
    """One cell of a table: mean ± deviation over seeds."""

    mean: float
    deviation: float
    """Sample standard deviation; NaN for a single seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A figure with its 95 % bootstrap interval."""

    value: float
    """The figure of the scores themselves, not of resamples."""
    low: float
    """NaN where a task has a single seed: one score says nothing about the next."""
    high: float
    """NaN as `low`."""
    num_seeds: int
    """Of the task and algorithm with the fewest."""


def mean_and_deviation(scores: ArrayLike) -> MeanAndDeviation:
    """Return mean and sample standard deviation of `scores` [seed].

    The deviation divides by n − 1: the seeds are a sample of all seeds there are, and dividing by n
    would understate the spread, by 18 % at three seeds. It describes runs; it is no interval of
    the mean. (The MetaGenRL paper gives mean and deviation of six seeds without naming a divisor.)

    Raises:
        UsageError: no scores, or some that are not finite.
    """
    checked = _checked(scores, "scores", axes=1)
    deviation = float(checked.std(ddof=1)) if checked.size > 1 else float("nan")
    return MeanAndDeviation(mean=float(checked.mean()), deviation=deviation)


def mean_over_tasks(scores: Sequence[FloatArray]) -> FloatArray:
    """Return the mean over tasks of the mean over seeds: a `Statistic`.

    Several tasks need scores on one scale.
    """
    return np.mean([task.mean(axis=-1) for task in scores], axis=0)


def interquartile_mean(scores: Sequence[FloatArray]) -> FloatArray:
    """Return the mean of the middle half of all runs of all tasks: a `Statistic`.

    A quarter of the n runs, rounded down, is cut off at either end, as by
    `scipy.stats.trim_mean(runs, 0.25)`; below four runs this is the plain mean. Several tasks need
    scores on one scale, and one with more seeds weighs more. Up to a quarter of stuck runs leaves
    no trace in it: report `stuck_runs` beside it.
    """
    runs = np.sort(np.concatenate(scores, axis=-1), axis=-1)
    count = runs.shape[-1]
    cut = count // 4
    return runs[..., cut : count - cut].mean(axis=-1)


def bootstrap(
    scores: TaskScores, statistic: Statistic, rng: np.random.Generator, num_resamples: int
) -> Estimate:
    """Return `statistic` of `scores` with its 95 % stratified bootstrap interval.

    Each resample draws, for every task apart, as many seeds as it has, with replacement: the tasks
    are fixed, the seeds are a sample. The interval is what the middle 95 % of the resamples'
    figures span (percentile method, as in Agarwal et al. 2021, section 4.1).

    Args:
        scores: at least one task.
        statistic: `mean_over_tasks`, `interquartile_mean` or any other `Statistic`.
        rng: the only source of chance: the same stream gives the same interval.
        num_resamples: at least 40; ends settle to 1 % of the interval's width at some 10,000.

    Raises:
        UsageError: no tasks, no scores, scores that are not finite, or too few resamples.
    """
    return _estimate(_strata(scores), statistic, rng, num_resamples)


def probability_of_improvement(
    x: TaskScores, y: TaskScores, rng: np.random.Generator, num_resamples: int
) -> Estimate:
    """Return how likely a run of `x` beats a run of `y`, with its 95 % bootstrap interval.

    Per task this is P(X > Y) + P(X = Y) / 2 over all pairs of runs, which is the Mann-Whitney U of
    `x` over the number of pairs; tasks are averaged (Agarwal et al. 2021, section 4.3). It says how
    often, not by how much. Runs are taken as independent: that seed i of both may have shared its
    streams is not used.

    Args:
        x: scores of the algorithm that is to be better.
        y: scores of the other, on the same tasks.
        rng: the only source of chance.
        num_resamples: at least 40; seeds of `x` and `y` are resampled apart.

    Raises:
        UsageError: tasks that only one has, or as `bootstrap`.
    """
    if x.keys() != y.keys():
        unshared = ", ".join(sorted(x.keys() ^ y.keys()))
        raise UsageError(f"only one of two algorithms has scores of {unshared}: give both the same")
    in_order = {task: y[task] for task in x}
    return _estimate([*_strata(x), *_strata(in_order)], _win_rate, rng, num_resamples)


def ratio_of_means(
    numerator: ArrayLike, denominator: ArrayLike, rng: np.random.Generator, num_resamples: int
) -> Estimate:
    """Return the ratio of two means over seeds with its 95 % bootstrap interval.

    Meant for `area_under_curve` of two implementations on one task, over the same env steps: they
    are alike to a stated margin where the whole interval lies within it. An interval that merely
    holds 1 shows no likeness; few seeds give that for anything.

    Args:
        numerator: [seed].
        denominator: [seed], the reference; a ratio needs a true zero, so subtract what a random
            policy gets from both where returns have none.
        rng: the only source of chance.
        num_resamples: at least 40; both sides are resampled apart.

    Raises:
        UsageError: the denominator's mean, or that of a resample, is not positive; or as
            `bootstrap`.
    """
    strata = _strata({"numerator": numerator, "denominator": denominator})
    return _estimate(strata, _ratio, rng, num_resamples)


def stuck_runs(scores: ArrayLike, threshold: float) -> int:
    """Return how many runs ended below `threshold`: those that never left the floor.

    Runs that stay where a random policy is widen a deviation without making the others less good
    (MetaGenRL, https://arxiv.org/abs/1910.04098, appendix A.2: two of six on Lunar). So they are
    counted, and nothing is left out because of it.

    Args:
        scores: final scores, [seed].
        threshold: for example the return of a random policy plus a tenth of the way to the best
            known; fixed before looking at the scores.

    Raises:
        UsageError: no scores, or scores or a threshold that are not finite.
    """
    if not np.isfinite(threshold):
        raise UsageError(f"the threshold of stuck runs is {threshold}: give a finite score")
    return int(np.count_nonzero(_checked(scores, "scores", axes=1) < threshold))


def area_under_curve(env_steps: ArrayLike, returns: ArrayLike) -> FloatArray:
    """Return each learning curve's mean height over its env steps, [seed].

    The trapezoid rule between evaluations, divided by the env steps from first to last: in the unit
    of a return, and independent of how evaluations are spaced. Compare only curves over the same
    span of env steps.

    Args:
        env_steps: strictly growing; [time], or [seed, time] where seeds were evaluated at others.
        returns: [seed, time], at least two evaluations.

    Raises:
        UsageError: empty or not finite, shapes that do not fit, or env steps that do not grow.
    """
    steps = np.asarray(env_steps, np.float64)
    curves = _checked(returns, "returns", axes=2)
    if curves.shape[1] < 2 or steps.shape not in (curves.shape, curves.shape[1:]):
        raise UsageError(
            f"env steps of shape {steps.shape} with returns of shape {curves.shape}: expected "
            "[time] or [seed, time] with [seed, time], and at least two evaluations"
        )
    if not np.all(np.isfinite(steps)) or np.any(np.diff(steps, axis=-1) <= 0):
        raise UsageError(
            "env steps of a learning curve must be finite and grow: sort its evaluations"
        )
    return np.trapezoid(curves, steps, axis=-1) / (steps[..., -1] - steps[..., 0])


def seed_remark(estimate: Estimate, unit: str = "seed") -> str:
    """Return what must be said beside an interval so that it is not taken for more, or ""."""
    seeds = estimate.num_seeds
    if seeds == 1:
        return f"from 1 {unit}: no interval"
    if estimate.low == estimate.high:
        why = "since all resamples agree, is no proof"
        return f"from {seeds} {unit}s: an interval without width, {why}"
    if seeds < _FEW_SEEDS:
        why = f"since resampling knows only these {seeds}"
        return f"from {seeds} {unit}s: wide, yet too narrow, {why}"
    return ""


def _estimate(
    strata: Sequence[FloatArray], statistic: Statistic, rng: np.random.Generator, num_resamples: int
) -> Estimate:
    if num_resamples < _FEWEST_RESAMPLES:
        raise UsageError(
            f"{num_resamples} resamples for a 95 % interval: give at least {_FEWEST_RESAMPLES}"
        )
    value = float(statistic(strata))
    num_seeds = min(scores.size for scores in strata)
    if num_seeds == 1:
        nan = float("nan")
        return Estimate(value=value, low=nan, high=nan, num_seeds=1)
    resampled = statistic(
        [scores[rng.integers(scores.size, size=(num_resamples, scores.size))] for scores in strata]
    )
    low, high = np.quantile(resampled, _TAILS).tolist()
    return Estimate(value=value, low=low, high=high, num_seeds=num_seeds)


def _win_rate(strata: Sequence[FloatArray]) -> FloatArray:
    tasks = len(strata) // 2
    pairs = zip(strata[:tasks], strata[tasks:], strict=True)
    return np.mean([_wins(x, y) for x, y in pairs], axis=0)


def _wins(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the share of pairs that `x` [..., seed] wins against `y`, ties being half.

    By ranks instead of pairs: resamples of a thousand seeds would be 10^10 pairs.
    """
    values, codes = np.unique(np.concatenate([x.ravel(), y.ravel()]), return_inverse=True)
    x_codes = codes[: x.size].reshape(-1, x.shape[-1])
    y_codes = codes[x.size :].reshape(-1, y.shape[-1])
    shape = (len(y_codes), values.size)
    cells = y_codes + values.size * np.arange(shape[0])[:, np.newaxis]
    counts = np.bincount(cells.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    beaten = counts.cumsum(axis=1) - counts / 2
    rates = np.take_along_axis(beaten, x_codes, axis=1).mean(axis=1) / y.shape[-1]
    return rates.reshape(x.shape[:-1])


def _ratio(strata: Sequence[FloatArray]) -> FloatArray:
    numerator, denominator = (scores.mean(axis=-1) for scores in strata)
    if np.any(denominator <= 0):
        # Near zero a ratio flips its sign, and percentiles of it mean nothing.
        raise UsageError(
            f"the mean that is divided by reaches {denominator.min():.4g} in resamples: a ratio "
            "needs positive ones; subtract what a random policy gets from both"
        )
    return numerator / denominator


def _strata(scores: TaskScores) -> list[FloatArray]:
    if not scores:
        raise UsageError("no scores to compare: give at least one task")
    return [_checked(values, f"scores of {task}", axes=1) for task, values in scores.items()]


def _checked(values: ArrayLike, name: str, axes: int) -> FloatArray:
    checked = np.asarray(values, np.float64)
    if checked.ndim != axes or checked.size == 0:
        raise UsageError(
            f"{name} have shape {checked.shape}: expected {axes} axes with at least one number"
        )
    bad = int(np.count_nonzero(~np.isfinite(checked)))
    if bad:
        raise UsageError(
            f"{name}: {bad} of {checked.size} are not finite; score failed runs at the floor, or "
            "count them and take them out"
        )
    return checked
