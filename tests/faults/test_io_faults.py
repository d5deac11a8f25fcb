import builtins
import errno
import io
import itertools
import os
import shutil
import tempfile
import threading
from pathlib import Path

import filelock
import numpy as np
import pytest
import zarr

from tests.faults.io_faults import SimulatedCrash, count_operations, crash_at, fail_at
from tests.faults.power_loss import power_loss


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "run"
    root.mkdir()
    return root


def content(folder):
    """Every file below a folder, by its name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


# ---- which operations count


def test_every_change_counts_in_order_and_nothing_else_does(root, tmp_path):
    with count_operations(root) as operations:
        (root / "a" / "b").mkdir(parents=True)
        (root / "a").mkdir(exist_ok=True)
        with (root / "a" / "x").open("wb") as file:
            file.write(b"one")
            file.write(b"two")  # still in Python's buffer
            file.flush()
            os.fsync(file.fileno())
            file.write(b"three")
        (root / "a" / "x").read_bytes()
        (root / "a" / "x").replace(root / "y")
        with (root / "y").open("r+b") as file:
            file.truncate(2)
        sync(root)
        (root / "absent").unlink(missing_ok=True)
        (tmp_path / "elsewhere").write_text("not below the root")
        (root / "y").rename(tmp_path / "gone")
    assert operations == [
        *("mkdir a", "mkdir a/b", "create a/x", "write a/x", "fsync a/x", "write a/x"),
        *("rename y", "open y", "truncate y", "fsync .", "rename y"),
    ]
    assert (tmp_path / "gone").read_bytes() == b"on"


def through_descriptors(root):
    folder = os.open(root, os.O_RDONLY)
    file = os.open("x", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
    os.write(file, b"abc")
    os.ftruncate(file, 1)
    os.close(file)
    os.truncate(root / "x", 0)
    os.link(root / "x", root / "y")
    os.remove(root / "x")  # noqa: PTH107 - this spelling too
    os.close(folder)


def through_rmtree(root):
    (root / "a").mkdir()
    (root / "a" / "x").touch()
    shutil.rmtree(root / "a")


def through_tempfile(root):
    with tempfile.NamedTemporaryFile("w", dir=root, prefix="x", delete=False) as file:
        file.write("abc")
    Path(file.name).rename(root / "x")


def through_text(root):
    with open(root / "x", "w", encoding="utf-8", buffering=1) as file:  # noqa: PTH123 - built-in
        file.write("α\n")
        file.write("β\n")
    with (root / "x").open("a") as file:
        file.write("c")
    assert (root / "x").read_text() == "α\nβ\nc"


def through_filelock(root):
    with filelock.FileLock(root / "x"):
        pass


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (through_descriptors, "create x, write x, truncate x, truncate x, link y, unlink x"),
        (through_rmtree, "mkdir a, create a/x, unlink a/x, rmdir a"),
        (through_text, "create x, write x, write x, open x, write x"),
    ],
)
def test_every_route_into_the_system_counts(root, program, expected):
    with count_operations(root) as operations:
        program(root)
    assert ", ".join(operations) == expected


@pytest.mark.parametrize("program", [through_tempfile, through_filelock])
def test_routes_with_names_of_their_own_count(root, program):
    with count_operations(root) as operations:
        program(root)
    assert operations[0].startswith("create ")
    assert content(root).keys() <= {"x"}


def test_what_zarr_writes_in_its_own_threads_counts(root):
    with count_operations(root) as operations:
        array = zarr.create_array(root / "z", shape=(4,), chunks=(1,), dtype="int64")
        array[:] = np.arange(1, 5)
    kinds = [operation.split()[0] for operation in operations]
    assert kinds.count("create") == kinds.count("rename") == 5  # zarr.json and four chunks
    assert sorted(operation for operation in operations if operation.startswith("rename")) == [
        *(f"rename z/c/{chunk}" for chunk in range(4)),
        "rename z/zarr.json",
    ]


def test_everything_is_restored(root):
    functions = (os.open, os.write, os.fsync, os.replace, io.open, builtins.open)
    with pytest.raises(OSError, match="Input/output"), fail_at(root, 1, errno.EIO, sticky=True):
        (root / "x").touch()
    assert (os.open, os.write, os.fsync, os.replace, io.open, builtins.open) == functions


# ---- how operations fail


def test_a_crash_tears_the_write_and_leaves_the_dead_no_way_to_the_disk(root):
    with crash_at(root, 2) as crash:
        try:
            (root / "x").write_bytes(b"12345678")
        finally:
            with pytest.raises(SimulatedCrash):
                (root / "x").unlink()
            seen = []

            def another_thread():
                try:
                    (root / "y").touch()
                except SimulatedCrash as error:
                    seen.append(error)

            thread = threading.Thread(target=another_thread)
            thread.start()
            thread.join()
            assert len(seen) == 1
    assert crash.fired
    assert crash.operations == ["create x", "write x", "unlink x", "create y"]
    assert content(root) == {"x": b"1234"}


def test_what_is_still_buffered_at_a_crash_never_arrives(root):
    with crash_at(root, 3) as crash:
        file = (root / "x").open("wb", buffering=1000)
        file.write(b"lost")
        (root / "y").mkdir()
        (root / "z").mkdir()
    assert crash.fired
    with pytest.raises(SimulatedCrash):
        file.close()  # after the `with`, as the garbage collector may do it
    assert content(root) == {"x": b""}


def test_a_crash_beyond_the_end_does_not_fire(root):
    with crash_at(root, 3) as crash:
        (root / "x").write_bytes(b"12345678")
    assert not crash.fired
    assert content(root) == {"x": b"12345678"}


def test_one_failure_is_over_after_one_operation(root):
    with fail_at(root, 2, errno.EIO) as failure:
        descriptor = os.open(root / "x", os.O_WRONLY | os.O_CREAT)
        with pytest.raises(OSError, match=r"Input/output error.*/run/x"):
            os.write(descriptor, b"12345678")
        assert content(root) == {"x": b"1234"}
        os.write(descriptor, b"abc")
        os.close(descriptor)
    assert failure.fired
    assert content(root) == {"x": b"abc4"}


def test_a_full_disk_stays_full_but_lets_go(root):
    (root / "old").touch()
    with fail_at(root, 2, errno.ENOSPC, sticky=True):
        (root / "x").touch()
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                (root / "y").touch()
        (root / "old").unlink()
    assert content(root).keys() == {"x"}
    with fail_at(root, 1, errno.EIO, sticky=True), pytest.raises(OSError, match="Input/output"):
        (root / "x").unlink()


# ---- what a power loss leaves


def test_only_what_was_synced_survives_the_worst_case(root, tmp_path):
    (root / "old").write_bytes(b"old")
    (root / "deleted").write_bytes(b"deleted")
    with power_loss(root) as journal:
        for name in ("whole", "nameless", "empty"):
            with (root / name).open("wb") as file:
                file.write(name.encode())
                if name != "empty":
                    file.flush()
                    os.fsync(file.fileno())
            if name == "whole":
                sync(root)
        (root / "empty").rename(root / "whole")  # neither content nor name is synced
        (root / "old").write_bytes(b"new")
        (root / "deleted").unlink()
        (root / "unnamed").mkdir()
        (root / "unnamed" / "x").touch()
        sync(root / "unnamed")
        journal.cut(tmp_path / "first")
        sync(root)
    journal.cut(tmp_path / "second")
    assert content(tmp_path / "first") == {"old": b"old", "deleted": b"deleted", "whole": b"whole"}
    assert content(tmp_path / "second") == {
        "old": b"old",
        "whole": b"",
        "nameless": b"nameless",
        "unnamed/x": b"",
    }


def test_what_was_not_synced_may_survive_in_every_mixture(root, tmp_path, rng):
    (root / "log").write_bytes(b"ab")
    with power_loss(root) as journal:
        with (root / "log").open("ab") as file:
            file.write(b"cdef")
        (root / "new").write_bytes(b"1234")
    seen = set()
    for number in range(100):
        journal.cut(tmp_path / str(number), rng)
        files = content(tmp_path / str(number))
        seen.add((files["log"], files.get("new")))
    logs, news = (b"ab", b"abcd", b"abcdef"), (None, b"", b"12", b"1234")
    assert seen == set(itertools.product(logs, news))


def test_a_new_file_on_a_used_inode_does_not_inherit_its_content(root, tmp_path):
    (root / "x").write_bytes(b"old")
    with power_loss(root) as journal:
        (root / "x").unlink()
        for number in range(20):  # one of them gets the inode
            (root / f"new-{number}").write_bytes(b"new")
        sync(root)
    journal.cut(tmp_path / "cut")
    assert set(content(tmp_path / "cut").values()) == {b""}


def test_a_cut_can_be_made_at_any_operation(root, tmp_path):
    with power_loss(root, stop_at=2) as journal:
        (root / "x").write_bytes(b"12345678")
    assert journal.fired
    assert content(root) == {"x": b"1234"}
    journal.cut(tmp_path / "cut")
    assert content(tmp_path / "cut") == {}
