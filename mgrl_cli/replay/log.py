"""The one writer of an agent's replay on disk: an append-only Zarr v3 group.

Zarr replaces one file atomically, never several. So nothing counts until `committed_rows` and
`committed_episodes` are set, together and last; whatever a crash leaves beyond them is swept when
the log is opened again. Must not know what is sampled, or when a round ends.
"""

import asyncio
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
from mgrl_cli.replay.digest import ReplayDigest, ReplayPosition
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.replay.schema import (
    CHUNK_ROWS,
    FIELDS,
    FORMAT,
    FORMAT_VERSION,
    MAX_NUMBERS,
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

    def __init__(self, path: Path, reader: ReplayReader, digest: ReplayDigest) -> None:
        """Use `create` or `reopen` instead."""
        self._path = path
        self._sizes = (reader.obs_size, reader.act_size)
        self._committed_rows = self._num_rows = reader.committed_rows
        self._committed_episodes = self._num_episodes = reader.committed_episodes
        self._committed_digest = digest
        self._blocks: dict[str, list[NDArray[Any]]] = {}
        """Rows per array since the start of its last committed chunk."""
        for field in FIELDS.values():
            count = self._committed(field)
            self._blocks[field.name] = [
                reader.read(field.name, count // CHUNK_ROWS * CHUNK_ROWS, count)
            ]
        # All metadata at first: another writer may have made it without a sync.
        groups = (path.parent, path, path / "episodes")
        arrays = (path / field.path for field in FIELDS.values())
        self._unsynced = {folder / "zarr.json" for folder in (*groups, *arrays)}
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
            UsageError: `path` exists, an impossible size, or an attribute the format itself needs.
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
        if not 1 <= min(obs_size, act_size) <= max(obs_size, act_size) <= MAX_NUMBERS:
            sizes = f"{obs_size}, {act_size}"
            raise UsageError(f"A replay needs sizes from 1 to {MAX_NUMBERS}, got {sizes}.")
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
            return cls(path, ReplayReader(path), ReplayDigest())

    @classmethod
    def reopen(cls, path: Path, position: ReplayPosition) -> "ReplayLog":
        """Continue a log from what a checkpoint names, dropping everything after it.

        What is kept is read and proved before anything is touched; what follows can be interrupted
        anywhere and done again.

        Args:
            path: the agent's group.
            position: what the checkpoint names.

        Raises:
            FileError: not a whole replay, it holds less than the checkpoint names, a chunk of that
                is missing or damaged, or the rows are not those the checkpoint recorded.
            StorageError: the operating system refused.
        """
        with _storage_errors(path):
            reader = ReplayReader(path, position)
            digest = reader.digest()
            if digest.hexdigest() != position.sha256:
                raise FileError(
                    f"{path}: the rows are not those the checkpoint recorded; restore the replay "
                    "from a copy or resume from another checkpoint."
                )
            log = cls(path, reader, digest)
            log._cut_back()
        return log

    @property
    def position(self) -> ReplayPosition:
        """What is committed, for a checkpoint to name."""
        sha256 = self._committed_digest.hexdigest()
        return ReplayPosition(self._committed_rows, self._committed_episodes, sha256)

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
        before = self._committed_rows, self._committed_episodes
        with _storage_errors(self._path):
            for field in FIELDS.values():
                self._write(field)
            self._set_committed(self._num_rows, self._num_episodes)
        for field in FIELDS.values():
            block = self._blocks[field.name][0]
            self._committed_digest.add(field.name, block[before[field.per_episode] % CHUNK_ROWS :])
            tail = self._committed(field) % CHUNK_ROWS
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

    def _cut_back(self) -> None:
        """Make the files what they were when the position was committed."""
        # Before the arrays shrink: they must never be shorter than this says.
        self._set_committed(self._committed_rows, self._committed_episodes)
        for field in FIELDS.values():
            array, count = self._arrays[field.name].async_array, self._committed(field)
            # A shrinking `Array.resize` would try to delete every chunk up to the length claimed.
            shape = (count, *array.shape[1:])
            asyncio.run(array.resize(shape, delete_outside_chunks=False))
            self._write(field)  # its last chunk may hold rows of a later commit
            _sweep_chunks(self._path / field.path / "c", -(-count // CHUNK_ROWS))
        for unfinished in [*self._path.rglob("*.partial")]:
            _remove(unfinished)

    def _set_committed(self, rows: int, episodes: int) -> None:
        """Set both counts in one replacement of one file."""
        self._group.update_attributes({"committed_rows": rows, "committed_episodes": episodes})
        self._committed_rows, self._committed_episodes = rows, episodes
        self._unsynced.add(self._path / "zarr.json")


def _sweep_chunks(folder: Path, num_chunks: int) -> None:
    """Remove the chunks of an array from number `num_chunks` on; never follow a link."""
    if folder.is_symlink():
        folder.unlink()
    for chunk in folder.iterdir() if folder.is_dir() else ():
        if chunk.name.isdecimal() and int(chunk.name) >= num_chunks:
            _remove(chunk)


def _remove(path: Path) -> None:
    is_folder = path.is_dir() and not path.is_symlink()
    (shutil.rmtree if is_folder else os.unlink)(path)


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
