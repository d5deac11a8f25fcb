"""What the files of a replay are at a position, its full chunks left out: metadata and last chunks.

Zarr makes them, in memory, so they are to the byte what it would have left on disk. Opens no file.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import zarr
from zarr.abc.buffer import Buffer
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from mgrl_cli.errors import UsageError
from mgrl_cli.replay.digest import ReplayPosition, ReplayTail
from mgrl_cli.replay.schema import CHUNK_ROWS, FIELDS, FORMAT, FORMAT_VERSION

# Zarr leaves out chunks that hold only the fill value, unless told otherwise at every opening.
# Here a chunk that is not there is damage.
WRITE_ALL_CHUNKS = {"array.write_empty_chunks": True}


class Blueprint(NamedTuple):
    """A replay at a position."""

    position: ReplayPosition
    tail: ReplayTail
    files: Mapping[str, bytes]
    """Path below the agent's group → content. What counts rows comes before what holds them."""
    arrays: Mapping[str, zarr.Array[Any]]
    """By field name, in memory; without their full chunks."""


def draw(position: ReplayPosition, tail: ReplayTail, attributes: Mapping[str, object]) -> Blueprint:
    """Return the blueprint of a replay.

    Args:
        position: where it stands.
        tail: of there; the types and shapes are those of `digest.blank_tail`.
        attributes: JSON values to keep with the data.

    Raises:
        UsageError: an attribute that the format itself needs.
    """
    own = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "obs_size": tail["obs"].shape[1],
        "act_size": tail["action"].shape[1],
        **counts(position.rows, position.episodes),
    }
    if clash := sorted(own.keys() & attributes.keys()):
        raise UsageError(f"The replay sets '{clash[0]}' itself; rename the attribute.")
    files, group = _new_group({**attributes, **own})
    group.create_group("episodes")
    arrays: dict[str, zarr.Array[Any]] = {}
    for name, field in FIELDS.items():
        row_shape, count = tail[name].shape[1:], position.count(field)
        with zarr.config.set(WRITE_ALL_CHUNKS):
            arrays[name] = group.create_array(
                field.path,
                shape=(count, *row_shape),
                chunks=(CHUNK_ROWS, *row_shape),
                dtype=field.dtype,
                filters=None,
                compressors=Crc32cCodec(),
                fill_value=0,
            )
        if len(tail[name]):
            arrays[name][count - len(tail[name]) :] = tail[name]
    content = {inner: buffer.to_bytes() for inner, buffer in files.items()}
    return Blueprint(position, tail, content, arrays)


def counts(rows: int, episodes: int) -> dict[str, int]:
    """Return the attributes of a group that say what is committed."""
    return {"committed_rows": rows, "committed_episodes": episodes}


def plain_group_metadata() -> bytes:
    """Return the `zarr.json` of the group that all agents' groups lie in."""
    return _new_group({})[0]["zarr.json"].to_bytes()


def _new_group(attributes: dict[str, Any]) -> tuple[Mapping[str, Buffer], zarr.Group]:
    files: dict[str, Buffer] = {}
    group = zarr.open_group(MemoryStore(files), mode="w-", zarr_format=3, attributes=attributes)
    return files, group
