"""The one writer of an agent's replay on disk: an append-only Zarr v3 group.

Zarr replaces one file atomically, never several. So nothing counts until `committed_rows` and
`committed_episodes` are set, together and last: whatever a crash leaves beyond them is overwritten
by the next commit. Must not know what is sampled, or when a round ends.
"""

import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.errors
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from mgrl_cli.errors import FileError, StorageError, UsageError
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.replay.schema import (
    CHUNK_ROWS,
    FIELDS,
    FORMAT,
    FORMAT_VERSION,
    Episode,
    Field,
    check_episode,
)

# Zarr leaves out chunks that hold only the fill value, unless told otherwise at every opening.
# Here a chunk that is not there is damage.
_WRITE_ALL_CHUNKS = {"array.write_empty_chunks": True}


class ReplayLog:
    """Appends whole episodes of one agent. Make one with `create` or `reopen`, one per group.

    The rows of the last, unfilled chunk and all uncommitted ones are kept in memory.
    """

    def __init__(self, path: Path, reader: ReplayReader, rows: int, episodes: int) -> None:
        """Use `create` or `reopen` instead."""
        self._path = path
        self._sizes = (reader.obs_size, reader.act_size)
        self._committed_rows, self._num_rows = rows, rows
        self._committed_episodes, self._num_episodes = episodes, episodes
        self._blocks: dict[str, list[NDArray[Any]]] = {}
        """Rows per array since the start of its last committed chunk."""
        for field in FIELDS.values():
            count = self._committed(field)
            self._blocks[field.name] = [
                reader.read(field.name, count // CHUNK_ROWS * CHUNK_ROWS, count)
            ]
        # All metadata at first: another writer may have made it without a sync.
        self._unsynced = {path.parent / "zarr.json", path / "zarr.json"}
        self._unsynced |= {path / "episodes" / "zarr.json"}
        self._unsynced |= {path / field.path / "zarr.json" for field in FIELDS.values()}
        with zarr.config.set(_WRITE_ALL_CHUNKS):
            self._group = zarr.open_group(path, mode="r+", zarr_format=3, use_consolidated=False)
            self._arrays = {
                field.name: zarr.open_array(path / field.path, mode="r+", zarr_format=3)
                for field in FIELDS.values()
            }

    @classmethod
    def create(
        cls, path: Path, *, obs_size: int, act_size: int, attributes: Mapping[str, object]
    ) -> "ReplayLog":
        """Create the group of an agent, `.../buffer.zarr/agent-000`, and its parent if absent.

        Several workers may create their agents in one parent at the same time.

        Args:
            path: the agent's group; appears only when it is complete.
            obs_size: numbers in an observation.
            act_size: numbers in an action.
            attributes: JSON values to keep with the data: environment id and kwargs, package
                versions, action bounds.

        Raises:
            UsageError: `path` exists, a size below 1, or an attribute the format itself needs.
            StorageError: the operating system refused.
        """
        own: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "obs_size": obs_size,
            "act_size": act_size,
            "committed_rows": 0,
            "committed_episodes": 0,
        }
        if min(obs_size, act_size) < 1:
            raise UsageError(f"A replay needs sizes of at least 1, got {obs_size}, {act_size}.")
        if clash := sorted(own.keys() & attributes.keys()):
            raise UsageError(f"The replay sets '{clash[0]}' itself; rename the attribute.")
        if os.path.lexists(path):
            raise UsageError(f"{path} exists and is never overwritten; choose another run name.")
        with _storage_errors(path):
            _ensure_group(path.parent)
            # The name is fixed, so that the next attempt sweeps what a killed one left.
            unfinished = path.with_name(f".{path.name}.partial")
            shutil.rmtree(unfinished, ignore_errors=True)
            _create_arrays(unfinished, obs_size, act_size, {**attributes, **own})
            unfinished.rename(path)
            return cls(path, ReplayReader(path), 0, 0)

    @classmethod
    def reopen(cls, path: Path, *, committed_rows: int, committed_episodes: int) -> "ReplayLog":
        """Continue a log from what a checkpoint names, dropping anything committed after it.

        Args:
            path: the agent's group.
            committed_rows: steps the checkpoint names.
            committed_episodes: episodes the checkpoint names.

        Raises:
            FileError: not a whole replay, or it holds less than the checkpoint names.
            StorageError: the operating system refused.
        """
        with _storage_errors(path):
            reader = ReplayReader(path)
            _check_prefix(reader, committed_rows, committed_episodes)
            log = cls(path, reader, committed_rows, committed_episodes)
            log._set_committed()
            return log

    @property
    def committed_rows(self) -> int:
        """Steps a reader sees."""
        return self._committed_rows

    @property
    def committed_episodes(self) -> int:
        """Episodes a reader sees."""
        return self._committed_episodes

    def append(self, episode: Episode) -> None:
        """Copy `episode`, to be written at the next commit.

        Raises:
            UsageError: not storable (see `schema.check_episode`).
        """
        check_episode(episode, *self._sizes)
        length = len(episode.reward)
        row = {
            "start": self._num_rows,
            "length": length,
            "return": episode.reward.sum(dtype=np.float64),
            "seed": episode.seed,
            "life": episode.life,
            "final_obs": episode.obs[-1],
        }
        for field in FIELDS.values():
            values = [row[field.name]] if field.per_episode else getattr(episode, field.name)
            rows = np.array(values, field.dtype)  # a copy: callers may reuse their arrays
            self._blocks[field.name].append(rows[:1] if field.per_episode else rows[:length])
        self._num_rows += length
        self._num_episodes += 1

    def commit(self) -> None:
        """Write what was appended and make it visible to readers, all of it or nothing.

        After a `StorageError` nothing is lost: a later commit writes the same rows again.

        Raises:
            StorageError: no space left, or the operating system refused.
        """
        if self._num_rows == self._committed_rows:
            return
        with _storage_errors(self._path):
            for field in FIELDS.values():
                self._write(field)
            before = self._committed_rows, self._committed_episodes
            self._committed_rows, self._committed_episodes = self._num_rows, self._num_episodes
            try:
                self._set_committed()
            except OSError:
                self._committed_rows, self._committed_episodes = before
                raise
        for field in FIELDS.values():
            tail = self._committed(field) % CHUNK_ROWS
            block = self._blocks[field.name][0]
            self._blocks[field.name] = [block[len(block) - tail :].copy()]

    def sync(self) -> None:
        """Wait until all that was committed would survive a power loss.

        Zarr itself never asks for that. Call it before a checkpoint names the committed rows.

        Raises:
            StorageError: the operating system refused.
        """
        with _storage_errors(self._path):
            folders = {parent for file in self._unsynced for parent in file.parents}
            top = self._path.parent.parent
            folders = {folder for folder in folders if folder.is_relative_to(top)}
            # Files first, then the folders that name them, inner ones first.
            for file in (*sorted(self._unsynced), *sorted(folders, reverse=True)):
                handle = os.open(file, os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
        self._unsynced.clear()

    def _committed(self, field: Field) -> int:
        return self._committed_episodes if field.per_episode else self._committed_rows

    def _write(self, field: Field) -> None:
        """Rewrite the last committed chunk whole and add the ones after it."""
        first_chunk = self._committed(field) // CHUNK_ROWS
        block = np.concatenate(self._blocks[field.name])
        self._blocks[field.name] = [block]
        start, array = first_chunk * CHUNK_ROWS, self._arrays[field.name]
        stop = start + len(block)
        array.resize((stop, *block.shape[1:]))
        array[start:stop] = block
        chunks = range(first_chunk, -(-stop // CHUNK_ROWS))
        self._unsynced.update(self._path / field.chunk_path(chunk) for chunk in chunks)
        self._unsynced.add(self._path / field.path / "zarr.json")

    def _set_committed(self) -> None:
        """Set both counts in one replacement of one file."""
        self._group.update_attributes(
            {
                "committed_rows": self._committed_rows,
                "committed_episodes": self._committed_episodes,
            }
        )
        self._unsynced.add(self._path / "zarr.json")


def _check_prefix(reader: ReplayReader, rows: int, episodes: int) -> None:
    held = f"{reader.committed_rows} steps in {reader.committed_episodes} episodes"
    is_whole = 0 <= rows <= reader.committed_rows and 0 <= episodes <= reader.committed_episodes
    if is_whole and episodes > 0:
        start, length = (reader.read(name, episodes - 1, episodes) for name in ("start", "length"))
        is_whole = int(start[0] + length[0]) == rows
    elif is_whole:
        is_whole = rows == 0
    if not is_whole:
        raise FileError(
            f"{reader.path} holds {held}, the checkpoint names {rows} in {episodes}, which is no "
            "whole part of it; resume from a checkpoint of this run."
        )


def _ensure_group(path: Path) -> None:
    if (path / "zarr.json").is_file():
        return
    path.mkdir(parents=True, exist_ok=True)
    try:
        zarr.open_group(path, mode="a", zarr_format=3)
    except zarr.errors.ContainsGroupError:
        return  # another worker was faster


def _create_arrays(path: Path, obs_size: int, act_size: int, attributes: dict[str, Any]) -> None:
    group = zarr.open_group(path, mode="w-", zarr_format=3, attributes=attributes)
    group.create_group("episodes")
    for field in FIELDS.values():
        row_shape = field.row_shape(obs_size, act_size)
        group.create_array(
            field.path,
            shape=(0, *row_shape),
            chunks=(CHUNK_ROWS, *row_shape),
            dtype=field.dtype,
            filters=None,
            compressors=Crc32cCodec(),
            fill_value=0,
        )


@contextmanager
def _storage_errors(path: Path) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"Cannot write the replay {path}: {reason} (errno {error.errno}); "
            "free space or fix permissions, then run again."
        ) from error
