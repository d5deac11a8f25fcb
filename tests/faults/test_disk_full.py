"""Disks that are really full: the run says so in one line, and goes on once there is space."""

import subprocess
import sys
from pathlib import Path

import pytest

from mgrl_cli.cli import main
from mgrl_cli.inspection.verification import verify
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.settings import read_settings
from mgrl_cli.runtime.launch import claim_run
from tests.commands.tiny_runs import tiny
from tests.faults.small_disks import fill, size_on_disk_kib, small_disk
from tests.faults.tally import IS_CAMPAIGN, trial
from tests.runtime.conftest import fingerprint

DISK_KIB = 16 * 1024
TIMEOUT_S = 100.0
PLACES = (0.05, 0.3, 0.55, 0.75, 0.9) if IS_CAMPAIGN else (0.75,)
"""What there is room for, as a share of the whole run."""


def command(runs_dir: Path, *more: str) -> list[str]:
    settings = ("--set", "checkpoints.interval_s=0", "--set", "checkpoints.keep=2")
    return tiny(
        "meta-train", "--envs", "cartpole", "--agents", "2", "--run", "run", "--quiet",
        *settings, *more, runs_dir=runs_dir,
    )  # fmt: skip


def resume(run: RunDirectory) -> int:
    return main(["resume", str(run.path), "--workers", "0", "--quiet"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run that had all the space it wanted."""
    runs_dir = tmp_path_factory.mktemp("whole")
    assert main(command(runs_dir)) == 0
    return RunDirectory(runs_dir / "run")


def check_full_disk(whole: RunDirectory, runs_dir: Path, place: float, workers: int) -> None:
    """Let a process run out of space, make room, and continue its run."""
    room_kib = int(place * size_on_disk_kib(whole.path))
    with trial(f"6 disk full, {workers} workers"), small_disk(runs_dir, DISK_KIB) as disk:
        ballast = fill(disk, DISK_KIB - room_kib)
        done = subprocess.run(
            [sys.executable, "-m", "mgrl_cli", *command(disk, "--workers", str(workers))],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        run = RunDirectory(disk / "run")
        assert done.returncode == 7, done.stderr
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert str(run.path) in line
        assert "No space left on device" in line
        assert "mgrl resume" in line
        ballast.unlink()
        assert verify(run.path).problems == ()
        assert resume(run) == 0
        assert fingerprint(run) == fingerprint(whole)
        assert not list(run.checkpoints.glob(".staging-*"))
        assert not list(run.path.rglob("*.partial"))


@pytest.mark.parametrize("place", PLACES)
def test_a_full_disk_is_one_line_and_loses_nothing(
    whole: RunDirectory, tmp_path: Path, place: float
) -> None:
    check_full_disk(whole, tmp_path / "disk", place, workers=0)


@pytest.mark.skipif(not IS_CAMPAIGN, reason="the campaign tries it with processes too")
@pytest.mark.parametrize("place", [0.3, 0.75])
def test_a_full_disk_met_by_workers_is_one_line_and_loses_nothing(
    whole: RunDirectory, tmp_path: Path, place: float
) -> None:
    check_full_disk(whole, tmp_path / "disk", place, workers=2)


def test_no_space_for_event_files_is_one_line_and_loses_nothing(
    whole: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    run = claim_run(read_settings(whole), tmp_path, "run")
    with trial("6 no space for event files"):
        with small_disk(run.tensorboard, size_kib=4) as disk:
            fill(disk, size_kib=4)
            assert resume(run) == 7
            (line,) = capsys.readouterr().err.splitlines()
            assert f"cannot write '{run.tensorboard}': No space left on device" in line
            assert f"saved as round-000000, continue with: mgrl resume {run.path}" in line
        assert resume(run) == 0
        assert fingerprint(run) == fingerprint(whole)
