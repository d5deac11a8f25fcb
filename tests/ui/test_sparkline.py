import math

import pytest

from mgrl_cli.ui.sparkline import sparkline


def test_values_span_all_levels():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"


def test_fewer_values_than_width_are_not_stretched():
    assert sparkline([1.0, 3.0], 10) == "▁█"


def test_more_values_than_width_are_averaged_in_runs():
    # Means of (0, 2), (4, 6), (14, 14): 1, 5, 14; (5 - 1) / 13 * 8 = 2.46, third level.
    assert sparkline([0, 2, 4, 6, 14, 14], 3) == "▁▃█"


def test_uneven_runs_cover_every_value_once():
    # 5 values in 2 runs: (0, 0) and (9, 9, 9).
    assert sparkline([0, 0, 9, 9, 9], 2) == "▁█"


def test_constant_values_give_a_line_at_half_height():
    assert sparkline([5.0, 5.0, 5.0], 3) == "▄▄▄"
    assert sparkline([-7.5], 4) == "▄"


@pytest.mark.parametrize("gap", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_leave_a_gap(gap: float):
    assert sparkline([0.0, gap, 7.0], 3) == "▁ █"


def test_nan_is_left_out_of_a_run():
    assert sparkline([0.0, math.nan, 8.0, 8.0], 2) == "▁█"


def test_only_nan_is_blank():
    assert sparkline([math.nan, math.nan], 5) == "  "


@pytest.mark.parametrize("width", [0, -1])
def test_no_width_gives_nothing(width: int):
    assert sparkline([1.0, 2.0], width) == ""


def test_no_values_give_nothing():
    assert sparkline([], 5) == ""


def test_extreme_values_do_not_overflow():
    assert sparkline([-1.7e308, 1.7e308, 1.7e308], 3) == "▁██"
    assert sparkline([-1.7e308, -1.7e308, 1.7e308, 1.7e308], 2) == "▁█"
