"""Real file systems of a few MiB, to run out of space on. Needs the right to mount; else skips."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

BLOCK_BYTES = 4096
"""A tmpfs gives out no less."""


@contextmanager
def small_disk(path: Path, size_kib: int) -> Generator[Path]:
    """Mount a tmpfs at `path`, created if need be, until the `with` ends."""
    path.mkdir(exist_ok=True)
    try:
        mount("-t", "tmpfs", "-o", f"size={size_kib}k", "none", str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting a tmpfs is not permitted here: {error}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def fill(disk: Path, size_kib: int) -> Path:
    """Take up space; return the file to delete when it is to be free again."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(size_kib * 1024))
    return ballast


def size_on_disk_kib(directory: Path) -> int:
    """Return what the files below a directory take of a tmpfs."""
    sizes = [path.stat().st_size for path in directory.rglob("*") if path.is_file()]
    return sum(-(-size // BLOCK_BYTES) for size in sizes) * BLOCK_BYTES // 1024
