"""The one writer of an agent's replay on disk: an append-only Zarr v3 group.

Zarr replaces one file atomically, never several. So nothing counts until `committed_rows` and
`committed_episodes` are set, together and last. And it replaces a file without waiting for the
disk, so of what is written again and again, metadata and last chunks, a power loss may leave
nothing: a checkpoint carries those rows (`ReplayLog.tail`), and opening the log again makes the
files anew. Must not know what is sampled, or when a round ends.
"""

import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zarr
from zarr.storage import LocalStore, StorePath

from mgrl_cli.errors import FileError, StorageError, UsageError
from mgrl_cli.replay.blueprint import (
    WRITE_ALL_CHUNKS,
    Blueprint,
    counts,
    draw,
    plain_group_metadata,
)
from mgrl_cli.replay.chunks import read_chunk
from mgrl_cli.replay.digest import ReplayDigest, ReplayPosition, ReplayTail, blank_tail
from mgrl_cli.replay.mending import place, sweep_chunks, sweep_unfinished
from mgrl_cli.replay.schema import CHUNK_ROWS, FIELDS, Episode, Field, check_episode


class ReplayLog:
    """Appends whole episodes of one agent. Make one with `create` or `reopen`, one per group.

    The rows of the last, unfilled chunk and all uncommitted ones are kept in memory.
    """

    def __init__(self, path: Path, blueprint: Blueprint, digest: ReplayDigest) -> None:
        """Use `create` or `reopen` instead."""
        position, arrays = blueprint.position, blueprint.arrays
        self._path = path
        self._sizes = (arrays["obs"].shape[1], arrays["action"].shape[1])
        self._committed_rows = self._num_rows = position.rows
        self._committed_episodes = self._num_episodes = position.episodes
        self._committed_digest = digest
        self._blocks = {name: [rows] for name, rows in blueprint.tail.items()}
        """Rows per array since the start of its last committed chunk; never changed in place."""
        self._unsynced = {path.parent / "zarr.json", *(path / inner for inner in blueprint.files)}
        with zarr.config.set(WRITE_ALL_CHUNKS):
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
        digest = ReplayDigest()
        position = ReplayPosition(0, 0, digest.hexdigest())
        blueprint = draw(position, blank_tail(position, obs_size, act_size), attributes)
        if os.path.lexists(path):
            raise UsageError(f"{path} exists and is never overwritten; choose another run name.")
        with _storage_errors(path):
            # The name is fixed, so that the next attempt sweeps what a killed one left.
            unfinished = path.with_name(f".{path.name}.partial")
            shutil.rmtree(unfinished, ignore_errors=True)
            place(unfinished, blueprint.files, plain_group_metadata())
            unfinished.rename(path)
            return cls(path, blueprint, digest)

    @classmethod
    def reopen(
        cls,
        path: Path,
        position: ReplayPosition,
        tail: ReplayTail,
        attributes: Mapping[str, object],
    ) -> "ReplayLog":
        """Continue a log from what a checkpoint names, dropping everything after it.

        Only full chunks are taken from the disk. They are read and proved, together with the tail,
        before anything is touched. All other files are then made anew, whatever a power loss or a
        later commit has left of them; that can be interrupted anywhere and done again.

        Args:
            path: the agent's group; it may be missing where the position has no full chunk.
            position: what the checkpoint names.
            tail: what the checkpoint carries; it has the types and shapes of `blank_tail`.
            attributes: as for `create`.

        Raises:
            UsageError: an attribute the format itself needs.
            FileError: a full chunk is missing or damaged, or the rows are not those the checkpoint
                recorded.
            StorageError: the operating system refused.
        """
        blueprint = draw(position, tail, attributes)
        with _storage_errors(path):
            digest = _prove(path, blueprint)
            place(path, blueprint.files, plain_group_metadata())
            for field in FIELDS.values():
                sweep_chunks(path / field.path, -(-position.count(field) // CHUNK_ROWS))
            return cls(path, blueprint, digest)

    @property
    def position(self) -> ReplayPosition:
        """What is committed, for a checkpoint to name."""
        sha256 = self._committed_digest.hexdigest()
        return ReplayPosition(self._committed_rows, self._committed_episodes, sha256)

    @property
    def tail(self) -> ReplayTail:
        """The rows of `position` that the log may still overwrite, for a checkpoint to carry.

        Not copied, yet what was returned once stays as it is.
        """
        return {
            field.name: self._blocks[field.name][0][: self._committed(field) % CHUNK_ROWS]
            for field in FIELDS.values()
        }

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

        Raises:
            StorageError: no space left, or the operating system refused. Readers see what was
                committed before. Zarr may still be writing in the background, so this log is of no
                more use; `reopen` it, best in another process.
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

    def _set_committed(self, rows: int, episodes: int) -> None:
        """Set both counts in one replacement of one file."""
        self._group.update_attributes(counts(rows, episodes))
        self._committed_rows, self._committed_episodes = rows, episodes
        self._unsynced.add(self._path / "zarr.json")


def sweep_replay(path: Path) -> None:
    """Remove what a crash left of files that were being written in a whole `buffer.zarr`.

    Call it only where nobody writes into it.

    Raises:
        StorageError: the operating system refused.
    """
    with _storage_errors(path):
        sweep_unfinished(path)


def _prove(path: Path, blueprint: Blueprint) -> ReplayDigest:
    """Return the digest of full chunks on disk and the tail, after comparing it."""
    digest, store = ReplayDigest(), LocalStore(path, read_only=True)
    for name, field in FIELDS.items():
        # As it should be, not as its metadata on disk say.
        metadata = blueprint.arrays[name].async_array.metadata
        array = zarr.Array(zarr.AsyncArray(metadata, StorePath(store, field.path)))
        count = blueprint.position.count(field)
        for chunk in range(count // CHUNK_ROWS):
            digest.add(name, read_chunk(path, field, array, chunk, count))
        digest.add(name, blueprint.tail[name])
    if digest.hexdigest() != blueprint.position.sha256:
        raise FileError(
            f"{path}: the rows are not those the checkpoint recorded; restore the replay from a "
            "copy or resume from another checkpoint."
        )
    return digest


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
