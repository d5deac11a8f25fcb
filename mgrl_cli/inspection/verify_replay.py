"""Proving an agent's replay: every committed chunk, and with a checkpoint, every row before it."""

from collections.abc import Iterator
from pathlib import Path

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.inspection.findings import Part
from mgrl_cli.replay.digest import ReplayPosition
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.replay.schema import CHUNK_ROWS, FIELDS, Field


def verify_replay(path: Path, position: ReplayPosition | None) -> Part:
    """Read an agent's replay as far as it is committed, or as far as a checkpoint names it.

    Of rows beyond the checkpoint only that there are as many as the replay says.

    Args:
        path: the agent's group.
        position: what the checkpoint names; None: there is none, checksums must do.
    """
    name = f"replay of {path.name}"
    try:
        reader = ReplayReader(path, position)
        # A run that goes back to its checkpoint drops rows meanwhile: look twice before blaming it.
        found = reader.verify() + (_claim_problems(reader) and _claim_problems(reader))
    except (FileError, StorageError) as error:
        return Part(name=name, counts={"agent": 1}, problems=(str(error),))
    # Lines on numbers name array and row only.
    problems = [line if str(path) in line else f"{path}: {line}" for line in found]
    sizes = [_size_of(file) for file in _files(reader)]
    counts = {"step": reader.committed_rows, "episode": reader.committed_episodes}
    return Part(
        name=name,
        counts={**counts, "file": len(sizes), "agent": 1},
        num_bytes=sum(sizes),
        problems=tuple(problems),
        notes=tuple(_rows_beyond(reader)),
    )


def _claim_problems(reader: ReplayReader) -> list[str]:
    """Return the first chunk that is missing of rows claimed beyond those that `reader` reads."""
    try:
        claimed = ReplayReader(reader.path)
    except FileError as error:
        return [str(error)]
    for field in FIELDS.values():
        first_chunk = _count(reader, field) // CHUNK_ROWS
        for chunk in range(first_chunk, -(-_count(claimed, field) // CHUNK_ROWS)):
            if not (reader.path / field.chunk_path(chunk)).is_file():
                return [
                    f"{reader.path}: array '{field.path}' chunk {chunk} is missing, though "
                    f"{_count(claimed, field)} rows are said to be committed"
                ]
    return []


def _rows_beyond(reader: ReplayReader) -> Iterator[str]:
    committed = reader.attributes["committed_rows"]
    beyond = (committed if isinstance(committed, int) else 0) - reader.committed_rows
    if beyond:
        yield f"{reader.path}: {beyond} steps are newer than the checkpoint and were not read"


def _files(reader: ReplayReader) -> Iterator[Path]:
    """Yield every file that reading the committed rows takes."""
    yield reader.path / "zarr.json"
    yield reader.path / "episodes" / "zarr.json"
    for field in FIELDS.values():
        yield reader.path / field.path / "zarr.json"
        for chunk in range(-(-_count(reader, field) // CHUNK_ROWS)):
            yield reader.path / field.chunk_path(chunk)


def _count(reader: ReplayReader, field: Field) -> int:
    return reader.committed_episodes if field.per_episode else reader.committed_rows


def _size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # already named as a problem
        return 0
