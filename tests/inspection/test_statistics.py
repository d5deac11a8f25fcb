import math

import numpy as np
import pytest

from mgrl_cli.inspection.statistics import HistogramSum, SpreadSum, spread_of


def test_blocks_add_up_to_the_spread_of_all_rows(rng: np.random.Generator) -> None:
    rows = (1e6 + rng.standard_normal((1000, 3))).astype(np.float32)
    total = SpreadSum(3)
    for block in np.array_split(rows, [1, 7, 400]):
        total.add(block)

    exact = rows.astype(np.float64)
    for column, spread in enumerate(total.spreads()):
        assert spread.mean == pytest.approx(exact[:, column].mean(), rel=1e-12)
        assert spread.std == pytest.approx(exact[:, column].std(), rel=1e-6)
        assert (spread.min, spread.max) == (exact[:, column].min(), exact[:, column].max())


def test_numbers_that_are_not_finite_are_counted_and_left_out() -> None:
    total = SpreadSum()
    total.add(np.array([1.0, math.nan, 3.0, math.inf], np.float32))
    (spread,) = total.spreads()
    assert (spread.mean, spread.std, spread.min, spread.max) == (2.0, 1.0, 1.0, 3.0)
    assert total.not_finite == 2


def test_no_numbers_have_no_spread_and_are_not_constant() -> None:
    spread = spread_of(np.zeros(0))
    assert all(math.isnan(figure) for figure in (spread.mean, spread.std, spread.min, spread.max))
    assert not spread.is_constant
    assert spread_of(np.full(3, 7.0)).is_constant


def test_a_histogram_counts_block_by_block() -> None:
    total = HistogramSum(0.0, 4.0, 4)
    total.add(np.array([0.0, 0.5, 3.5]))
    total.add(np.array([[4.0, 1.0], [math.nan, 9.0]]))
    assert total.histogram().counts == (2, 1, 0, 2)


def test_a_histogram_of_one_value_has_room_around_it() -> None:
    for value in (0.0, 1e30):
        total = HistogramSum(value, value, 3)
        total.add(np.array([value, value]))
        assert sum(total.histogram().counts) == 2


def test_a_histogram_of_nothing_has_no_counts() -> None:
    assert HistogramSum(0.0, 1.0, 4).histogram().counts == ()
    unknown = HistogramSum(math.nan, math.nan, 4)
    unknown.add(np.zeros(0))
    assert unknown.histogram().counts == ()


def test_numbers_of_any_size_raise_nothing() -> None:
    total = SpreadSum()
    total.add(np.array([1e308, 1e308]))
    total.add(np.array([-1e308]))
    assert total.spreads()[0].min == -1e308
