"""Putting the files of a replay on disk in place of whatever stands there.

Each file is replaced in one step, but nothing is synced, and an interruption leaves some of them
replaced: the caller can do all of it again. Links are never followed below an agent's group. Must
not know where contents come from.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

_UNFINISHED = "new.partial"
"""Where a file of the group is written before it gets its name; one name, so one is left at most.

Zarr's own unfinished files end alike."""


def place(group: Path, files: Mapping[str, bytes], parent_metadata: bytes) -> None:
    """Write files below the group of an agent, and the `zarr.json` of the group around it.

    Args:
        group: created if absent, with the folders above it.
        files: path below the group → content, in the order in which they are replaced.
        parent_metadata: content of the file above the group.

    Raises:
        OSError: no space, or the operating system refused.
    """
    group.mkdir(parents=True, exist_ok=True)
    sweep_unfinished(group)
    _replace(group, group.parent / "zarr.json", parent_metadata)
    for inner, content in files.items():
        for folder in [*reversed((group / inner).relative_to(group).parents)][1:]:
            _ensure_folder(group / folder)
        _replace(group, group / inner, content)


def sweep_unfinished(folder: Path) -> None:
    """Remove what a crash left of files that were being written below a folder.

    Raises:
        OSError: the operating system refused.
    """
    for unfinished in [*folder.rglob("*.partial")]:
        _remove(unfinished)


def sweep_chunks(array: Path, num_chunks: int) -> None:
    """Remove the chunks of an array from number `num_chunks` on.

    Raises:
        OSError: the operating system refused.
    """
    folder = array / "c"
    if folder.is_symlink():
        folder.unlink()
    for chunk in folder.iterdir() if folder.is_dir() else ():
        if chunk.name.isdecimal() and int(chunk.name) >= num_chunks:
            _remove(chunk)


def _ensure_folder(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
        folder.mkdir()


def _replace(group: Path, file: Path, content: bytes) -> None:
    unfinished = group / _UNFINISHED
    with unfinished.open("xb") as out:  # never through a link
        out.write(content)
    if file.is_dir():
        _remove(file)
    unfinished.replace(file)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)  # it may have gone with its folder
