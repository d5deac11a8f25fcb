"""Whether the numbers of a replay can be true. Judges arrays it is given; opens no files.

Every function returns problems, one line each, to be shown as they are.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.replay.digest import ReplayDigest
from mgrl_cli.replay.schema import (
    CHUNK_ROWS,
    EPISODE_FIELDS,
    FIELDS,
    STEP_FIELDS,
    BehaviourKind,
    Field,
)

_MAX_PROBLEMS = 100


@runtime_checkable
class CommittedRows(Protocol):
    """Something that hands out committed rows, see `reader.ReplayReader`."""

    @property
    def committed_rows(self) -> int:
        """Steps."""
        ...

    @property
    def committed_episodes(self) -> int:
        """Episodes."""
        ...

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows of an array; raises FileError or StorageError, naming array and chunk."""
        ...


def find_problems(replay: CommittedRows, sha256: str | None) -> list[str]:
    """Read everything committed, chunk by chunk, and return what is wrong with it.

    Stops after 100 problems.

    Args:
        replay: where the rows come from.
        sha256: the `ReplayDigest` they must have; None: any.
    """
    problems: list[str] = []
    table = _length_and_return(replay, problems)
    sums = RewardSums(table[0] if table else np.zeros(0, np.int64))
    digest = None if sha256 is None else ReplayDigest()
    for fields in (EPISODE_FIELDS, STEP_FIELDS):
        count = _committed(replay, fields[0])
        for start in range(0, count, CHUNK_ROWS):
            if len(problems) >= _MAX_PROBLEMS:
                return [*problems[:_MAX_PROBLEMS], "too many problems: stopped looking"]
            block = _readable(replay, fields, (start, min(start + CHUNK_ROWS, count)), problems)
            problems += value_problems(block, start)
            if table and fields is STEP_FIELDS:
                problems += end_problems(block, start, sums.last_rows)
                sums.add(block, start)
            if digest is not None:
                for name, rows in block.items():
                    digest.add(name, rows)
    if table and not problems:
        problems += sums.problems(table[1])
    if digest is not None and digest.hexdigest() != sha256:
        problems.append("the rows are not those the checkpoint recorded")
    return problems


def _committed(replay: CommittedRows, field: Field) -> int:
    return replay.committed_episodes if field.per_episode else replay.committed_rows


def _length_and_return(
    replay: CommittedRows, problems: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Return both per episode if episodes tile the rows, else None."""
    names = ("start", "length", "return")
    try:
        start, length, episode_return = (
            replay.read(name, 0, replay.committed_episodes) for name in names
        )
    except (FileError, StorageError):
        return None  # named by the pass over the chunks
    found = tiling_problems(start, length, replay.committed_rows)
    problems += found
    return None if found else (length, episode_return)


def _readable(
    replay: CommittedRows, fields: tuple[Field, ...], rows: tuple[int, int], problems: list[str]
) -> dict[str, NDArray[Any]]:
    """Return rows by field name, without the fields that cannot be read."""
    block: dict[str, NDArray[Any]] = {}
    for field in fields:
        try:
            block[field.name] = replay.read(field.name, *rows)
        except (FileError, StorageError) as error:
            problems.append(str(error))
    return block


def tiling_problems(
    start: NDArray[np.int64], length: NDArray[np.int64], committed_rows: int
) -> list[str]:
    """Return whether episodes follow each other without gap or overlap over all committed rows."""
    if (length < 1).any() or (length > committed_rows).any():
        episode = int(np.flatnonzero((length < 1) | (length > committed_rows))[0])
        return [f"episode {episode}: length {length[episode]} is impossible"]
    stop = np.cumsum(length)
    wrong = np.flatnonzero(start != stop - length)
    if len(wrong):
        episode = int(wrong[0])
        expected = stop[episode] - length[episode]
        return [f"episode {episode}: starts at row {start[episode]}, expected {expected}"]
    total = int(length.sum())
    if total != committed_rows:
        return [f"episodes cover {total} rows, {committed_rows} are committed"]
    return []


def value_problems(block: Mapping[str, NDArray[Any]], first_row: int) -> list[str]:
    """Return what is wrong with single numbers.

    Args:
        block: values by field name, consecutive rows.
        first_row: row number of the first.
    """
    problems: list[str] = []

    def report(name: str, is_wrong: NDArray[np.bool_], what: str) -> None:
        rows = np.flatnonzero(is_wrong.reshape(len(is_wrong), -1).any(axis=1))
        if len(rows):
            problems.append(
                f"array '{FIELDS[name].path}': {what} at row {first_row + int(rows[0])}"
                f" and {len(rows) - 1} more rows of its chunk"
            )

    for name, values in block.items():
        if values.dtype.kind == "f":
            report(name, ~np.isfinite(values), "a number that is not finite")
        if name == "action":
            report(name, np.abs(values) > 1, "an action outside [-1, 1]")
        if name == "behaviour_kind":
            report(name, values > max(BehaviourKind), "an unknown behaviour kind")
        if name in ("seed", "life"):
            report(name, values < 0, "a negative number")
    return problems


def end_problems(
    block: Mapping[str, NDArray[Any]], first_row: int, last_rows: NDArray[np.int64]
) -> list[str]:
    """Return whether `terminated` or `truncated` is set before the last step of an episode.

    Args:
        block: values by field name, consecutive rows.
        first_row: row number of the first.
        last_rows: row of the last step of each episode, ascending.
    """
    problems: list[str] = []
    for name in ("terminated", "truncated"):
        rows = first_row + np.flatnonzero(block.get(name, ()))
        early = rows[~np.isin(rows, last_rows, assume_unique=True)]
        if len(early):
            problems.append(f"array '{name}': an episode ends inside itself at row {early[0]}")
    return problems


class RewardSums:
    """Adds up rewards per episode over blocks of rows, for comparison with the stored returns."""

    def __init__(self, length: NDArray[np.int64]) -> None:
        """Start at zero.

        Args:
            length: steps of each episode; they tile the rows.
        """
        self.last_rows: NDArray[np.int64] = np.cumsum(length) - 1
        self._sum = np.zeros(len(length))
        self._sum_of_sizes = np.zeros(len(length))

    def add(self, block: Mapping[str, NDArray[Any]], first_row: int) -> None:
        """Add the rewards of consecutive rows; a block without rewards adds nothing."""
        reward = np.asarray(block.get("reward", ()), np.float64)
        episode = np.searchsorted(self.last_rows, first_row + np.arange(len(reward)))
        np.add.at(self._sum, episode, reward)
        np.add.at(self._sum_of_sizes, episode, np.abs(reward))

    def problems(self, episode_return: NDArray[np.float64]) -> list[str]:
        """Return which stored returns are not the sums, beyond rounding in another order."""
        wrong = np.flatnonzero(
            ~(np.abs(self._sum - episode_return) <= 1e-9 * (1 + self._sum_of_sizes))
        )
        return [
            f"episode {episode}: return {episode_return[episode]:.6g} is not the sum of its "
            f"rewards, {self._sum[episode]:.6g}"
            for episode in wrong[:10]
        ]
