import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import scipy.stats

from mgrl_cli.errors import UsageError
from mgrl_cli.statistics import (
    Estimate,
    area_under_curve,
    bootstrap,
    interquartile_mean,
    mean_and_deviation,
    mean_over_tasks,
    probability_of_improvement,
    ratio_of_means,
    seed_remark,
    stuck_runs,
)

NOT_SCORES = [[], [1.0, math.nan], [math.inf], [[1.0, 2.0]], 3.0]


def assert_same_interval(ours: Estimate, theirs: tuple[float, float]) -> None:
    """Both are sampled: 10,000 resamples fix an end to about 0.7 % of the width (one sigma)."""
    tolerance = 0.03 * (theirs[1] - theirs[0])
    assert ours.low == pytest.approx(theirs[0], abs=tolerance)
    assert ours.high == pytest.approx(theirs[1], abs=tolerance)


def named(tasks: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"task {index}": scores for index, scores in enumerate(tasks)}


def coverage(draw: Callable[[int], np.ndarray], seeds: int, truth: float) -> float:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        estimate = bootstrap({"task": draw(seeds)}, mean_over_tasks, rng, 300)
        hits += estimate.low <= truth <= estimate.high
    return hits / 400


def test_the_deviation_is_that_of_a_sample() -> None:
    # Squared deviations 9 + 1 + 1 + 9 over three.
    result = mean_and_deviation([1.0, 3.0, 5.0, 7.0])
    assert result.mean == 4.0
    assert result.deviation == pytest.approx(math.sqrt(20 / 3))


def test_one_seed_has_no_deviation() -> None:
    result = mean_and_deviation([7.0])
    assert result.mean == 7.0
    assert math.isnan(result.deviation)


@pytest.mark.parametrize("scores", NOT_SCORES)
def test_scores_that_are_none_are_refused_in_one_line(scores, rng) -> None:
    good = [1.0, 2.0]
    for refused in (
        lambda: mean_and_deviation(scores),
        lambda: stuck_runs(scores, 0.0),
        lambda: bootstrap({"hopper": scores}, interquartile_mean, rng, 100),
        lambda: bootstrap({"lunar": good, "hopper": scores}, mean_over_tasks, rng, 100),
        lambda: probability_of_improvement({"hopper": good}, {"hopper": scores}, rng, 100),
        lambda: ratio_of_means(good, scores, rng, 100),
    ):
        with pytest.raises(UsageError, match=r"^.*(scores|denominator).*$") as error:
            refused()
        assert "\n" not in str(error.value)


def test_the_task_at_fault_is_named(rng) -> None:
    with pytest.raises(UsageError, match=r"scores of hopper: 1 of 2 are not finite"):
        bootstrap({"lunar": [1.0], "hopper": [1.0, math.nan]}, mean_over_tasks, rng, 100)


def test_no_task_and_too_few_resamples_are_refused(rng) -> None:
    with pytest.raises(UsageError, match="at least one task"):
        bootstrap({}, mean_over_tasks, rng, 100)
    with pytest.raises(UsageError, match="39 resamples"):
        bootstrap({"hopper": [1.0, 2.0]}, mean_over_tasks, rng, 39)


def test_the_middle_half_is_averaged() -> None:
    # Of eight, two at either end go, whatever their size; the rest is 2, 3, 4, 7.
    scores = np.array([4.0, -1e9, 7.0, 1.0, 3.0, 8.0, 2.0, 1e9])
    assert interquartile_mean([scores]) == 4.0
    assert interquartile_mean([scores[:3], scores[3:]]) == 4.0


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 11, 30])
def test_the_interquartile_mean_is_scipys_trimmed_mean(count, rng) -> None:
    scores = rng.standard_exponential((5, count))
    expected = scipy.stats.trim_mean(scores, 0.25, axis=1)
    np.testing.assert_allclose(interquartile_mean([scores]), expected, rtol=1e-13)


def test_every_task_weighs_the_same_in_the_mean_whatever_its_seeds() -> None:
    assert mean_over_tasks([np.array([1.0, 3.0]), np.full(10, 6.0)]) == 4.0


def test_three_seeds_span_just_their_range(rng) -> None:
    # One resample in 27 repeats the lowest three times: more than the 2.5 % that are cut off.
    estimate = bootstrap({"hopper": [5.0, 1.0, 3.0]}, mean_over_tasks, rng, 2000)
    assert estimate == Estimate(value=3.0, low=1.0, high=5.0, num_seeds=3)


def test_tasks_are_resampled_apart(rng) -> None:
    # Without strata the share of either task would vary, and the mean with it.
    estimate = bootstrap({"a": [0.0] * 4, "b": [100.0] * 6}, mean_over_tasks, rng, 200)
    assert estimate == Estimate(value=50.0, low=50.0, high=50.0, num_seeds=4)


def test_the_same_stream_gives_the_same_interval_and_another_does_not() -> None:
    scores = {"hopper": np.arange(8.0) ** 2}
    first, again, other = (
        bootstrap(scores, interquartile_mean, np.random.default_rng(seed), 100)
        for seed in (3, 3, 4)
    )
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.value == other.value


def test_one_seed_has_no_interval(rng) -> None:
    estimate = bootstrap({"a": [1.0], "b": [2.0, 4.0]}, mean_over_tasks, rng, 100)
    assert estimate.value == 2.0
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)
    assert seed_remark(estimate) == "from 1 seed: no interval"


@pytest.mark.parametrize("count", [5, 12])
def test_intervals_of_one_task_are_scipys(count, rng) -> None:
    scores = rng.lognormal(size=count)
    for ours, theirs in (
        (mean_over_tasks, np.mean),
        (interquartile_mean, lambda x, axis: scipy.stats.trim_mean(x, 0.25, axis=axis)),
    ):
        expected = scipy.stats.bootstrap(
            (scores,), theirs, n_resamples=10_000, method="percentile", random_state=rng
        ).confidence_interval
        assert_same_interval(bootstrap({"t": scores}, ours, rng, 10_000), expected)


def test_intervals_over_tasks_are_scipys_of_several_samples(rng) -> None:
    tasks = [rng.standard_normal(6), 3 + rng.standard_exponential(9)]

    def trimmed(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return scipy.stats.trim_mean(np.concatenate([x, y], axis=axis), 0.25, axis=axis)

    expected = scipy.stats.bootstrap(
        tasks, trimmed, n_resamples=10_000, method="percentile", random_state=rng
    ).confidence_interval
    ours = bootstrap(named(tasks), interquartile_mean, rng, 10_000)
    assert_same_interval(ours, expected)


@pytest.mark.parametrize(
    ("distribution", "low", "high"),
    [("standard_normal", 0.87, 0.94), ("standard_exponential", 0.83, 0.91)],
)
def test_ten_seeds_cover_somewhat_less_than_promised(distribution, low, high, rng) -> None:
    # 2,000 repetitions gave 0.907 and 0.872; 400 have a standard error of 0.015.
    truth = {"standard_normal": 0.0, "standard_exponential": 1.0}[distribution]
    assert low <= coverage(getattr(rng, distribution), 10, truth) <= high


def test_three_seeds_cover_three_times_in_four(rng) -> None:
    # Exactly: their range misses a symmetric truth where all lie on one side, 2 / 2**3.
    assert coverage(rng.standard_normal, 3, 0.0) == pytest.approx(0.75, abs=0.06)


def test_pairs_of_runs_are_counted_and_ties_are_half(rng) -> None:
    # 2 ties 2 and loses to 3; 5 beats both; 1 loses twice: (0.5 + 2) of 6 pairs.
    estimate = probability_of_improvement({"t": [2.0, 5.0, 1.0]}, {"t": [2.0, 3.0]}, rng, 500)
    assert estimate.value == pytest.approx(2.5 / 6)
    assert estimate.num_seeds == 2
    assert estimate.low < 2.5 / 6 < estimate.high


def test_improvement_is_mann_whitneys_u_per_pair_averaged_over_tasks(rng) -> None:
    x = {"a": rng.integers(0, 6, 7).astype(float), "b": rng.standard_normal(5)}
    y = {"b": rng.standard_normal(9), "a": rng.integers(0, 6, 4).astype(float)}
    rates = [
        scipy.stats.mannwhitneyu(x[task], y[task]).statistic / (x[task].size * y[task].size)
        for task in x
    ]
    ours = probability_of_improvement(x, y, rng, 100)
    assert ours.value == pytest.approx(np.mean(rates), rel=1e-12)
    assert probability_of_improvement(y, x, rng, 100).value == pytest.approx(1 - ours.value)


def test_the_interval_of_improvement_is_scipys(rng) -> None:
    x, y = rng.standard_normal(8) + 0.5, rng.standard_normal(12)

    def rate(left: np.ndarray, right: np.ndarray, axis: int) -> np.ndarray:
        u = scipy.stats.mannwhitneyu(left, right, axis=axis, method="asymptotic").statistic
        return u / (left.shape[axis] * right.shape[axis])

    expected = scipy.stats.bootstrap(
        (x, y), rate, n_resamples=10_000, method="percentile", random_state=rng
    ).confidence_interval
    assert_same_interval(probability_of_improvement({"t": x}, {"t": y}, rng, 10_000), expected)


def test_improvement_of_a_thousand_seeds_fits_into_memory_and_a_moment(rng) -> None:
    x, y = rng.integers(0, 50, 1000), rng.integers(5, 55, 1000)
    wins = (x[:, None] > y).mean() + (x[:, None] == y).mean() / 2
    found = probability_of_improvement({"t": x}, {"t": y}, rng, 500)
    assert found.value == pytest.approx(wins, abs=1e-12)
    # 500 resamples: 5e8 pairs, which would take longer than the test's time and 0.5 GB each way
    assert found.low < wins < found.high


def test_a_task_that_only_one_has_is_refused(rng) -> None:
    with pytest.raises(UsageError, match="hopper, lunar"):
        probability_of_improvement({"lunar": [1.0]}, {"hopper": [1.0]}, rng, 100)


def test_runs_below_the_threshold_are_stuck_and_those_on_it_are_not() -> None:
    assert stuck_runs([-210.0, 250.0, -130.0, 240.0, -131.0, 260.0], -130.0) == 2
    with pytest.raises(UsageError, match="nan"):
        stuck_runs([1.0], math.nan)


def test_the_area_is_a_mean_over_env_steps_not_over_evaluations() -> None:
    # 0..10 at 5 on average, 10..40 at 20 on average: (50 + 600) / 40.
    areas = area_under_curve([0, 10, 40], [[0.0, 10.0, 30.0], [7.0, 7.0, 7.0]])
    np.testing.assert_allclose(areas, [16.25, 7.0])


def test_every_seed_may_have_its_own_env_steps() -> None:
    areas = area_under_curve([[0, 10, 40], [100, 200, 300]], [[0.0, 10.0, 30.0], [0.0, 4.0, 0.0]])
    np.testing.assert_allclose(areas, [16.25, 2.0])


@pytest.mark.parametrize(
    ("env_steps", "returns"),
    [
        ([0], [[1.0]]),
        ([0, 1, 2], [[1.0, 2.0]]),
        ([0, 1], [1.0, 2.0]),
        ([1, 1], [[1.0, 2.0]]),
        ([0, math.nan], [[1.0, 2.0]]),
        ([0, 1], [[1.0, math.nan]]),
        ([0, 1], np.zeros((0, 2))),
    ],
)
def test_what_is_no_learning_curve_is_refused(env_steps, returns) -> None:
    with pytest.raises(UsageError, match=r"env steps|returns"):
        area_under_curve(env_steps, returns)


def test_the_interval_of_a_ratio_is_scipys(rng) -> None:
    x, y = 10 + rng.standard_normal(7), 8 + 2 * rng.standard_normal(9)
    expected = scipy.stats.bootstrap(
        (x, y),
        lambda a, b, axis: a.mean(axis=axis) / b.mean(axis=axis),
        n_resamples=10_000,
        method="percentile",
        random_state=rng,
    ).confidence_interval
    ours = ratio_of_means(x, y, rng, 10_000)
    assert ours.value == pytest.approx(x.mean() / y.mean())
    assert ours.num_seeds == 7
    assert_same_interval(ours, expected)


@pytest.mark.parametrize("denominator", [[-3.0, 1.0], [-1.0, 4.0, 4.0], [0.0, 0.0]])
def test_a_ratio_to_what_may_be_zero_is_refused(denominator, rng) -> None:
    # The second has a positive mean, but its resamples do not all.
    with pytest.raises(UsageError, match="random policy"):
        ratio_of_means([1.0, 2.0], denominator, rng, 500)


@pytest.mark.parametrize(
    ("low", "high", "seeds", "remark"),
    [
        (0.0, 1.0, 2, "from 2 seeds: wide, yet too narrow"),
        (0.0, 1.0, 9, "from 9 seeds: wide, yet too narrow"),
        (0.0, 1.0, 10, ""),
        (1.0, 1.0, 3, "from 3 seeds: an interval without width"),
        (1.0, 1.0, 20, "from 20 seeds: an interval without width"),
    ],
)
def test_an_interval_that_promises_too_much_is_remarked_on(low, high, seeds, remark) -> None:
    found = seed_remark(Estimate(value=1.0, low=low, high=high, num_seeds=seeds))
    assert found.startswith(remark)
    assert bool(found) == bool(remark)


def test_figures_and_intervals_are_rliables(rng) -> None:
    library = pytest.importorskip("rliable.library")
    metrics = pytest.importorskip("rliable.metrics")
    x, y = rng.standard_normal((6, 3)) + 0.5, rng.standard_normal((8, 3))
    points, intervals = library.get_interval_estimates(
        {"x": x}, lambda runs: np.array([metrics.aggregate_iqm(runs)]), reps=10_000
    )
    ours = bootstrap(named(x.T), interquartile_mean, rng, 10_000)
    assert ours.value == pytest.approx(points["x"][0])
    assert_same_interval(ours, tuple(intervals["x"][:, 0]))
    better = probability_of_improvement(named(x.T), named(y.T), rng, 100)
    assert better.value == pytest.approx(metrics.probability_of_improvement(x, y))
