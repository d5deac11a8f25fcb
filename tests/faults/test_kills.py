"""Whole processes killed at any moment: nothing is lost, nobody is left behind, nobody intrudes."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import tomli_w

from mgrl_cli.cli import main
from mgrl_cli.run_dir.checkpoints import checkpoint_paths
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.lock import locked
from mgrl_cli.run_dir.manifest import position_of
from tests.faults.processes import (
    LONG_ENOUGH_S,
    assert_exact_and_clean,
    assert_soon_gone,
    finish,
    leaves_no_shared_memory,
    litter,
    rounds_in_metrics,
    running,
    stop,
    training,
    wait_until,
    workers_of,
)
from tests.faults.tally import IS_CAMPAIGN, trial, trials

LATEST_S = 8.0 if IS_CAMPAIGN else 4.0
"""Deaths come between 0.1 s after a start and then."""

Process = subprocess.Popen[str]


class Victim(NamedTuple):
    """A run and the process that is at work on it."""

    run: RunDirectory
    process: Process
    rng: random.Random

    @property
    def is_over(self) -> bool:
        return self.process.poll() is not None

    def kill_everyone(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)

    def wait(self, latest_s: float = LATEST_S) -> None:
        """Let it live for a random time, every other time after it has finished a round."""
        if self.rng.random() < 0.5:
            rounds = rounds_in_metrics(self.run)
            while not self.is_over and rounds_in_metrics(self.run) <= rounds:
                time.sleep(0.002)
            latest_s /= 4
        deadline_s = time.monotonic() + self.rng.uniform(0.1, latest_s)
        while not self.is_over and time.monotonic() < deadline_s:
            time.sleep(0.002)


def all_at_any_time(victim: Victim) -> None:
    victim.wait()
    victim.kill_everyone()


def all_in_a_save(victim: Victim) -> None:
    """When something new is being written, or a moment later."""
    victim.wait(LATEST_S / 2)
    known = set(litter(victim.run))
    deadline_s = time.monotonic() + LONG_ENOUGH_S
    while not victim.is_over and not set(litter(victim.run)) - known:
        assert time.monotonic() < deadline_s
    time.sleep(victim.rng.choice((0.0, 0.002, 0.01)))
    victim.kill_everyone()


def main_at_any_time(victim: Victim) -> None:
    victim.wait()
    victim.process.kill()


def main_while_workers_start(victim: Victim) -> None:
    while not victim.is_over and not workers_of(victim.process.pid):
        time.sleep(0.002)
    time.sleep(victim.rng.uniform(0.0, 0.5))
    victim.process.kill()


Death = Callable[[Victim], None]
ROWS: dict[Death, str] = {
    all_at_any_time: "01 all processes killed at any time",
    all_in_a_save: "02 all processes killed while something is written",
    main_at_any_time: "20 main process killed at any time",
    main_while_workers_start: "21 main process killed while workers start",
}


def lives() -> list[list[Death]]:
    """Who dies how, run by run. What the main process leaves behind alone is another test's."""
    if not IS_CAMPAIGN:
        return [[all_at_any_time, all_in_a_save]]
    everyone = [all_at_any_time] * 105 + [all_in_a_save] * 20
    main_alone = [main_at_any_time] * 30 + [main_while_workers_start] * 10
    runs: list[list[Death]] = []
    for deaths in (everyone, main_alone):
        random.Random(0).shuffle(deaths)
        runs += [deaths[i : i + 5] for i in range(0, len(deaths), 5)]
    return runs


@pytest.mark.parametrize("seed", range(len(lives())))
def test_a_run_killed_again_and_again_ends_with_the_same_bits(tmp_path: Path, seed: int) -> None:
    rng, names, run = random.Random(seed), count(), None
    with ExitStack() as stack:
        stack.enter_context(leaves_no_shared_memory())
        for death in lives()[seed]:
            stack.enter_context(trial(ROWS[death]))
            while True:  # until it is killed before it is finished
                if run is None:
                    run = RunDirectory(tmp_path / f"run-{next(names)}")
                    words = training(tmp_path, run.name)
                else:
                    words = ["resume", str(run.path)]
                if is_killed(death, run, words, rng):
                    break
                assert_exact_and_clean(run)
                run = None
            if not run.config.exists():
                run = None  # it was not even begun
                continue
            assert_little_is_lost(run)
            with locked(run):
                pass
        if run is not None:
            finish(run)
            assert_exact_and_clean(run)


def is_killed(death: Death, run: RunDirectory, words: list[str], rng: random.Random) -> bool:
    """Start a process and let it die; return False where it came to its end before."""
    with running(words) as process:
        death(Victim(run, process, rng))
        process.wait(LONG_ENOUGH_S)
        assert_soon_gone(process.pid)
        output = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), output
    return process.returncode != 0


def assert_little_is_lost(run: RunDirectory) -> None:
    """No more than one round was finished after the newest checkpoint: one is made at each end."""
    finished = rounds_in_metrics(run)
    positions = [position_of(path.name) for path in checkpoint_paths(run)]
    rounds, _ = positions[-1] or (0, 0) if positions else (0, 0)
    assert finished - rounds <= 1


def test_a_second_process_is_refused_and_the_first_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once: the first stands still meanwhile, so whoever waited for it would wait for ever."""
    refusals = trials(campaign=20)
    run = RunDirectory(tmp_path / "run")
    with trial("28 second process on a run", refusals):
        with running(training(tmp_path, run.name, "--workers", "0")) as process:
            wait_until(run.checkpoints.is_dir, process)
            stop(psutil.Process(process.pid))
            for _ in range(refusals):
                capsys.readouterr()
                assert main(["resume", str(run.path), "--quiet"]) == 3
                (line,) = capsys.readouterr().err.splitlines()
                assert f"pid {process.pid} on host {socket.gethostname()} " in line
            process.send_signal(signal.SIGCONT)
            _, errors = process.communicate(timeout=LONG_ENOUGH_S)
        assert process.returncode == 0, errors
        assert_exact_and_clean(run)


def test_workers_die_with_their_coordinator_even_if_their_environments_never_return(
    tmp_path: Path, faulty: str
) -> None:
    marker = tmp_path / "marker"
    arguments = {"fault": "hang", "marker": str(marker), "times": 2}
    envs = [{"id": faulty, "agents": 2, "kwargs": arguments}]
    (tmp_path / "envs.toml").write_bytes(tomli_w.dumps({"envs": envs}).encode())
    words = ["meta-train", "--preset", "smoke", "--config", str(tmp_path / "envs.toml")]
    words += ["--runs-dir", str(tmp_path), "--quiet"]
    with running(words) as process:
        wait_until(lambda: marker.is_file() and marker.stat().st_size == 2, process)
        workers = workers_of(process.pid)
        process.kill()
        process.wait(LONG_ENOUGH_S)
        assert len(workers) == 2
        assert_soon_gone(process.pid)
