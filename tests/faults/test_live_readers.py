"""Looking at a run while it goes on: no error, nothing torn, nothing written by who looks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mgrl_cli.inspection.verification import verify
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.metrics import population_rows, read_agent_metrics
from mgrl_cli.run_dir.objectives import find_objective
from tests.commands.tiny_runs import Outcome, snapshot, tiny
from tests.faults.tally import trial, trials
from tests.runtime.conftest import run_tiny, tiny_config

LONG_ENOUGH_S = 60.0


@pytest.fixture
def live(tmp_path: Path) -> Iterator[RunDirectory]:
    """A run in another process, longer than any test, with a checkpoint at every round's end."""
    command = tiny("meta-train", "--envs", "pendulum,cartpole", runs_dir=tmp_path / "live")
    command += ["--agents", "2", "--steps", "1000000", "--run", "run", "--quiet"]
    command += ["--set", "checkpoints.interval_s=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mgrl_cli", *command], stderr=subprocess.PIPE, text=True
    )
    run = RunDirectory(tmp_path / "live" / "run")
    try:
        deadline_s = time.monotonic() + LONG_ENOUGH_S
        while not (run.population_metrics.is_file() and run.population_metrics.stat().st_size):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        yield run
        os.kill(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=LONG_ENOUGH_S)
        assert process.returncode == 130, stderr
        assert stderr.count("\n") == 1
    finally:
        process.kill()
        process.communicate()


def look(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> tuple[int, int, int]:
    """Read all there is to read; return how far the run has come: meta-steps, rows, rounds."""
    for path in (run.path, run.buffer, run.agent_buffer(0), run.objective):
        outcome = Outcome(capsys, ["inspect", str(path)])
        assert (outcome.exit_code, outcome.err) == (0, "")
        assert outcome.out
    objective = LearnedObjective.load(find_objective("run", run.path.parent))
    assert torch.isfinite(objective.params).all()
    assert verify(run.path).problems == ()
    reader = ReplayReader(run.agent_buffer(1))
    assert reader.verify() == []
    rows = population_rows(read_agent_metrics(run.metrics))
    return objective.metadata.meta_steps, reader.committed_rows, len(rows)


def test_a_run_can_be_read_while_it_goes_on(
    live: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = [(0, 0, 0)]
    for _ in range(trials(campaign=100, suite=5)):
        with trial("29 inspect and verify of a live run"):
            seen.append(look(live, capsys))
            assert all(now >= before for before, now in zip(*seen[-2:], strict=True))
    assert seen[-1] > seen[1], "the run stood still"
    for number in range(trials(campaign=10)):
        with trial("29 meta-test of a live run's objective"):
            outcome = Outcome(
                capsys,
                [
                    *tiny("meta-test", "--env", "pendulum", runs_dir=tmp_path / "tests"),
                    *("--objective", str(live.path), "--run", f"test-{number}"),
                    *("--steps", "60", "--seeds", "1", "--quiet"),
                ],
            )
            assert (outcome.exit_code, outcome.err) == (0, "")


def test_readers_leave_a_finished_run_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_tiny(tiny_config(steps=60), tmp_path, "run", workers=0)
    before = snapshot(run.path)
    with trial("29 readers write nothing"):
        look(run, capsys)
        assert snapshot(run.path) == before
