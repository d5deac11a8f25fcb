"""Limits of containers, read from made-up trees of both versions."""

from pathlib import Path

import pytest

from mgrl_cli.cgroups import ControlGroups


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "fs"


def test_version_2_takes_the_tightest_limit_on_the_way_up(membership: Path, root: Path) -> None:
    write(membership, "0::/pod/task\n")
    write(root / "pod/cpu.max", "150000 100000\n")
    write(root / "pod/task/cpu.max", "max 100000\n")
    write(root / "pod/memory.max", "1000\n")
    write(root / "pod/memory.current", "700\n")
    write(root / "pod/memory.stat", "anon 500\ninactive_file 200\n")
    write(root / "pod/task/memory.max", "2000\n")
    write(root / "pod/task/memory.current", "100\n")
    groups = ControlGroups(membership, root)

    assert groups.cpu_quota_cores() == 1.5
    assert groups.memory_limit_bytes() == 1000
    assert groups.available_memory_bytes() == 500  # 1000 − (700 − 200), less than 2000 − 100


def test_version_1_has_one_tree_per_controller(membership: Path, root: Path) -> None:
    write(membership, "4:memory:/job\n3:cpu,cpuacct:/job\n1:name=systemd:/other\n")
    write(root / "cpu,cpuacct/job/cpu.cfs_quota_us", "50000\n")
    write(root / "cpu,cpuacct/job/cpu.cfs_period_us", "100000\n")
    write(root / "cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    write(root / "cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    write(root / "memory/job/memory.limit_in_bytes", "4096\n")
    write(root / "memory/job/memory.usage_in_bytes", "5000\n")
    write(root / "memory/memory.limit_in_bytes", "9223372036854771712\n")
    groups = ControlGroups(membership, root)

    assert groups.cpu_quota_cores() == 0.5
    assert groups.memory_limit_bytes() == 4096
    assert groups.available_memory_bytes() == 0


def test_a_path_that_is_not_visible_inside_a_container_falls_back_to_the_root(
    membership: Path, root: Path
) -> None:
    write(membership, "0::/docker/abc\n")
    write(root / "cpu.max", "200000 100000\n")
    assert ControlGroups(membership, root).cpu_quota_cores() == 2.0


@pytest.mark.parametrize("text", [None, "", "nonsense\n", "0::/\n"])
def test_without_limits_there_are_none(membership: Path, root: Path, text: str | None) -> None:
    if text is not None:
        write(membership, text)
    write(root / "cpu.max", "max 100000\n")
    write(root / "memory.max", "max\n")
    groups = ControlGroups(membership, root)

    assert groups.cpu_quota_cores() is None
    assert groups.memory_limit_bytes() is None
    assert groups.available_memory_bytes() is None
