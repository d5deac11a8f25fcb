import math

import pytest

from mgrl_cli.ui.number_text import (
    count_text,
    duration_text,
    percent_text,
    return_text,
    small_text,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-12.34, "-12.3"),
        (99.96, "100"),
        (1234.4, "1234"),
        (-9999.6, "-10.0k"),
        (12_345.0, "12.3k"),
        (-4.56e6, "-4.6M"),
        (1e12, "1e+12"),
        (math.nan, "–"),
        (-math.inf, "-inf"),
    ],
)
def test_returns_stay_short(value: float, text: str):
    assert return_text(value) == text
    assert len(text) <= 7


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.00123, "0.00123"),
        (0.4382, "0.438"),
        (-45.64, "-45.6"),
        (812.4, "812"),
        (0.000012, "1.2e-05"),
        (123_456.0, "1.2e+05"),
        (math.nan, "–"),
        (math.inf, "inf"),
    ],
)
def test_norms_keep_three_digits(value: float, text: str):
    assert small_text(value) == text


def test_gain_shows_its_sign():
    assert small_text(0.00526, signed=True) == "+0.00526"
    assert small_text(-2e-7, signed=True) == "-2.0e-07"
    assert small_text(math.nan, signed=True) == "–"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (9_999, "9999"),
        (9_999.6, "10.0k"),
        (12_300, "12.3k"),
        (999_949, "999.9k"),
        (999_960, "1.00M"),
        (20_000_000, "20.00M"),
        (math.nan, "–"),
    ],
)
def test_counts_are_abbreviated(count: float, text: str):
    assert count_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0:00"),
        (-3.0, "0:00"),
        (59.6, "1:00"),
        (754.0, "12:34"),
        (3599.6, "1:00:00"),
        (3723.0, "1:02:03"),
        (183_845.0, "2d 03:04"),
        (math.nan, "–"),
        (math.inf, "inf"),
    ],
)
def test_durations_grow_with_their_unit(seconds: float, text: str):
    assert duration_text(seconds) == text


def test_hundred_percent_means_finished():
    assert percent_text(0.999) == "99%"
    assert percent_text(1.0) == "100%"
    assert percent_text(1.7) == "100%"
    assert percent_text(-0.1) == "0%"
