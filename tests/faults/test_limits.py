"""Low limits: a run works under them, or is refused in one line that names the limit."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from mgrl_cli.cli import main
from mgrl_cli.run_dir.layout import RunDirectory
from tests.commands.tiny_runs import tiny
from tests.faults.small_disks import mount, small_disk
from tests.faults.tally import IS_CAMPAIGN, trial
from tests.runtime.conftest import fingerprint

TIMEOUT_S = 100.0
PLAIN_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""Paths and streams are ASCII."""
campaign_only = pytest.mark.skipif(not IS_CAMPAIGN, reason="takes a process; the campaign tries it")


def command(runs_dir: Path, workers: int = 0) -> list[str]:
    options = ("--envs", "cartpole", "--agents", "2", "--run", "run", "--quiet")
    return tiny("meta-train", *options, "--workers", str(workers), runs_dir=runs_dir)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run without limits."""
    runs_dir = tmp_path_factory.mktemp("whole")
    assert main(command(runs_dir)) == 0
    return RunDirectory(runs_dir / "run")


def start(
    runs_dir: Path,
    workers: int = 0,
    *,
    limit: Callable[[], object] | None = None,
    environment: Mapping[str, str] | None = None,
    prefix: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a process under a limit, to its end."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "mgrl_cli", *command(runs_dir, workers)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, **(environment or {})},
        preexec_fn=limit,
    )


def open_files(number: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


def check_refusal(done: subprocess.CompletedProcess[str], exit_code: int, *named: str) -> None:
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("mgrl: error: ")
    assert "internal" not in line
    for words in named:
        assert words in line


def check_success(
    done: subprocess.CompletedProcess[str], runs_dir: Path, whole: RunDirectory
) -> None:
    assert (done.returncode, done.stderr) == (0, "")
    assert fingerprint(RunDirectory(runs_dir / "run")) == fingerprint(whole)


# ---- limits that a run can live with


def test_few_open_files_and_a_plain_locale_are_enough(whole: RunDirectory, tmp_path: Path) -> None:
    with trial("33 64 open files, ASCII locale"):
        done = start(tmp_path, limit=partial(open_files, 64), environment=PLAIN_LOCALE)
        check_success(done, tmp_path, whole)


@campaign_only
def test_few_open_files_are_enough_for_two_workers(whole: RunDirectory, tmp_path: Path) -> None:
    with trial("33 64 open files, 2 workers"):
        done = start(tmp_path, workers=2, limit=partial(open_files, 64))
        check_success(done, tmp_path, whole)


def test_a_closed_umask_and_a_path_of_any_letters_are_no_hindrance(
    whole: RunDirectory, tmp_path: Path
) -> None:
    runs_dir = tmp_path / "Läufe, 第一 (neu)"
    previous = os.umask(0o077)
    try:
        with trial("33 umask 077, path with blanks and any letters"):
            assert main(command(runs_dir)) == 0
            run = RunDirectory(runs_dir / "run")
            assert main(["resume", str(run.path), "--quiet"]) == 0
            assert fingerprint(run) == fingerprint(whole)
    finally:
        os.umask(previous)
    assert all(path.stat().st_mode & 0o077 == 0 for path in run.path.rglob("*"))


# ---- limits that stop it


def test_a_read_only_runs_directory_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        trial("33 read-only runs directory"),
        small_disk(tmp_path / "disk", size_kib=64) as disk,
    ):
        mount("-o", "remount,ro", str(disk))
        assert main(command(disk)) == 7
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"mgrl: error: cannot create a run in '{disk}': Read-only file system"


def test_a_run_that_became_read_only_is_named(
    whole: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with trial("33 read-only run"), small_disk(tmp_path / "disk", size_kib=16384) as disk:
        shutil.copytree(whole.path, disk / "run")
        shutil.rmtree(disk / "run" / "checkpoints" / "round-000002")
        mount("-o", "remount,ro", str(disk))
        capsys.readouterr()
        assert main(["resume", str(disk / "run"), "--workers", "0", "--quiet"]) == 7
        (line,) = capsys.readouterr().err.splitlines()
        assert str(disk / "run") in line
        assert "Read-only file system" in line


@campaign_only
@pytest.mark.parametrize("number", [16, 18, 20, 24, 28])
def test_too_few_open_files_are_named(tmp_path: Path, number: int) -> None:
    with trial("33 16 to 28 open files, 2 workers"):
        done = start(tmp_path, workers=2, limit=partial(open_files, number))
        check_refusal(done, 7, "Too many open files")


@campaign_only
def test_a_path_that_the_locale_cannot_express_is_refused(tmp_path: Path) -> None:
    with trial("33 path beyond an ASCII locale"):
        done = start(tmp_path / "Läufe", environment=PLAIN_LOCALE)
        check_refusal(done, 2, "--runs-dir", "UTF-8")


@campaign_only
@pytest.mark.parametrize(("size", "works"), [("8m", True), ("256k", False)])
def test_a_small_shared_memory_is_enough_or_named(
    whole: RunDirectory, tmp_path: Path, size: str, works: bool
) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("a file system for one process alone needs unshare")
    script = f'mount -t tmpfs -o size={size} none /dev/shm && exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", script, "sh")
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    with trial(f"33 {size} of shared memory, 2 workers"):
        done = start(tmp_path, workers=2, prefix=prefix)
        if works:
            check_success(done, tmp_path, whole)
        else:
            check_refusal(done, 7, "/dev/shm", "No space left on device")


@campaign_only
@pytest.mark.parametrize("workers", [0, 2])
def test_a_limit_of_file_sizes_is_named(tmp_path: Path, workers: int) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    with trial("33 files of 20 kB at most"):
        done = start(tmp_path, workers, limit=limit)
        check_refusal(done, 7, str(tmp_path / "run"), "File too large")
