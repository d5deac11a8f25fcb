"""A file is the old one or the new one, whatever happens while it is written."""

import errno
import itertools
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from mgrl_cli.errors import StorageError
from mgrl_cli.run_dir.atomic import create_directory, explain_os_error, write_atomically
from tests.faults.io_faults import count_operations, crash_at, fail_at
from tests.faults.power_loss import power_loss


def refuse(number: int):
    def refusing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refusing


def test_content_is_written_and_replaced_with_nothing_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "file"
    for content in (b"first", b"", b"second \x00\xff"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failure_before_the_rename_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", refuse(number))
    with pytest.raises(StorageError, match=os.strerror(number)) as caught:
        write_atomically(path, b"new")
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert isinstance(caught.value.__cause__, OSError)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_rename_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(Path, "replace", refuse(errno.EROFS))
    with pytest.raises(StorageError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_first_write_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", refuse(errno.ENOSPC))
    with pytest.raises(StorageError):
        write_atomically(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_in_the_middle_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_data_reach_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    flushed: list[tuple[str, bool]] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        flushed.append(("directory" if is_directory else "file", path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_atomically(path, b"new")
    assert flushed == [("file", False), ("directory", True)]


def test_a_directory_in_the_place_of_the_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        write_atomically(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_in_the_place_of_the_directory_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_atomically(tmp_path / "file" / "below", b"new")


# ---- into directories that are not there yet


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def state(root: Path) -> bytes | None:
    """What the file holds; None: it is not there. Nothing else is, save directories."""
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    assert files.keys() <= {"new/deep/file"}
    return files["new/deep/file"].read_bytes() if files else None


def test_each_new_directory_is_flushed_into_the_one_above(root: Path) -> None:
    with count_operations(root) as operations:
        create_directory(root / "new" / "deep")
        create_directory(root / "new" / "deep")  # nothing to do
        create_directory(root / "new" / "other")
    assert operations == [
        *("mkdir new", "fsync .", "mkdir new/deep", "fsync new", "mkdir new/other", "fsync new"),
    ]


def test_a_relative_directory_is_created(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    create_directory(Path())
    create_directory(Path("new/../new/deep"))
    assert (root / "new" / "deep").is_dir()


def test_a_directory_that_another_process_creates_meanwhile_is_no_failure(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = Path.mkdir

    def too_late(path: Path, **options: bool) -> None:
        mkdir(path)
        mkdir(path, **options)

    monkeypatch.setattr(Path, "mkdir", too_late)
    write_atomically(root / "new" / "deep" / "file", b"new")
    assert state(root) == b"new"


def test_a_file_in_a_new_directory_survives_every_power_loss(
    root: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    with power_loss(root) as journal:
        write_atomically(root / "new" / "deep" / "file", b"new")
    for number in range(20):
        cut = tmp_path / f"cut-{number}"
        journal.cut(cut, rng if number else None)
        assert state(cut) == b"new"


def test_a_power_loss_while_writing_into_a_new_directory_leaves_all_or_nothing(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for n in itertools.count(1):
        root = tmp_path / str(n)
        root.mkdir()
        with power_loss(root, stop_at=n) as journal:
            write_atomically(root / "new" / "deep" / "file", b"new")
        for number in range(3):
            cut = tmp_path / f"cut-{n}-{number}"
            journal.cut(cut, rng if number else None)
            for partial in cut.rglob(".file.*.partial"):
                partial.unlink()
            # Two directories take two operations each; the ninth makes the name durable.
            assert state(cut) in ((None,) if n <= 8 else (None, b"new") if n == 9 else (b"new",))
            write_atomically(cut / "new" / "deep" / "file", b"newer")
            assert state(cut) == b"newer"
        if not journal.fired:
            assert n == 10
            break


def test_a_crash_while_writing_into_a_new_directory_leaves_all_or_nothing(tmp_path: Path) -> None:
    for n in range(1, 11):
        root = tmp_path / str(n)
        root.mkdir()
        with crash_at(root, n) as crash:
            write_atomically(root / "new" / "deep" / "file", b"new")
        assert crash.fired == (n < 10)
        for partial in root.rglob(".file.*.partial"):
            partial.unlink()
        assert state(root) == (None if n <= 8 else b"new")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
def test_a_failure_while_writing_into_a_new_directory_is_told(
    tmp_path: Path, number: int, sticky: bool
) -> None:
    for n in range(1, 10):
        root = tmp_path / str(n)
        root.mkdir()
        with (
            fail_at(root, n, number, sticky=sticky),
            pytest.raises(StorageError, match=rf"cannot write '.*file': {os.strerror(number)}"),
        ):
            write_atomically(root / "new" / "deep" / "file", b"new")
        for partial in root.rglob(".file.*.partial"):
            assert sticky  # or it could have been removed
            partial.unlink()
        assert state(root) == (None if n <= 8 else b"new")
        write_atomically(root / "new" / "deep" / "file", b"newer")
        assert state(root) == b"newer"


def test_an_explanation_says_what_to_do_only_where_space_is_the_reason() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert explain_os_error(full, "write 'a'") == (
        "cannot write 'a': No space left on device; free some space and try again"
    )
    assert explain_os_error(OSError(errno.EIO, "I/O error"), "read 'a'") == (
        "cannot read 'a': I/O error"
    )
    assert explain_os_error(OSError("odd"), "read 'a'") == "cannot read 'a': odd"
