"""What a checkpoint remembers of a replay: how much of it, and a proof of which.

A replay grows for as long as a run lasts, so the proof must grow with it: one rolling hash per
array, and one hash over those. Must not know where rows come from, or when they count.
"""

import hashlib
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from mgrl_cli.replay.schema import FIELDS


class ReplayPosition(NamedTuple):
    """The beginning of a replay that a checkpoint names."""

    rows: int
    """Steps."""
    episodes: int
    """Whole episodes; together they have `rows` steps."""
    sha256: str
    """`ReplayDigest.hexdigest` of exactly these rows."""


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
