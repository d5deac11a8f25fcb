"""What a checkpoint keeps of a replay: how much of it there is, a proof of which, and its tail.

A replay grows for as long as a run lasts, so the proof must grow with it: one rolling hash per
array, and one hash over those. The tail never grows beyond one chunk. Must not know where rows come
from, or when they count.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from mgrl_cli.errors import UsageError
from mgrl_cli.replay.schema import CHUNK_ROWS, FIELDS, MAX_NUMBERS, Field

ReplayTail = Mapping[str, NDArray[Any]]
"""The rows of every array of `schema.FIELDS` after its last full chunk, by name.

A full chunk is final once it is on the disk. What comes after it lies in a file that the next
commit replaces, and a power loss may then take the old file and the new one.
"""


class ReplayPosition(NamedTuple):
    """The beginning of a replay that a checkpoint names."""

    rows: int
    """Steps."""
    episodes: int
    """Whole episodes; together they have `rows` steps."""
    sha256: str
    """`ReplayDigest.hexdigest` of exactly these rows."""

    def count(self, field: Field) -> int:
        """Return how many rows of a field's array belong to it."""
        return self.episodes if field.per_episode else self.rows


def blank_tail(position: ReplayPosition, obs_size: int, act_size: int) -> ReplayTail:
    """Return zeros of the types and shapes that the tail of a replay has at `position`.

    Raises:
        UsageError: an impossible size.
    """
    if not 1 <= min(obs_size, act_size) <= max(obs_size, act_size) <= MAX_NUMBERS:
        raise UsageError(
            f"A replay needs sizes from 1 to {MAX_NUMBERS}, got {obs_size}, {act_size}."
        )
    return {
        name: np.zeros(
            (position.count(field) % CHUNK_ROWS, *field.row_shape(obs_size, act_size)), field.dtype
        )
        for name, field in FIELDS.items()
    }


@final
class ReplayDigest:
    """SHA-256 over the SHA-256 of every array, in the order of `schema.FIELDS`.

    Of an array counts what its rows are, as little-endian bytes in C order, and not how they are
    cut into chunks, nor in how many parts they were added.
    """

    def __init__(self) -> None:
        """Start with no rows."""
        self._hashes = {name: hashlib.sha256() for name in FIELDS}

    def add(self, name: str, rows: NDArray[Any]) -> None:
        """Add the next rows of the array `name`."""
        little_endian = np.dtype(FIELDS[name].dtype).newbyteorder("<")
        data = np.ascontiguousarray(rows, little_endian).reshape(-1)
        self._hashes[name].update(data.view(np.uint8).data)

    def hexdigest(self) -> str:
        """Return the digest of what was added so far; more may be added afterwards."""
        digests = (rolling.digest() for rolling in self._hashes.values())
        return hashlib.sha256(b"".join(digests)).hexdigest()
