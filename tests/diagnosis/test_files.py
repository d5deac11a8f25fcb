"""What files can do: really tried in a directory, and judged from injected facts."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from mgrl_cli.diagnosis.check import Check
from mgrl_cli.diagnosis.files import (
    existing_directory,
    file_system,
    judge_files,
    locks_exclusively,
    measure_flush_s,
    probe_files,
    renames_over,
)
from mgrl_cli.diagnosis.probe import ProbeReport

GOOD: Mapping[str, object] = {
    "directory": "/runs",
    "free bytes": 5 * 2**30,
    "file system": "ext4",
    "flush s": 0.01,
    "rename": True,
    "lock": True,
    "writable": True,
}
MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/my\\040disk xfs rw 0 0
/dev/sdc1 /mnt ext4 rw 0 0
me@host:/ /mnt fuse.sshfs rw 0 0
broken line
"""


def probed(runs_dir: Path) -> dict[str, object]:
    facts: dict[str, object] = {}
    probe_files(runs_dir, facts.__setitem__, lambda: False)
    return facts


def judged(changes: Mapping[str, object], ending: str = "") -> dict[str, Check]:
    """Return the checks on good facts with changes; None takes a fact away."""
    facts = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    return {check.name: check for check in judge_files(ProbeReport(facts, ending))}


def test_an_ordinary_directory_can_do_everything_and_is_left_as_it_was(tmp_path: Path) -> None:
    facts = probed(tmp_path / "runs" / "deeper")

    assert facts["directory"] == str(tmp_path)
    assert (facts["writable"], facts["rename"], facts["lock"]) == (True, True, True)
    assert isinstance(facts["flush s"], float)
    assert facts["flush s"] > 0
    assert isinstance(facts["free bytes"], int)
    assert facts["free bytes"] > 0
    assert not [name for name in facts if "problem" in name]
    assert list(tmp_path.iterdir()) == []


def test_single_measures_work_in_an_empty_directory(tmp_path: Path) -> None:
    assert 0 < measure_flush_s(tmp_path) < 60
    assert renames_over(tmp_path) is True
    assert locks_exclusively(tmp_path) is True


def test_nothing_is_left_behind_when_something_fails_on_the_way(tmp_path: Path) -> None:
    def report(name: str, value: object) -> None:
        if name == "rename":
            raise SystemExit(f"asked to end: {value}")

    with pytest.raises(SystemExit):
        probe_files(tmp_path, report, lambda: False)
    assert list(tmp_path.iterdir()) == []


def test_asked_to_end_it_tries_nothing_more_and_leaves_nothing(tmp_path: Path) -> None:
    facts: dict[str, object] = {}
    probe_files(tmp_path, facts.__setitem__, lambda: "free bytes" in facts)
    assert not {"flush s", "rename", "lock"} & set(facts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_missing_with_a_remedy(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        facts = probed(tmp_path)
    finally:
        tmp_path.chmod(0o700)
    assert "writable" not in facts
    check = next(judge_files(ProbeReport(dict(facts), "")))
    assert (check.name, check.status) == ("writable", "missing")
    assert "PermissionError" in check.finding
    assert "--runs-dir" in check.remedy


@pytest.mark.parametrize("below", ["", "runs"])
def test_a_file_in_the_place_of_the_directory_is_missing(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"mine")

    facts = probed(file / below)

    assert str(file) in str(facts["writable problem"])
    (check,) = judge_files(ProbeReport(dict(facts), ""))
    assert check.status == "missing"
    assert file.read_bytes() == b"mine"


def test_the_directory_looked_at_is_the_nearest_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert existing_directory(Path("runs")) == tmp_path / "runs"
    assert existing_directory(Path("other/runs")) == tmp_path
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(NotADirectoryError, match="link"):
        existing_directory(Path("link/runs"))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "ext4"),
        ("/var/tmp", "ext4"),
        ("/tmp/a", "tmpfs"),
        ("/tmpx", "ext4"),
        ("/home/me", "nfs4"),
        ("/home/my disk/runs", "xfs"),
        ("/mnt/runs", "fuse.sshfs"),  # the later mount hides the earlier
    ],
)
def test_the_file_system_is_that_of_the_innermost_mount(path: str, name: str) -> None:
    assert file_system(Path(path), MOUNTS) == name


def test_without_mounts_the_file_system_is_not_known() -> None:
    assert file_system(Path("/home"), "") is None


def test_good_files_have_no_remedies() -> None:
    checks = judged({})
    assert set(checks) == {
        *("writable", "free space", "file system", "flush", "atomic rename", "exclusive lock"),
    }
    assert all(check.status == "ok" and not check.remedy for check in checks.values())


@pytest.mark.parametrize(
    ("name", "changes", "status", "part"),
    [
        ("free space", {"free bytes": 2**30 - 1}, "warning", "1.0 GiB"),
        ("free space", {"free bytes": 2**30}, "ok", "1.0 GiB"),
        ("flush", {"flush s": 0.25}, "warning", "250.0 ms"),
        ("flush", {"flush s": 0.2}, "ok", "200.0 ms"),
        ("flush", {"flush s": None, "flush s problem": "OSError: x"}, "missing", "OSError: x"),
        ("atomic rename", {"rename": False}, "missing", "does not work"),
        ("exclusive lock", {"lock": False}, "missing", "does not work"),
        ("exclusive lock", {"lock": None, "lock problem": "no locks"}, "missing", "no locks"),
        ("file system", {"file system": "nfs4"}, "warning", "nfs4"),
        ("file system", {"file system": "cifs"}, "warning", "cifs"),
        ("file system", {"file system": "fuse.sshfs"}, "warning", "fuse.sshfs"),
        ("file system", {"file system": "tmpfs"}, "warning", "tmpfs"),
        ("file system", {"file system": "xfs"}, "ok", "xfs"),
    ],
)
def test_limits(name: str, changes: dict[str, object], status: str, part: str) -> None:
    checks = judged(changes)
    assert checks[name].status == status
    assert part in checks[name].finding
    assert bool(checks[name].remedy) is (status != "ok")
    assert [other.name for other in checks.values() if other.status != "ok"] in ([], [name])


def test_a_directory_that_hangs_is_missing_and_named() -> None:
    report = ProbeReport({"directory": "/mnt/dead"}, "did not end within 11 s")
    (check,) = judge_files(report)
    assert check.status == "missing"
    assert check.finding == "trying /mnt/dead did not end within 11 s"
    assert check.remedy
