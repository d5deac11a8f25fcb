"""Proving a checkpoint: every byte against its manifest, and that its files make sense."""

import os
from collections.abc import Iterator
from pathlib import Path

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.inspection.findings import Part
from mgrl_cli.inspection.saved_parts import LARGEST_PART_BYTES, read_part
from mgrl_cli.run_dir.checkpoints import load_checkpoint
from mgrl_cli.run_dir.manifest import Manifest


def verify_checkpoint(path: Path) -> Part | None:
    """Read a checkpoint whole; return None where its run dropped it meanwhile.

    Args:
        path: a checkpoint's directory, by the name the checkpoint was given.
    """
    name = f"checkpoint {path.name}"
    try:
        manifest = load_checkpoint(path).manifest
        notes = tuple(_look_into_files(path, manifest))
    except (FileError, StorageError) as error:
        # A run drops a checkpoint by renaming it whole, so it is there or it is not.
        if not os.path.lexists(path):
            return None
        return Part(name=name, counts={"checkpoint": 1}, problems=(str(error),))
    sizes = [len(manifest.to_bytes()), *(record.bytes for record in manifest.files.values())]
    return Part(
        name=name,
        counts={"checkpoint": 1, "file": len(sizes)},
        num_bytes=sum(sizes),
        notes=notes,
    )


def _look_into_files(path: Path, manifest: Manifest) -> Iterator[str]:
    """Read what is in every file, and yield which ones are too large for that.

    Raises:
        FileError: a file does not hold what it should.
        StorageError: the operating system refused.
    """
    for name, record in manifest.files.items():
        if record.bytes > LARGEST_PART_BYTES:
            yield f"'{path / name}' is too large to be looked into; its SHA-256 is right"
        else:
            read_part(path / name)
