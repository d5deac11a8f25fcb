import math

import numpy as np
import pytest

from mgrl_cli.plots.aggregate import Curve, band_of, curve_of, running_mean


def test_curve_is_ordered_and_finite():
    curve = curve_of([(3.0, 30.0), (1.0, 10.0), (2.0, math.nan), (4.0, math.inf), (1.0, 11.0)])
    assert curve.x.tolist() == [1.0, 3.0]
    assert curve.y.tolist() == [11.0, 30.0]


def test_band_interpolates_curves_measured_out_of_step():
    # At x = 2 the first curve is halfway between 0 and 4, the second was measured: 2 and 10.
    first = curve_of([(1.0, 0.0), (3.0, 4.0)])
    second = curve_of([(1.0, 8.0), (2.0, 10.0), (3.0, 0.0)])
    band = band_of([first, second])
    assert band.x.tolist() == [1.0, 2.0, 3.0]
    assert band.mean.tolist() == [4.0, 6.0, 2.0]
    assert band.low.tolist() == [0.0, 2.0, 0.0]
    assert band.high.tolist() == [8.0, 10.0, 4.0]


def test_band_covers_only_what_all_curves_cover():
    band = band_of([curve_of([(0.0, 1.0), (5.0, 1.0)]), curve_of([(2.0, 3.0), (9.0, 3.0)])])
    assert band.x.tolist() == [2.0, 5.0]
    assert band.mean.tolist() == [2.0, 2.0]


def test_curves_without_points_do_not_count():
    band = band_of([curve_of([]), curve_of([(1.0, 5.0), (2.0, 7.0)])])
    assert band.mean.tolist() == [5.0, 7.0]


@pytest.mark.parametrize("curves", [[], [curve_of([])]])
def test_band_of_nothing_is_empty(curves: list[Curve]):
    assert band_of(curves).x.size == 0


def test_band_of_curves_that_never_overlap_is_empty():
    assert band_of([curve_of([(0.0, 1.0)]), curve_of([(5.0, 1.0)])]).x.size == 0


def test_running_mean_by_hand():
    # Ends: alone; inside: (1 + 2 + 6) / 3, (2 + 6 + 4) / 3.
    assert running_mean(np.array([1.0, 2.0, 6.0, 4.0]), 3).tolist() == [1.0, 3.0, 4.0, 4.0]


def test_running_mean_leaves_a_straight_line_alone():
    line = np.arange(20.0)
    np.testing.assert_allclose(running_mean(line, 7), line)


def test_running_mean_of_window_one_and_of_nothing():
    assert running_mean(np.array([3.0, 1.0]), 1).tolist() == [3.0, 1.0]
    assert running_mean(np.zeros(0), 5).size == 0
