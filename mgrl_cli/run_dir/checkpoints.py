"""A run's checkpoints on disk: staged, committed by one rename, verified, rotated.

A checkpoint is complete or it is not there. Its files are written into a staging directory whose
name no reader looks for, flushed to disk, and renamed. Must not know what the files mean.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.run_dir.atomic import (
    create_directory,
    explain_os_error,
    sync_directory,
    write_synced,
)
from mgrl_cli.run_dir.file_record import FileRecord, record_of_file
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.manifest import (
    MANIFEST_NAME,
    Manifest,
    Position,
    position_of,
    read_manifest,
)

_STAGING = ".staging-"
"""Beginning of the name of what is being written or removed."""
_DAMAGED = ".damaged-"
"""Beginning of the name of a checkpoint that was passed over; kept for whoever wants to look."""


@final
@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose every byte has been verified."""

    path: Path
    manifest: Manifest


@final
class CheckpointStore:
    """The checkpoints of one run. One process at a time may change them: see `lock`."""

    def __init__(self, run: RunDirectory, *, keep: int) -> None:
        """Open the store; nothing is read yet.

        Args:
            run: whose.
            keep: newest checkpoints that are kept.
        """
        self._run = run
        self._keep = keep

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest whole checkpoint (None: there is none at all) and what was passed over.

        Reads only, and may be called while another process commits.

        Raises:
            FileError: there are checkpoints, but all are damaged.
            StorageError: the operating system refused. It may be another matter than damage, so
                nothing is passed over.
        """
        while True:
            problems: list[str] = []
            for path in reversed(checkpoint_paths(self._run)):
                try:
                    return load_checkpoint(path), problems
                except FileError as error:
                    if not os.path.lexists(path):  # dropped meanwhile: there are newer ones
                        break
                    problems.append(str(error))
            else:
                break
        if problems:
            raise FileError(
                f"no checkpoint of '{self._run.path}' is whole; restore one from a copy. "
                f"The newest: {problems[0]}"
            )
        return None, []

    def stage(self) -> Path:
        """Return a new staging directory.

        Raises:
            StorageError: the operating system refused.
        """
        staging = self._run.checkpoints / f"{_STAGING}{uuid.uuid4().hex}"
        with _storage_errors(f"create '{staging}'"):
            create_directory(self._run.checkpoints)
            staging.mkdir()
        return staging

    def commit(self, staging: Path, manifest: Manifest) -> Checkpoint:
        """Make what is in a staging directory a checkpoint, then drop those no longer kept.

        Args:
            staging: holds every file the manifest names, each written by `write_part`.
            manifest: of these files.

        Raises:
            FileError: the staging directory does not hold what the manifest says.
            StorageError: the operating system refused; earlier checkpoints are untouched.
        """
        path = self._run.checkpoints / manifest.name
        with _storage_errors(f"write checkpoint '{path}'"):
            write_synced(staging / MANIFEST_NAME, manifest.to_bytes())
            # What could not be read again must not take the place of what can.
            _check_names(staging, read_manifest(staging / MANIFEST_NAME))
            sync_directory(staging)
            staging.rename(path)
            sync_directory(self._run.checkpoints)
            sync_directory(self._run.path)
        self._drop_old(manifest)
        return Checkpoint(path, manifest)

    def sweep(self) -> None:
        """Remove what a crash left, and put aside damaged checkpoints newer than the newest whole.

        Call it only where the run is locked and `newest` has found something, or found nothing.

        Raises:
            FileError: all checkpoints are damaged.
            StorageError: the operating system refused.
        """
        newest, _ = self.newest()
        with _storage_errors(f"tidy '{self._run.checkpoints}'"):
            for path in checkpoint_paths(self._run):
                if newest is not None and _position(path) > newest.manifest.position:
                    path.rename(path.with_name(f"{_DAMAGED}{path.name}-{uuid.uuid4().hex[:8]}"))
            self._remove_staging()

    def _drop_old(self, newest: Manifest) -> None:
        older = [path for path in checkpoint_paths(self._run) if _position(path) < newest.position]
        dropped = [
            path
            for path in older[: max(0, len(older) + 1 - self._keep)]
            if path.name != newest.best
        ]
        with _storage_errors(f"drop old checkpoints from '{self._run.checkpoints}'"):
            # Renamed first, and for good: half of a checkpoint must never bear a checkpoint's name.
            for path in dropped:
                path.rename(path.with_name(f"{_STAGING}{uuid.uuid4().hex}"))
            if dropped:
                sync_directory(self._run.checkpoints)
            self._remove_staging()

    def _remove_staging(self) -> None:
        for path in _entries(self._run.checkpoints):
            if not path.name.startswith(_STAGING):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:  # somebody put it there
                path.unlink()


def checkpoint_paths(run: RunDirectory) -> list[Path]:
    """Return all that is named like a checkpoint, oldest first.

    Raises:
        StorageError: the operating system refused.
    """
    return sorted(
        (path for path in _entries(run.checkpoints) if position_of(path.name)), key=_position
    )


def _entries(directory: Path) -> list[Path]:
    # Not `glob`, to which a directory that may not be read is an empty one.
    try:
        return list(directory.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(explain_os_error(error, f"read '{directory}'")) from error


def _position(path: Path) -> Position:
    position = position_of(path.name)
    if position is None:
        raise FileError(f"'{path}' is not named like a checkpoint")
    return position


def load_checkpoint(path: Path) -> Checkpoint:
    """Return a checkpoint after reading and comparing every byte of it.

    Raises:
        FileError: something is missing, too much or differs from the manifest.
        StorageError: the operating system refused.
    """
    manifest = read_manifest(path / MANIFEST_NAME)
    if manifest.name != path.name:
        raise FileError(f"'{path}' is the checkpoint {manifest.name}; give it back its name")
    _check_names(path, manifest)
    for name, expected in manifest.files.items():
        if record_of_file(path / name, limit_bytes=expected.bytes) != expected:
            raise FileError(f"'{path / name}' is damaged: it does not match its SHA-256")
    return Checkpoint(path, manifest)


def _check_names(directory: Path, manifest: Manifest) -> None:
    found = {path.name for path in _entries(directory)}
    expected = {MANIFEST_NAME, *manifest.files}
    if found - expected:
        raise FileError(
            f"'{directory}' holds {min(found - expected)!a:.80}, which is no part of the checkpoint"
        )
    if expected - found:
        raise FileError(f"'{directory / min(expected - found)}' is missing; restore it from a copy")


def write_part(staging: Path, name: str, content: bytes) -> FileRecord:
    """Write one file of a checkpoint to be, down to the disk, and return its record.

    Raises:
        StorageError: the operating system refused.
    """
    with _storage_errors(f"write '{staging / name}'"):
        write_synced(staging / name, content)
    return FileRecord.of(content)


def newest_manifest(
    run: RunDirectory, is_wanted: Callable[[Manifest], bool] = lambda _: True
) -> Manifest | None:
    """Return the newest such manifest that is whole (None: there is none).

    The files it names are not looked at: its checkpoint may be damaged.

    Args:
        run: whose.
        is_wanted: what it must be like.

    Raises:
        StorageError: the operating system refused to list the checkpoints.
    """
    while True:
        paths = checkpoint_paths(run)
        for path in reversed(paths):
            with suppress(FileError, StorageError):
                manifest = read_manifest(path / MANIFEST_NAME)
                if is_wanted(manifest):
                    return manifest
        if all(os.path.lexists(path) for path in paths):
            return None
        # The run dropped what was listed, so it has made others.


def best_of(manifest: Manifest, run: RunDirectory, incumbent: str) -> str:
    """Return the name of the better one: of the checkpoint to come or of the best so far.

    Args:
        manifest: of the checkpoint to come; its own `best` is not read.
        run: whose.
        incumbent: name of the best so far; empty: none yet.
    """
    try:
        best = read_manifest(run.checkpoints / incumbent / MANIFEST_NAME)
    except FileError:  # none yet, or somebody removed it
        return manifest.name
    return manifest.name if manifest.is_better_than(best) else incumbent


@contextmanager
def _storage_errors(action: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(explain_os_error(error, action)) from error
