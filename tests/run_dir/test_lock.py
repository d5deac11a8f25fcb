"""One writer per run, proved with processes: refused by name, and free when the holder dies."""

import errno
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import psutil
import pytest

from mgrl_cli.errors import FileError, RunLockedError, StorageError
from mgrl_cli.run_dir import lock
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.lock import lock_holder, locked

HOLD = """
import multiprocessing, subprocess, sys, time
from pathlib import Path
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.lock import locked

if __name__ == "__main__":
    child_pid = 0
    with locked(RunDirectory(Path(sys.argv[1]))):
        if sys.argv[2] == "spawned":
            child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
            child.start()
            child_pid = child.pid
        elif sys.argv[2] == "given-all-files":
            sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
            child_pid = subprocess.Popen(sleep, close_fds=False).pid
        print(child_pid, flush=True)
        sys.stdin.read()
"""

TRY_AT_ONCE = """
import sys
from pathlib import Path
from mgrl_cli.errors import RunLockedError
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.lock import locked

print("ready", flush=True)
sys.stdin.readline()
try:
    with locked(RunDirectory(Path(sys.argv[1]))):
        print("got it", flush=True)
        sys.stdin.readline()
except RunLockedError:
    print("refused", flush=True)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    path = tmp_path / "demo"
    path.mkdir()
    return RunDirectory(path)


def start(script: str, run: RunDirectory, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(run.path), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextmanager
def held_elsewhere(
    run: RunDirectory, child: str = "none"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that holds the lock until its stdin closes, and its child's pid."""
    with start(HOLD, run, child) as process:
        try:
            yield process, answer(process)
        finally:
            process.kill()


def refuse(number: int) -> Callable[..., None]:
    def refusing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refusing


def names(run: RunDirectory) -> list[str]:
    return sorted(path.name for path in run.path.iterdir())


def test_a_second_process_is_refused_and_told_who_writes_and_what_to_do(run: RunDirectory) -> None:
    with held_elsewhere(run) as (holder, _):
        with pytest.raises(RunLockedError) as caught, locked(run):
            pass
        assert caught.value.exit_code == 3
        assert re.fullmatch(
            rf"run '{run.path}' is being written by pid {holder.pid} on host {socket.gethostname()}"
            r" since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC; wait for it, stop it with "
            rf"'kill {holder.pid}' there, or work on another run",
            str(caught.value),
        )
        # The holder has not noticed: it still holds, ends well and leaves an empty lock file.
        assert f"pid {holder.pid} " in str(lock_holder(run))
        holder.communicate("")
        assert holder.returncode == 0
    assert names(run) == [".lock"]
    assert run.lock.read_bytes() == b""
    with locked(run):
        pass


@pytest.mark.parametrize("kind", ["spawned", "given-all-files"])
def test_sigkill_frees_the_lock_while_a_child_of_the_holder_lives_on(
    run: RunDirectory, kind: str
) -> None:
    with held_elsewhere(run, kind) as (holder, child_pid):
        child = psutil.Process(int(child_pid))
        try:
            assert f"pid {holder.pid} " in str(lock_holder(run))
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            assert lock_holder(run) is None
            with locked(run):
                assert f"pid {os.getpid()} " in str(lock_holder(run))
            assert child.is_running()
        finally:
            child.kill()


def test_what_a_killed_holder_left_is_neither_believed_nor_removed_by_a_look(
    run: RunDirectory,
) -> None:
    run.lock.touch()
    stale = json.dumps({"pid": 77, "host": "gone", "since": "2020-01-01T00:00:00+00:00"})
    run.lock_holder.write_text(stale)
    assert lock_holder(run) is None
    assert run.lock_holder.read_text() == stale
    with locked(run):
        assert "pid 77" not in str(lock_holder(run))
    assert names(run) == [".lock"]


def test_of_processes_that_start_together_one_gets_the_lock(run: RunDirectory) -> None:
    processes = [start(TRY_AT_ONCE, run) for _ in range(3)]
    try:
        assert [answer(process) for process in processes] == ["ready"] * 3
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert sorted(answer(process) for process in processes) == ["got it", "refused", "refused"]
    finally:
        for process in processes:
            process.communicate("\n")


def test_a_process_cannot_lock_a_run_twice_but_again(run: RunDirectory) -> None:
    with locked(run):
        with pytest.raises(RunLockedError, match=f"pid {os.getpid()} "), locked(run):
            pass
        # The refused one has taken nothing away.
        with pytest.raises(RunLockedError, match=f"pid {os.getpid()} "), locked(run):
            pass
    with pytest.raises(ZeroDivisionError), locked(run):
        raise ZeroDivisionError
    with locked(run):
        pass
    assert lock_holder(run) is None


def test_two_runs_are_locked_side_by_side(run: RunDirectory, tmp_path: Path) -> None:
    other = RunDirectory(tmp_path / "other")
    other.path.mkdir()
    with locked(run), locked(other):
        assert lock_holder(run) is not None


def test_looking_at_a_run_creates_nothing(run: RunDirectory, tmp_path: Path) -> None:
    assert lock_holder(run) is None
    assert names(run) == []
    assert lock_holder(RunDirectory(tmp_path / "absent")) is None
    assert not (tmp_path / "absent").exists()


def test_a_look_does_not_stop_a_run_that_starts_meanwhile(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A look takes far less time than here.
    monkeypatch.setattr(lock, "_PATIENCE_S", 20 * lock._PATIENCE_S)
    run.lock.touch()
    looking = os.open(run.lock, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    timer = Timer(0.03, os.close, [looking])
    timer.start()
    with locked(run):
        pass
    timer.join()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"\xff", b"[]", b"[" * 5000, b"null"),
        *(b'{"pid": %s, "host": "x", "since": "2020-01-01T00:00:00Z"}' % pid for pid in
          (b"0", b"-1", b"true", b'"7"', b"1.5", b"1e3", b"99999999999999999999")),
        *(b'{"pid": 7, "host": %s, "since": "2020-01-01T00:00:00Z"}' % host for host in
          (b'""', b'"a b"', b'"\\u001b[2J"', b'"x\\n"', b"null", b'"%s"' % (b"x" * 256))),
        *(b'{"pid": 7, "host": "x", "since": %s}' % since for since in
          (b'"yesterday"', b'"2020-01-01T00:00:00"', b"null", b"1e300")),
        b'{"pid": 7, "host": "x"}',
        b'{"pid": 7, "host": "x", "since": "2020-01-01T00:00:00Z", "more": 1}',
        b" " * 5000 + b'{"pid": 7, "host": "x", "since": "2020-01-01T00:00:00Z"}',
    ],
)  # fmt: skip
def test_a_holder_that_does_not_make_sense_is_another_process(
    run: RunDirectory, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mgrl_cli.run_dir.lock._PATIENCE_S", 0.0)
    with locked(run):
        run.lock_holder.write_bytes(content)
        with pytest.raises(RunLockedError) as caught, locked(run):
            pass
        assert str(caught.value) == (
            f"run '{run.path}' is being written by another process; wait for it, stop it, or work "
            "on another run"
        )
        assert lock_holder(run) == "another process"


@pytest.mark.parametrize("kind", ["absent", "link", "pipe", "directory"])
def test_a_holder_file_of_another_kind_is_another_process(run: RunDirectory, kind: str) -> None:
    elsewhere = run.path / "elsewhere"
    with locked(run):
        run.lock_holder.rename(elsewhere)
        if kind == "link":
            run.lock_holder.symlink_to(elsewhere)
        elif kind == "pipe":
            os.mkfifo(run.lock_holder)
        elif kind == "directory":
            run.lock_holder.mkdir()
        assert lock_holder(run) == "another process"


def test_links_lead_nothing_out_of_the_run(run: RunDirectory, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    run.lock_holder.symlink_to(outside)
    with locked(run):
        assert not run.lock_holder.is_symlink()
    for target in (outside, tmp_path / "absent"):
        run.lock.unlink()
        run.lock.symlink_to(target)
        with pytest.raises(FileError, match="symbolic link"), locked(run):
            pass
        with pytest.raises(FileError, match="symbolic link"):
            lock_holder(run)
    assert outside.read_text() == "mine"
    assert not (tmp_path / "absent").exists()


def test_a_read_only_directory_is_a_storage_error(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", refuse(errno.EROFS))
    with pytest.raises(StorageError, match=f"cannot lock run '{run.path}': Read-only"), locked(run):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_a_storage_error(run: RunDirectory) -> None:
    run.path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="Permission denied"), locked(run):
            pass
    finally:
        run.path.chmod(0o700)


def test_a_file_system_without_locks_is_refused_and_not_worked_around(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOSYS))
    with pytest.raises(StorageError, match="file system has no locks; keep runs"), locked(run):
        pass
    assert not run.lock_holder.exists()


def test_a_lock_whose_holder_cannot_be_written_is_given_back(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "fsync", refuse(errno.ENOSPC))
        with pytest.raises(StorageError, match="free some space"), locked(run):
            pass
    assert names(run) == [".lock"]
    with locked(run):
        pass


def test_a_body_that_removes_the_run_is_no_error(run: RunDirectory) -> None:
    with locked(run):
        run.lock_holder.unlink()
        run.lock.unlink()
        run.path.rmdir()
    assert not run.path.exists()
