"""Processes: judged from injected facts; really tried in `test_doctor`."""

from collections.abc import Mapping

import pytest

from mgrl_cli.diagnosis.check import Check
from mgrl_cli.diagnosis.probe import ProbeReport
from mgrl_cli.diagnosis.processes import judge_processes

GOOD: Mapping[str, object] = {
    "open files": 1024,
    "shared free bytes": 2**30,
    "dies with parent": True,
    "spawn s": 0.5,
    "shared memory": True,
}


def judged(changes: Mapping[str, object], *without: str, ending: str = "") -> dict[str, Check]:
    facts = {name: value for name, value in {**GOOD, **changes}.items() if name not in without}
    return {check.name: check for check in judge_processes(ProbeReport(facts, ending))}


def test_good_processes_have_no_remedies() -> None:
    checks = judged({})
    assert set(checks) == {"spawn", "shared memory", "shared space", "open files", "end of a run"}
    assert all(check.status == "ok" and not check.remedy for check in checks.values())


@pytest.mark.parametrize(
    ("name", "changes", "status"),
    [
        ("open files", {"open files": 255}, "warning"),
        ("open files", {"open files": 256}, "ok"),
        ("open files", {"open files": None}, "ok"),
        ("shared space", {"shared free bytes": 2**20}, "warning"),
        ("shared memory", {"shared memory": False}, "missing"),
        ("end of a run", {"dies with parent": False}, "ok"),
    ],
)
def test_limits(name: str, changes: dict[str, object], status: str) -> None:
    check = judged(changes)[name]
    assert check.status == status
    assert bool(check.remedy) is (status != "ok")


@pytest.mark.parametrize(
    ("name", "fact"), [("spawn", "spawn s"), ("shared memory", "shared memory")]
)
def test_what_the_system_refuses_is_missing_with_its_words(name: str, fact: str) -> None:
    check = judged({f"{fact} problem": "OSError: [Errno 11] full"}, fact)[name]
    assert check.status == "missing"
    assert "[Errno 11] full" in check.finding
    assert "--workers 0" in check.remedy


@pytest.mark.parametrize(
    ("name", "fact"), [("spawn", "spawn s"), ("shared memory", "shared memory")]
)
def test_what_there_was_no_time_for_is_a_warning(name: str, fact: str) -> None:
    check = judged({}, fact, ending="did not end within 11 s")[name]
    assert check.status == "warning"
    assert "did not end within 11 s" in check.finding
    assert check.remedy
