"""The checkpoints of a run at a glance, and in what state they show the run to be."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mgrl_cli.config import RunConfig
from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.run_dir.checkpoints import checkpoint_paths, load_checkpoint
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.lock import lock_holder
from mgrl_cli.run_dir.manifest import Manifest
from mgrl_cli.run_dir.validations import early_end

State = Literal["finished", "running", "interrupted", "not begun"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointLine:
    """One checkpoint of a run."""

    name: str
    rounds: int
    updates: int
    age_rounds: int
    """Rounds that every agent has recorded since."""
    elapsed_s: float
    is_best: bool
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Keeping:
    """What of a run is safe."""

    state: State
    holder: str
    """Who writes the run; "": nobody."""
    early_end: str
    """Why it ended before its last round; "": it did not."""
    checkpoints: tuple[CheckpointLine, ...]
    """The whole ones, oldest first."""
    quarantined: Mapping[str, str]
    """Agents out of the population by the newest checkpoint, and why."""
    problems: tuple[str, ...]
    """Damaged checkpoints, one line each."""


def inspect_checkpoints(run: RunDirectory, config: RunConfig, rounds_done: int) -> Keeping:
    """Read and compare every checkpoint of a run.

    Args:
        run: whose.
        config: its settings.
        rounds_done: rounds recorded, for the age of checkpoints.

    Raises:
        FileError: the lock file is a symbolic link.
        StorageError: the operating system refused to list them, or to tell who writes the run.
    """
    # Before the checkpoints: who ends meanwhile has made the last of them.
    holder = lock_holder(run)
    manifests: list[Manifest] = []
    problems: list[str] = []
    for path in checkpoint_paths(run):
        try:
            manifests.append(load_checkpoint(path).manifest)
        except (FileError, StorageError) as error:
            if os.path.lexists(path):  # or else the run has dropped it meanwhile
                problems.append(str(error))
    newest = manifests[-1] if manifests else None
    best = newest.best if newest is not None else ""
    return Keeping(
        state=state_of(newest, config, holder),
        holder=holder or "",
        early_end=early_end(newest, config) if newest is not None else "",
        checkpoints=tuple(_line(manifest, rounds_done, best) for manifest in manifests),
        quarantined=newest.quarantined if newest is not None else {},
        problems=tuple(problems),
    )


def state_of(newest: Manifest | None, config: RunConfig, holder: str | None) -> State:
    """Return the state of a run.

    Args:
        newest: manifest of its newest checkpoint; None: there is none.
        config: its settings.
        holder: who writes it; None: nobody.
    """
    if holder is not None:
        return "running"
    if newest is None:
        return "not begun"
    return "finished" if newest.is_final(config) else "interrupted"


def _line(manifest: Manifest, rounds_done: int, best: str) -> CheckpointLine:
    return CheckpointLine(
        name=manifest.name,
        rounds=manifest.rounds,
        updates=manifest.updates,
        age_rounds=max(0, rounds_done - manifest.rounds),
        elapsed_s=manifest.elapsed_s,
        is_best=manifest.name == best,
        size_bytes=sum(record.bytes for record in manifest.files.values()),
    )
