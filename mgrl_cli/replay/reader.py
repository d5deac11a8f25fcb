"""Reading an agent's replay, also a stranger's, also while a run writes it.

Opens read-only and believes nothing: layout, sizes and every chunk are checked before they are
used, and memory follows what is on disk, never what a header claims. Must not know about writing.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from mgrl_cli.errors import FileError, StorageError, UsageError
from mgrl_cli.replay.chunks import ZARR_ERRORS, plain_size, read_chunk
from mgrl_cli.replay.digest import ReplayPosition
from mgrl_cli.replay.schema import (
    CHUNK_ROWS,
    EPISODE_FIELDS,
    FIELDS,
    FORMAT,
    FORMAT_VERSION,
    MAX_NUMBERS,
    MAX_ROWS,
    STEP_FIELDS,
    Episode,
    Field,
)
from mgrl_cli.replay.verification import find_problems

_MAX_METADATA_BYTES = 2**20


class EpisodeTable(NamedTuple):
    """One row per committed episode, oldest first."""

    start: NDArray[np.int64]
    """Row of the first step."""
    length: NDArray[np.int64]
    """Steps."""
    episode_return: NDArray[np.float64]
    """Sum of rewards."""
    seed: NDArray[np.int64]
    life: NDArray[np.int64]


class ReplayReader:
    """What was committed when the reader was made; make a new one to see later commits."""

    def __init__(self, path: Path, position: ReplayPosition | None = None) -> None:
        """Open read-only and check the layout; reads no data.

        Args:
            path: the group of one agent.
            position: what a checkpoint names; nothing after it is read then.

        Raises:
            FileError: missing, not a replay, of an unknown version, damaged, or shorter than
                `position`.
            StorageError: the operating system refused.
        """
        self.path = path
        # Attributes before arrays: a writer enlarges the arrays first.
        group = _open_group(path)
        self.attributes: Mapping[str, object] = MappingProxyType(dict(group.attrs))
        self._check_format()
        self.obs_size = self._count("obs_size", 1, MAX_NUMBERS)
        self.act_size = self._count("act_size", 1, MAX_NUMBERS)
        self.committed_rows = self._count("committed_rows", 0, MAX_ROWS)
        self.committed_episodes = self._count("committed_episodes", 0, MAX_ROWS)
        self._position = position
        if position is not None:
            self._end_at(position)
        _open_group(path / "episodes")
        self._last_chunk: dict[str, tuple[int, NDArray[Any]]] = {}
        self._arrays = {name: self._open_array(group, field) for name, field in FIELDS.items()}

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows [start, stop) of an array of `schema.FIELDS`, as a copy.

        Rows are steps or, for the fields of the `episodes` subgroup, episodes.

        Raises:
            UsageError: unknown field, or rows that are not committed.
            FileError: a chunk is missing or damaged.
            StorageError: the operating system refused.
        """
        if name not in FIELDS:
            raise UsageError(
                f"Unknown replay field '{name}', expected one of: {', '.join(FIELDS)}."
            )
        field = FIELDS[name]
        if not 0 <= start <= stop <= self._committed(field):
            raise UsageError(
                f"Rows [{start}, {stop}) of '{name}' are not all committed, "
                f"expected rows within [0, {self._committed(field)})."
            )
        if start == stop:
            return np.empty((0, *field.row_shape(self.obs_size, self.act_size)), field.dtype)
        # A list of chunks really read, never an allocation of a size only claimed.
        pieces: list[NDArray[Any]] = []
        for chunk in range(start // CHUNK_ROWS, -(-stop // CHUNK_ROWS)):
            first_row = chunk * CHUNK_ROWS
            rows = slice(max(start - first_row, 0), stop - first_row)
            pieces.append(self._chunk(field, chunk)[rows])
        return np.concatenate(pieces)

    def episodes(self) -> EpisodeTable:
        """Return the table of all committed episodes.

        Raises:
            FileError: a chunk is missing or damaged.
            StorageError: the operating system refused.
        """
        names = (field.name for field in EPISODE_FIELDS if field.width == "one")
        return EpisodeTable(*(self.read(name, 0, self.committed_episodes) for name in names))

    def read_episode(self, index: int) -> Episode:
        """Return episode number `index`, 0 being the oldest, as it was appended.

        Fast in ascending order: the chunk last read of each array is kept in memory.

        Raises:
            UsageError: no such committed episode.
            FileError: the data are damaged.
            StorageError: the operating system refused.
        """
        row = {field.name: self.read(field.name, index, index + 1)[0] for field in EPISODE_FIELDS}
        start, stop = int(row["start"]), int(row["start"]) + int(row["length"])
        if not 0 <= start < stop <= self.committed_rows:
            raise FileError(
                f"{self.path}: episode {index} claims rows [{start}, {stop}) of "
                f"{self.committed_rows}; the replay is damaged."
            )
        steps = {field.name: self.read(field.name, start, stop) for field in STEP_FIELDS}
        steps["obs"] = np.concatenate((steps["obs"], row["final_obs"][None]))
        return Episode(**steps, seed=int(row["seed"]), life=int(row["life"]))

    def verify(self) -> list[str]:
        """Read everything committed and return what is wrong, a line each; empty if whole.

        Finds missing and damaged chunks, what `verification` knows to be impossible, and, with a
        position, rows that are not those it records. Stops after 100 problems.
        """
        self._last_chunk.clear()
        return find_problems(self, None if self._position is None else self._position.sha256)

    def _committed(self, field: Field) -> int:
        return self.committed_episodes if field.per_episode else self.committed_rows

    def _check_format(self) -> None:
        if self.attributes.get("format") != FORMAT:
            raise FileError(
                f"{self.path} is a Zarr group but no mgrl replay; name an agent's group."
            )
        version = self.attributes.get("format_version")
        if version != FORMAT_VERSION:
            raise FileError(
                f"{self.path} has replay format version {version!r:.40}, "
                f"expected {FORMAT_VERSION}; read it with the mgrl that wrote it."
            )

    def _count(self, name: str, minimum: int, maximum: int) -> int:
        value = self.attributes.get(name)
        if type(value) is not int or not minimum <= value <= maximum:
            raise FileError(
                f"{self.path}: attribute '{name}' is {value!r:.40}, expected a whole number from "
                f"{minimum} to {maximum}; the replay is damaged."
            )
        return value

    def _end_at(self, position: ReplayPosition) -> None:
        rows, episodes = position.rows, position.episodes
        if not (0 <= rows <= self.committed_rows and 0 <= episodes <= self.committed_episodes):
            raise FileError(
                f"{self.path} holds {self.committed_rows} steps in {self.committed_episodes} "
                f"episodes, the checkpoint names {rows} in {episodes}; resume from a checkpoint "
                "of this run."
            )
        self.committed_rows, self.committed_episodes = rows, episodes

    def _open_array(self, group: zarr.Group, field: Field) -> zarr.Array[Any]:
        metadata = self.path / field.path / "zarr.json"
        _check_metadata(self.path, f"{field.path}/zarr.json")
        row_shape = field.row_shape(self.obs_size, self.act_size)
        try:
            array = group[field.path]
            is_ours = field.is_described_by(array.metadata.to_dict(), row_shape)
        except ZARR_ERRORS as error:
            raise FileError(f"{metadata} is damaged; restore the replay from a copy.") from error
        except OSError as error:
            raise StorageError(f"{metadata} cannot be read: {error.strerror}.") from error
        if not isinstance(array, zarr.Array) or not is_ours:
            raise FileError(
                f"{metadata} does not describe {field.dtype} rows of shape {list(row_shape)} in "
                f"chunks of {CHUNK_ROWS} with a CRC-32C; the replay is damaged."
            )
        if not self._committed(field) <= array.shape[0] <= MAX_ROWS:
            raise FileError(
                f"{metadata} has {array.shape[0]} rows, {self._committed(field)} are committed; "
                "the replay is damaged."
            )
        return array

    def _chunk(self, field: Field, chunk: int) -> NDArray[Any]:
        """Return the committed rows of one chunk."""
        cached = self._last_chunk.get(field.name)
        if cached is None or cached[0] != chunk:
            array, stop = self._arrays[field.name], self._committed(field)
            cached = chunk, read_chunk(self.path, field, array, chunk, stop)
            self._last_chunk[field.name] = cached
        return cached[1]


def agent_groups(path: Path) -> list[Path]:
    """Return the groups of all agents in a whole `buffer.zarr`, in agent order.

    Raises:
        FileError: missing, or not a Zarr group.
        StorageError: the operating system refused.
    """
    _open_group(path)
    agents = [group for group in path.glob("agent-*") if group.is_dir()]
    return sorted(agents, key=lambda group: (len(group.name), group.name))


def _open_group(path: Path) -> zarr.Group:
    _check_metadata(path, "zarr.json")
    try:
        return zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
    except ZARR_ERRORS as error:
        raise FileError(f"{path} is no Zarr v3 group, or a damaged one.") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error


def _check_metadata(group: Path, inner: str) -> None:
    file = group / inner
    try:
        size = plain_size(group, inner)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileError(f"{file} is missing; expected a replay written by mgrl.") from error
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}.") from error
    if size > _MAX_METADATA_BYTES:
        raise FileError(f"{file} has {size} bytes, expected at most {_MAX_METADATA_BYTES}.")
