"""Signals and sudden deaths of real processes: clean ends, no orphans."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.run_dir.layout import RunDirectory
from tests.runtime.conftest import TINY

LONG_ENOUGH_S = 60.0


def start_process(
    tmp_path: Path, hang_up: signal.Handlers = signal.SIG_DFL
) -> subprocess.Popen[str]:
    """Start a run that would take far longer than the test.

    Whether a hang-up is ignored is inherited: the tests themselves may run under nohup.
    """
    arguments = [sys.executable, "-m", "mgrl_cli", "meta-train", "--envs", "pendulum,cartpole"]
    arguments += ["--preset", "smoke", "--steps", "1000000", "--runs-dir", str(tmp_path)]
    arguments += ["--run", "run", "--quiet"]
    for setting in TINY:
        arguments += ["--set", setting]
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, hang_up),
    )


def start_run(
    tmp_path: Path, hang_up: signal.Handlers = signal.SIG_DFL
) -> tuple[subprocess.Popen[str], RunDirectory]:
    """Start a run and wait for its second round."""
    process = start_process(tmp_path, hang_up)
    run = RunDirectory(tmp_path / "run")
    deadline = time.monotonic() + LONG_ENOUGH_S
    while not (run.population_metrics.is_file() and run.population_metrics.stat().st_size):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, run


def wait_until_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_first_signal_saves_and_ends_with_its_exit_code(
    tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    process, run = start_run(tmp_path)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)  # as a terminal does: to the whole group
    _, stderr = process.communicate(timeout=LONG_ENOUGH_S)
    assert process.returncode == exit_code
    assert stderr.count("\n") == 1
    assert number.name in stderr
    wait_until_gone(workers)
    LearnedObjective.load(run.objective)
    assert ReplayReader(run.agent_buffer(0)).verify() == []
    assert not list(run.path.rglob("*.partial"))


def test_a_run_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    process, _ = start_run(tmp_path, hang_up=signal.SIG_IGN)
    os.killpg(process.pid, signal.SIGHUP)
    os.killpg(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=LONG_ENOUGH_S)
    assert process.returncode == 143
    assert "SIGTERM" in stderr


def worker_processes(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_a_signal_while_workers_still_import_reaches_only_the_coordinator(tmp_path: Path) -> None:
    process = start_process(tmp_path)
    deadline = time.monotonic() + LONG_ENOUGH_S
    while len(workers := worker_processes(process)) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=LONG_ENOUGH_S)
    assert process.returncode == 130
    assert stderr.count("\n") == 1
    wait_until_gone(workers)


def test_workers_die_with_a_killed_coordinator(tmp_path: Path) -> None:
    process, _ = start_run(tmp_path)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.kill()
    process.communicate(timeout=LONG_ENOUGH_S)
    wait_until_gone(workers)


def test_killed_worker_ends_the_run_with_one_line(tmp_path: Path) -> None:
    process, run = start_run(tmp_path)
    workers = worker_processes(process)
    workers[0].kill()
    _, stderr = process.communicate(timeout=LONG_ENOUGH_S)
    assert process.returncode == 5
    assert stderr.count("\n") == 1
    assert "was killed by SIGKILL" in stderr
    wait_until_gone(workers)
    LearnedObjective.load(run.objective)
