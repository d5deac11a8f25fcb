"""One tiny run as a crash leaves it: what all tests of damaged and hostile files begin with.

The copy is taken inside the last round, when its rows are written but not yet in a checkpoint. So
there are several checkpoints, full replay chunks, and something beyond the newest commit.
"""

import shutil
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from mgrl_cli.run_dir.checkpoints import checkpoint_paths
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.runtime.launch import claim_run, meta_train
from mgrl_cli.telemetry import RunSnapshot
from tests.runtime.conftest import Remembering, fingerprint, tiny_config

SETTINGS = (
    "schedule.round_steps=700",
    "schedule.updates_start=4210",
    "schedule.policy_interval=10",
    "exploration.random_steps=4000",
    "evaluation.interval=700",
    "checkpoints.interval_s=0.0",
    "checkpoints.keep=3",
)
"""Six rounds make 4,200 steps, more than a full chunk; only the short last one learns."""
STEPS = 4240
KEPT = ["round-000004", "round-000005", "round-000006"]


class CrashedRun(NamedTuple):
    """A stopped run, never to be changed itself, and what it must become."""

    path: Path
    undisturbed: dict[str, object]
    """Fingerprint of the same run when nothing stops it."""

    def copy(self, path: Path) -> RunDirectory:
        """Return a copy that may be damaged."""
        shutil.copytree(self.path, path)
        return RunDirectory(path)


class _Copying(Remembering):
    """Copies the run at the end of its last round, before that is saved."""

    def __init__(self, run: RunDirectory, to: Path) -> None:
        super().__init__()
        self._run, self._to = run, to

    def update(self, snapshot: RunSnapshot) -> None:
        if snapshot.round_index == snapshot.num_rounds and not self._to.exists():
            shutil.copytree(self._run.path, self._to)


def contents(directory: Path) -> dict[str, bytes | None]:
    """Return everything below a directory but its lock file; None: not a file."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
        if path.name != ".lock"
    }


def crashed_run(factory: pytest.TempPathFactory) -> CrashedRun:
    """Make the run, once per session."""
    return _crashed_run(factory.getbasetemp() / "crashed")


@cache
def _crashed_run(directory: Path) -> CrashedRun:
    config = tiny_config(steps=STEPS, assignments=SETTINGS)
    run = claim_run(config, directory, "undisturbed")
    meta_train(config, run, _Copying(run, directory / "crashed"), workers=0)
    crashed = RunDirectory(directory / "crashed")
    assert [path.name for path in checkpoint_paths(crashed)][-3:] == KEPT
    return CrashedRun(crashed.path, fingerprint(run))
