import math
from pathlib import Path

import pytest

from mgrl_cli.inspection.metrics import count, figure, last_known, read_metrics


@pytest.mark.parametrize("torn", [b"", b'{"round": 3, "ga'])
def test_lines_are_read_in_order_but_for_one_being_written(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "a").write_bytes(b'{"round": 1}\n{"round": 2}\n' + torn)
    file = read_metrics(tmp_path / "a")
    assert file.rows == ({"round": 1}, {"round": 2})
    assert file.problem == ""


def test_damaged_lines_are_named_and_do_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b'{"round": 1}\nxx\n[1]\n\xff\n{"round": 5}\n')
    file = read_metrics(tmp_path / "a")
    assert file.rows == ({"round": 1}, {"round": 5})
    assert file.problem == (
        f"{tmp_path / 'a'}: line 2 and 2 more lines hold no JSON object; the file is damaged"
    )


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "a").rows == ()


def test_figures_of_the_wrong_kind_are_unknown() -> None:
    row = {"a": "1", "b": True, "c": None, "d": 2, "e": 0.5}
    assert [figure(row, key) for key in "de"] == [2.0, 0.5]
    assert all(math.isnan(figure(row, key)) for key in "abcx")
    assert [count(row, key) for key in "abcdex"] == [0, 0, 0, 2, 0, 0]


def test_the_newest_known_figure_counts() -> None:
    assert last_known(({"a": 1.0}, {"a": 2.0}, {"a": None}), "a") == 2.0
    assert math.isnan(last_known(({"a": None},), "a"))
    assert math.isnan(last_known((), "a"))
