import pytest
import torch

from benchmarks.measure import (
    Result,
    Timings,
    in_turns,
    interleaved,
    median_and_quartiles,
    one_thread,
)


def result(value: float, direction: str, target: float) -> Result:
    return Result(
        benchmark="b",
        setting="s",
        figure="f",
        value=value,
        direction=direction,
        target=target,
        check="c",
    )


@pytest.mark.parametrize(
    ("value", "direction", "is_met"),
    [
        (2.0, "at least", True),
        (1.9, "at least", False),
        (2.0, "at most", True),
        (2.1, "at most", False),
    ],
)
def test_target_of_two(value, direction, is_met):
    assert result(value, direction, 2.0).is_met is is_met


def test_ratios_pair_what_ran_in_the_same_repeat():
    timings = Timings({"slow": [6.0, 8.0, 1.0], "fast": [2.0, 4.0, 0.5]})
    assert timings.ratios("slow", "fast") == [3.0, 2.0, 2.0]
    assert timings.median_ms() == {"slow": 6000.0, "fast": 2000.0}


def test_quartiles_of_five_values():
    assert median_and_quartiles([5.0, 1.0, 3.0, 2.0, 4.0]) == (3.0, (2.0, 4.0))


def test_one_value_is_its_own_quartiles():
    assert median_and_quartiles([7.0]) == (7.0, (7.0, 7.0))


def test_contenders_take_turns_in_an_order_that_rotates():
    calls: list[str] = []
    contenders = {name: lambda name=name: calls.append(name) for name in "abc"}
    timings = in_turns(contenders, repeats=2)
    assert "".join(calls) == "abcbca"
    assert [len(each) for each in timings.seconds.values()] == [2, 2, 2]


def test_what_exceeds_the_least_time_is_called_once_a_turn():
    calls: list[str] = []
    contenders = {name: lambda name=name: calls.append(name) for name in "ab"}
    interleaved(contenders, repeats=2, min_s=0.0)
    assert "".join(calls) == "aabb" + "abba"  # twice to warm up and to estimate


def test_one_thread_ends_with_the_block():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
