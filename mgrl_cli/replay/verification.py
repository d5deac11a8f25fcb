"""Whether the numbers of a replay can be true. Pure functions of arrays; opens no files.

Every function returns problems, one line each, to be shown as they are.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgrl_cli.replay.schema import FIELDS, BehaviourKind


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
