"""Proving a run: settings, checkpoints, metrics, objectives and replay, and that they fit together.

The run is judged by one checkpoint, the newest whose manifest is whole when the look begins, so a
run that goes on meanwhile gives no false alarm: what a checkpoint names stays as it is. What no
digest covers is not judged: logs, event files, figures, results, the replay's attributes but for
how many rows they claim.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mgrl_cli.config import RunConfig
from mgrl_cli.errors import FileError, StorageError, UsageError
from mgrl_cli.inspection.findings import Part
from mgrl_cli.inspection.verify_checkpoint import verify_checkpoint
from mgrl_cli.inspection.verify_metrics import verify_metrics
from mgrl_cli.inspection.verify_objectives import verify_objectives
from mgrl_cli.inspection.verify_replay import verify_replay
from mgrl_cli.inspection.verify_validations import verify_validations
from mgrl_cli.replay.digest import ReplayPosition
from mgrl_cli.replay.reader import agent_groups
from mgrl_cli.run_dir.checkpoints import checkpoint_paths, newest_manifest
from mgrl_cli.run_dir.file_record import record_of_file
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.lock import lock_holder
from mgrl_cli.run_dir.manifest import Manifest
from mgrl_cli.run_dir.settings import read_settings, settings_sha256

_LARGEST_SETTINGS_BYTES = 2**22


def verify_run(path: Path) -> Iterator[Part]:
    """Yield every part of a run directory.

    Raises:
        StorageError: the operating system refused to list a directory.
    """
    run = RunDirectory(path)
    # Before the checkpoints: a run makes its first one before its first row.
    has_rows = _has_rows(run)
    newest = newest_manifest(run)
    yield _verify_directory(run, newest, has_rows=has_rows)
    settings, config = _verify_settings(run, newest)
    yield settings
    for checkpoint in reversed(checkpoint_paths(run)):
        if (part := verify_checkpoint(checkpoint)) is not None:
            yield part
    yield verify_metrics(run, newest.metrics if newest is not None else {})
    yield verify_objectives(run, newest, config)
    if (part := verify_validations(run, newest, config, verify_run)) is not None:
        yield part
    if newest is not None or has_rows:
        yield from _verify_replays(run, newest)


def _has_rows(run: RunDirectory) -> bool:
    with suppress(FileNotFoundError):
        return any(file.stat().st_size for file in run.metrics.glob("*.jsonl"))
    return False


def _verify_directory(run: RunDirectory, newest: Manifest | None, *, has_rows: bool) -> Part:
    problems = [
        f"'{link}' is a symbolic link, expected none inside a run; put a copy of what it points to "
        "in its place"
        for link in _links(run.path)
    ]
    if newest is None and has_rows:
        problems.append(
            f"'{run.checkpoints}' holds no checkpoint to go by, but the run has metrics; restore "
            "its checkpoints from a copy"
        )
    if newest is not None and _has_lost(newest, run):
        best = run.checkpoints / newest.best
        problems.append(f"'{best}', the best checkpoint, is missing; restore it from a copy")
    return Part(
        name="directory",
        problems=tuple(problems),
        notes=tuple(_directory_notes(run, newest, has_rows=has_rows)),
    )


def _links(path: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a run drops directories as it goes on
            raise StorageError(f"cannot list '{error.filename}': {error.strerror}") from error

    for folder, folders, files in os.walk(path, onerror=refuse):
        for name in sorted((*folders, *files)):
            if (inner := Path(folder, name)).is_symlink():
                yield inner


def _has_lost(newest: Manifest, run: RunDirectory) -> bool:
    """Return whether the best checkpoint is gone, though no later one can have replaced it."""
    if not newest.best or os.path.lexists(run.checkpoints / newest.best):
        return False
    paths = checkpoint_paths(run)
    return bool(paths) and paths[-1].name == newest.name


def _directory_notes(
    run: RunDirectory, newest: Manifest | None, *, has_rows: bool
) -> Iterator[str]:
    holder = None
    with suppress(FileError):  # a link, which is a problem already
        try:
            holder = lock_holder(run)
        except StorageError as error:
            yield str(error)
    if holder is not None:
        yield f"the run is being written by {holder}"
    if newest is None and not has_rows:
        yield "no checkpoint has been made yet; a resume would begin at the beginning"
    for staging in sorted(run.checkpoints.glob(".staging-*")):
        state = "being written or removed" if holder is not None else "left by a crash, harmless"
        yield f"'{staging}' is no checkpoint: {state}"
    for damaged in sorted(run.checkpoints.glob(".damaged-*")):
        yield f"'{damaged}' is a damaged checkpoint that a resume put aside; remove it at will"


def _verify_settings(run: RunDirectory, newest: Manifest | None) -> tuple[Part, RunConfig | None]:
    try:
        record = record_of_file(run.config, _LARGEST_SETTINGS_BYTES)
        config = read_settings(run)
    except (FileError, StorageError) as error:
        return Part(name="settings", problems=(str(error),)), None
    except UsageError as error:  # not the user's own settings: mgrl wrote the file
        return Part(name="settings", problems=(f"{error}; restore it from a copy",)), None
    problems: tuple[str, ...] = ()
    if newest is not None and newest.settings_sha256 != settings_sha256(config):
        problems = (
            f"'{run.config}' is not what the run was started with: its settings do not match "
            f"{newest.name}; restore it from a copy",
        )
    elif newest is not None and newest.config != record:
        problems = (
            f"'{run.config}' is not the file that {newest.name} recorded, though it has the same "
            "settings; restore it from a copy (after a change of your own, resume the run)",
        )
    part = Part(name="settings", counts={"file": 1}, num_bytes=record.bytes, problems=problems)
    return part, config


def _verify_replays(run: RunDirectory, newest: Manifest | None) -> Iterator[Part]:
    """Yield the replay of every agent that the newest checkpoint names, or else of all."""
    try:
        groups = agent_groups(run.buffer)
    except (FileError, StorageError) as error:
        yield Part(name="replay", problems=(str(error),))
        return
    if newest is None:
        for group in groups:
            yield verify_replay(group, None)
        return
    for name, record in newest.replay.items():
        position = ReplayPosition(record.rows, record.episodes, record.sha256)
        yield verify_replay(run.buffer / name, position)
    others = tuple(
        f"'{group}' is named by no checkpoint and was not read"
        for group in groups
        if group.name not in newest.replay
    )
    if others:
        yield Part(name="other replay", notes=others)
