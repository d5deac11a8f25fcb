"""Cores, memory and load."""

import os
from dataclasses import replace

import psutil

from mgrl_cli.diagnosis.check import Check
from mgrl_cli.diagnosis.hardware import HardwareFacts, judge_hardware, measure_hardware

GOOD = HardwareFacts(
    visible_cores=4, quota_cores=None, total_bytes=8 * 2**30, available_bytes=4 * 2**30, load=0.5
)


def judged(facts: HardwareFacts) -> dict[str, Check]:
    return {check.name: check for check in judge_hardware(facts)}


def test_a_good_machine_has_no_remedies() -> None:
    checks = judged(GOOD)
    assert list(checks) == ["cores", "memory", "workers", "load"]
    assert all(check.status == "ok" and not check.remedy for check in checks.values())
    assert checks["memory"].finding == "4.0 GiB of 8.0 GiB available"
    # 4 · 2^30 / 350e6 = 12.27
    assert checks["workers"].finding.startswith("memory for about 12, cores for 4")


def test_a_container_that_allows_less_than_it_shows_is_a_warning_with_the_number() -> None:
    checks = judged(replace(GOOD, quota_cores=2.5))
    assert checks["cores"].status == "warning"
    assert "--workers 2" in checks["cores"].remedy
    assert "cores for 2" in checks["workers"].finding


def test_a_quota_above_the_visible_cores_changes_nothing() -> None:
    assert judged(replace(GOOD, quota_cores=9.0)) == judged(GOOD)


def test_a_quota_below_one_core_leaves_one_worker() -> None:
    assert "--workers 1" in judged(replace(GOOD, quota_cores=0.5))["cores"].remedy


def test_memory_for_fewer_workers_than_cores_is_a_warning() -> None:
    check = judged(replace(GOOD, available_bytes=3 * 350_000_000))["workers"]
    assert check.status == "warning"
    assert "--workers 3" in check.remedy


def test_load_is_held_against_the_usable_cores() -> None:
    assert judged(replace(GOOD, load=2.9))["load"].status == "ok"
    assert judged(replace(GOOD, load=3.0))["load"].status == "warning"
    assert judged(replace(GOOD, load=1.0, quota_cores=1.0))["load"].status == "warning"
    assert "load" not in judged(replace(GOOD, load=None))


def test_this_machine_is_measured() -> None:
    facts = measure_hardware()
    assert 1 <= facts.visible_cores <= (os.cpu_count() or 1)
    assert 0 < facts.available_bytes <= facts.total_bytes <= psutil.virtual_memory().total
