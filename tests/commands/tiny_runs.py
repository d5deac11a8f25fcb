"""Runs from the command line that take a moment: shared by the tests of the training commands."""

import json
from pathlib import Path

import numpy as np
import pytest

from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.cli import main
from mgrl_cli.objective_file import LearnedObjective, ObjectiveMetadata

TINY = (
    "policy.hidden=8",
    "critic.hidden=8",
    "windows.batch=4",
    "schedule.round_steps=60",
    "schedule.updates_start=60",
    "exploration.random_steps=60",
    "meta.anneal_steps=120",
    "evaluation.interval=60",
    "evaluation.episodes=1",
)


def tiny(*arguments: str, runs_dir: Path) -> list[str]:
    """Return a whole command line: what keeps a run small, then these arguments, which win."""
    command, *given = arguments
    limits = ["--preset", "smoke", "--steps", "120", "--workers", "0", "--runs-dir", str(runs_dir)]
    settings = [word for setting in TINY for word in ("--set", setting)]
    return [command, *limits, *settings, *given]


def objective_file(path: Path) -> Path:
    """Write a fresh objective whose windows have 7 steps."""
    metadata = ObjectiveMetadata(
        window_steps=7,
        window_batch=4,
        inner_step="unit",
        inner_step_size=0.03,
        environments=("pendulum",),
        steps_per_agent=0,
        agents=0,
        meta_steps=0,
        seed=0,
        packages={},
    )
    params = ObjectiveNetwork(metadata.shape).initialise(np.random.default_rng(0))
    LearnedObjective(params, metadata).save(path)
    return path


class Outcome:
    """Exit code and streams of one command, run in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
        capsys.readouterr()
        self.exit_code = main(argv)
        self.out, self.err = capsys.readouterr()

    @property
    def refusal(self) -> str:
        """The one line on stderr of a command that printed nothing else."""
        assert self.out == ""
        (line,) = self.err.splitlines()
        assert line.startswith("mgrl: error: ")
        assert len(line) < 600
        return line.removeprefix("mgrl: error: ")


def snapshot(directory: Path) -> dict[str, tuple[int, int]]:
    """Everything below a directory, with sizes and times of change."""
    return {
        str(path.relative_to(directory)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
    }


def json_lines(text: str) -> list[dict[str, object]]:
    """Parse a stream that must hold JSON lines and nothing else."""
    return [json.loads(line) for line in text.splitlines()]
