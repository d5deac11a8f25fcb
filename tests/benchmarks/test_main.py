import pytest

from benchmarks.__main__ import compare, main
from benchmarks.measure import Result


def result(value: float, direction: str = "at least") -> Result:
    return Result(
        benchmark="b",
        setting="s",
        figure="f",
        value=value,
        direction=direction,
        target=1.0,
        check="c",
    )


@pytest.mark.parametrize(
    ("value", "direction", "is_far_worse"),
    [
        (7.1, "at least", False),
        (6.9, "at least", True),
        (100.0, "at least", False),
        (14.2, "at most", False),
        (14.3, "at most", True),
        (0.1, "at most", False),
    ],
)
def test_reference_of_ten(value, direction, is_far_worse):
    problems = compare([result(value, direction)], {"b": {"f (s)": 10.0}})
    assert bool(problems) is is_far_worse


def test_figure_without_reference_is_a_problem():
    assert compare([result(3.0)], {"b": {}}) == ["b: no reference for 'f (s)' = 3"]


def test_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit) as refusal:
        main(["meta_gradeint"])
    assert refusal.value.code == 2
    assert "unknown benchmark 'meta_gradeint'" in capsys.readouterr().err
