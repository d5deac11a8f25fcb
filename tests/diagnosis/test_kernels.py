"""The cache of compiled kernels."""

import os
import sys
from pathlib import Path

import pytest

from mgrl_cli.diagnosis.check import Check
from mgrl_cli.diagnosis.kernels import judge_kernels, measure_kernels

FACTS = {"problem": "", "directory": "/cache/fused_1", "wanted": "", "is_compiled": True}


def judged(*, has_numba: bool = True, **changes: object) -> list[Check]:
    return list(judge_kernels({**FACTS, **changes}, has_numba=has_numba))


def test_this_suite_has_compiled_the_kernels() -> None:
    facts = measure_kernels()
    assert facts["problem"] == ""
    assert facts["is_compiled"] is True
    assert list(Path(facts["directory"]).glob("passes.*.nbi"))


def test_kernels_older_than_their_sources_are_not_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a directory of its own, with files that only look like numba's."""
    import numba

    from mgrl_cli.algorithm.fused import passes

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    facts = measure_kernels()
    directory = Path(facts["directory"])
    assert directory.is_relative_to(tmp_path)
    assert facts["is_compiled"] is False

    for function in passes.compile_passes(""):
        name, line = function.__name__, function.py_func.__code__.co_firstlineno
        version = f"py{sys.version_info.major}{sys.version_info.minor}"
        (directory / f"passes.compile_passes.locals.{name}-{line}.{version}.nbi").touch()
    assert measure_kernels()["is_compiled"] is True

    os.utime(next(directory.glob("*.forward-*.nbi")), (1.0, 1.0))
    assert measure_kernels()["is_compiled"] is False


def test_a_cache_in_order_has_no_remedies() -> None:
    assert [(check.name, check.status, check.remedy) for check in judged()] == [
        ("cache", "ok", ""),
        ("compiled", "ok", ""),
    ]


def test_kernels_that_are_not_compiled_yet_cost_a_minute_and_are_no_warning() -> None:
    _, compiled = judged(is_compiled=False)
    assert compiled.status == "ok"
    assert "about a minute" in compiled.finding


def test_a_wanted_directory_that_numba_did_not_take_is_a_warning() -> None:
    cache, _ = judged(wanted="/read-only")
    assert cache.status == "warning"
    assert "NUMBA_CACHE_DIR=/read-only" in cache.finding
    assert cache.remedy
    assert judged(wanted="/cache")[0].status == "ok"


def test_without_any_directory_runs_would_fail() -> None:
    (check,) = judged(problem="RuntimeError: cannot cache function")
    assert check.status == "missing"
    assert "cannot cache function" in check.finding
    assert "compiled=false" in check.remedy


def test_without_numba_there_is_nothing_to_cache() -> None:
    (check,) = judge_kernels(None, has_numba=False)
    assert (check.status, check.remedy) == ("ok", "")


def test_a_search_without_an_end_is_a_warning() -> None:
    (check,) = judge_kernels(None, has_numba=True)
    assert check.status == "warning"
    assert check.remedy
