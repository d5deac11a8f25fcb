"""Two-stage resampling, by numbers worked out by hand and by the ordinary bootstrap."""

import math

import numpy as np
import pytest

from mgrl_cli.statistics import bootstrap, interquartile_mean, probability_of_improvement
from mgrl_cli.studies.intervals import improvement_over, interquartile_mean_of

ONE = [3.0, 1.0, 4.0, 1.5, 9.0]
OTHER = [2.0, 1.0, 2.5]


def test_objectives_are_resampled_before_their_runs(rng: np.random.Generator) -> None:
    # One time in four both draws are the same objective: the interval spans the objectives.
    estimate = interquartile_mean_of([[0.0] * 3, [10.0] * 3], rng, 2000)
    assert (estimate.value, estimate.low, estimate.high) == (5.0, 0.0, 10.0)
    assert estimate.num_seeds == 2  # objectives, not runs
    pooled = bootstrap({"all": [0.0] * 3 + [10.0] * 3}, interquartile_mean, rng, 2000)
    assert 0.0 < pooled.high - pooled.low <= 10.0


def test_runs_within_an_objective_are_resampled_too(rng: np.random.Generator) -> None:
    estimate = interquartile_mean_of([[0.0, 10.0], [0.0, 10.0]], rng, 2000)
    assert (estimate.low, estimate.high) == (0.0, 10.0)


def test_of_one_objective_it_is_the_ordinary_bootstrap(rng: np.random.Generator) -> None:
    ours = interquartile_mean_of([ONE], rng, 20_000)
    plain = bootstrap({"all": ONE}, interquartile_mean, rng, 20_000)
    assert ours.value == plain.value
    assert ours.num_seeds == plain.num_seeds == 5
    assert (ours.low, ours.high) == pytest.approx((plain.low, plain.high), abs=0.1)


def test_improvement_counts_pairs_with_ties_as_half(rng: np.random.Generator) -> None:
    # Of the 15 pairs: 3 wins all 3, 1 ties one, 4 wins 3, 1.5 wins 1, 9 wins 3.
    ours = improvement_over([ONE], [OTHER], rng, 20_000)
    assert ours.value == pytest.approx(10.5 / 15)
    assert ours.num_seeds == 3
    plain = probability_of_improvement({"all": ONE}, {"all": OTHER}, rng, 20_000)
    assert (ours.low, ours.high) == pytest.approx(
        (plain.low, plain.high), abs=0.04
    )  # one step of 30


def test_improvement_of_two_opposed_objectives_is_open(rng: np.random.Generator) -> None:
    estimate = improvement_over([[0.0] * 9, [10.0] * 9], [[5.0] * 9], rng, 2000)
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.0, 1.0)


def test_an_objective_that_lost_runs_is_drawn_like_the_others(rng: np.random.Generator) -> None:
    estimate = interquartile_mean_of([[0.0], [10.0] * 9], rng, 2000)
    assert (estimate.low, estimate.high) == (0.0, 10.0)


def test_a_single_run_has_no_interval(rng: np.random.Generator) -> None:
    estimate = interquartile_mean_of([[3.0]], rng, 100)
    assert (estimate.value, estimate.num_seeds) == (3.0, 1)
    assert math.isnan(estimate.low)
    assert math.isnan(improvement_over([ONE], [[3.0]], rng, 100).low)
