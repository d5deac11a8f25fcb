"""Metrics grow by whole rows, know what they hold, and go back to what a checkpoint recorded."""

import errno
import hashlib
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.run_dir.file_record import FileRecord
from mgrl_cli.run_dir.metrics import read_agent_metrics
from mgrl_cli.run_dir.metrics_file import MetricsFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent-000.jsonl"


def test_rows_are_appended_as_lines_in_order(path: Path) -> None:
    rows = [{"round": 1, "name": "ä\n\x1b"}, {"round": 2, "loss": 0.1 + 0.2, "flag": True}]
    metrics = MetricsFile(path)
    for row in rows:
        metrics.append(row)
    assert path.read_bytes().count(b"\n") == 2
    assert read_agent_metrics(path.parent) == rows


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_becomes_null(path: Path, value: float) -> None:
    MetricsFile(path).append({"gain": value, "loss": 1.5})
    assert path.read_text() == '{"gain": null, "loss": 1.5}\n'


def test_the_record_is_that_of_the_file_at_any_time(path: Path) -> None:
    metrics = MetricsFile(path)
    assert metrics.record == FileRecord(bytes=0, sha256=hashlib.sha256(b"").hexdigest())
    for index in range(3):
        metrics.append({"round": index})
        content = path.read_bytes()
        assert metrics.record.bytes == len(content) == 13 * (index + 1)  # {"round": 0} and newline
        assert metrics.record.sha256 == hashlib.sha256(content).hexdigest()


def test_an_empty_file_is_taken_over_and_any_other_left_alone(path: Path) -> None:
    path.touch()
    MetricsFile(path)
    path.write_text("mine")
    with pytest.raises(FileError, match="holds 4 bytes, expected none"):
        MetricsFile(path)
    assert path.read_text() == "mine"


def test_a_file_that_cannot_be_created_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot create .*: " + os.strerror(errno.EISDIR)):
        MetricsFile(tmp_path)
    with pytest.raises(StorageError, match="absent"):
        MetricsFile(tmp_path / "absent" / "agent-000.jsonl")


def test_cutting_back_drops_what_came_after_the_record_and_goes_on(path: Path) -> None:
    first, later, other = {"round": 1}, {"round": 2}, {"round": 3}
    metrics = MetricsFile(path)
    metrics.append(first)
    record = metrics.record
    metrics.append(later)
    with path.open("ab") as file:
        file.write(b'{"round": 3, "tor')
    again = MetricsFile.cut_back(path, record)
    assert again.record == record
    assert path.read_bytes() == b'{"round": 1}\n'
    again.append(other)
    assert read_agent_metrics(path.parent) == [first, other]
    assert again.record == FileRecord.of(path.read_bytes())


def test_cutting_back_to_nothing_is_a_new_beginning(path: Path) -> None:
    nothing = MetricsFile(path).record
    path.write_bytes(b'{"torn')
    MetricsFile.cut_back(path, nothing).append({"round": 1})
    assert path.read_bytes() == b'{"round": 1}\n'


def test_a_cut_back_file_is_as_one_that_was_never_interrupted(path: Path, tmp_path: Path) -> None:
    whole, parts = MetricsFile(tmp_path / "whole"), MetricsFile(path)
    for index in range(6):
        whole.append({"round": index})
        parts.append({"round": index})
        if index % 2:
            record = parts.record
            parts.append({"round": "lost"})
            parts = MetricsFile.cut_back(path, record)
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()
    assert parts.record == whole.record


@pytest.mark.parametrize(
    "content",
    [b"", b'{"round": 1}', b'{"round": 2}\n', b'{"round": 2}\n{"round": 1}\n', None],
    ids=["empty", "shorter", "changed", "changed and longer", "missing"],
)
def test_a_file_that_is_not_the_recorded_one_is_refused_and_left_alone(
    path: Path, content: bytes | None
) -> None:
    record = FileRecord.of(b'{"round": 1}\n')
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileError, match="is not what the checkpoint recorded") as caught:
        MetricsFile.cut_back(path, record)
    assert str(path) in str(caught.value)
    assert "restore it from a copy" in str(caught.value)
    assert (path.read_bytes() if path.exists() else None) == content


def test_a_record_that_claims_more_than_any_file_holds_is_refused_unread(path: Path) -> None:
    path.write_bytes(b"x")
    with pytest.raises(FileError, match="is not what the checkpoint recorded"):
        MetricsFile.cut_back(path, FileRecord(bytes=10**30, sha256="0" * 64))


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_only_a_regular_file_is_cut_back(path: Path, tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(FileError, match="is not what the checkpoint recorded"):
        MetricsFile.cut_back(path, FileRecord.of(b""))
    assert outside.read_bytes() == b"mine"


def test_a_torn_row_does_not_merge_with_the_next(path: Path) -> None:
    """As when the write was interrupted and even the cut after it was refused."""
    metrics = MetricsFile(path)
    metrics.append({"round": 1})
    with path.open("ab") as file:
        file.write(b'{"round": 2, "loss": 0.')
    metrics.append({"round": 3})
    assert read_agent_metrics(path.parent) == [{"round": 1}, {"round": 3}]
    assert metrics.record == FileRecord.of(path.read_bytes())


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from mgrl_cli.errors import StorageError
from mgrl_cli.run_dir.metrics_file import MetricsFile

path = Path(sys.argv[1])
metrics = MetricsFile(path)
metrics.append({"round": 1})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))
try:
    metrics.append({"round": 2})
except StorageError as error:
    print(error)
print(path.stat().st_size, metrics.record.bytes)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
metrics.append({"round": 3})
"""
"""The system takes 20 bytes: the first row of 13 and a part of the second."""


def test_a_row_the_system_takes_only_in_part_is_taken_back(path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.stderr == ""
    message, sizes = done.stdout.splitlines()
    assert message == f"cannot append to '{path}': {os.strerror(errno.EFBIG)}"
    assert sizes == "13 13"
    assert read_agent_metrics(path.parent) == [{"round": 1}, {"round": 3}]


def test_a_failed_append_is_reported_even_if_it_cannot_be_undone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    metrics = MetricsFile(path)
    metrics.append({"round": 1})
    record = metrics.record
    with monkeypatch.context() as full_disk:
        full_disk.setattr(Path, "open", refuse)
        full_disk.setattr(os, "truncate", refuse)
        with pytest.raises(StorageError, match=r"cannot append to .*free some space"):
            metrics.append({"round": 2})
    assert metrics.record == record
    metrics.append({"round": 3})
    assert read_agent_metrics(path.parent) == [{"round": 1}, {"round": 3}]


def test_a_file_that_somebody_cut_or_removed_is_noticed(path: Path) -> None:
    metrics = MetricsFile(path)
    metrics.append({"round": 1})
    path.write_bytes(b"{")
    with pytest.raises(FileError, match="became shorter than the 13 bytes written"):
        metrics.append({"round": 2})
    assert path.read_bytes() == b"{"
    path.unlink()
    with pytest.raises(StorageError, match="cannot append"):
        metrics.append({"round": 2})
    assert not path.exists()


def test_syncing_flushes_the_file_and_its_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[os.stat_result] = []
    metrics = MetricsFile(path)
    metrics.append({"round": 1})
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor)))
    metrics.sync()
    inodes = [(status.st_ino, stat.S_ISDIR(status.st_mode)) for status in flushed]
    assert inodes == [(path.stat().st_ino, False), (path.parent.stat().st_ino, True)]
    path.unlink()
    with pytest.raises(StorageError, match="cannot write"):
        metrics.sync()


def test_no_file_stays_open(path: Path) -> None:
    def open_files() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    before = open_files()
    metrics = MetricsFile(path)
    metrics.append({"round": 1})
    metrics.sync()
    MetricsFile.cut_back(path, metrics.record)
    assert open_files() == before
