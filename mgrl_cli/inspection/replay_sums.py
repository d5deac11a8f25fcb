"""Figures over the steps of one agent's replay, summed up chunk by chunk.

A chunk that cannot be read is left out; naming it is left to `ReplayReader.verify`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.inspection.replay_figures import SATURATED_FROM, ActionFigures
from mgrl_cli.inspection.statistics import HistogramSum, SpreadSum
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.replay.schema import CHUNK_ROWS, BehaviourKind

BINS = 40
"""Parts of every histogram."""
SUMMED_FIELDS = (
    "obs", "action", "behaviour_kind", "reward", "terminated", "truncated", "objective_version",
)  # fmt: skip
"""What `StepSums` looks at."""
_MAX_DAMAGED_BLOCKS = 100
"""Blocks with unreadable chunks after which the rest is given up: a count is only a claim."""

Block = dict[str, NDArray[Any]]


def readable_blocks(
    reader: ReplayReader, names: Sequence[str], num_rows: int
) -> Iterator[tuple[int, Block]]:
    """Yield how many rows a block has, and its fields except those that cannot be read."""
    num_damaged = 0
    for start in range(0, num_rows, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, num_rows)
        block: Block = {}
        for name in names:
            try:
                block[name] = reader.read(name, start, stop)
            except (FileError, StorageError):
                continue
        num_damaged += len(block) < len(names)
        if num_damaged > _MAX_DAMAGED_BLOCKS:
            return
        yield stop - start, block


@final
class _ActionSums:
    """Every number of every action, as one column."""

    def __init__(self) -> None:
        self._spread = SpreadSum()
        self._size = SpreadSum()
        self._saturated = SpreadSum()
        self._histogram = HistogramSum(-1.0, 1.0, BINS)

    @property
    def not_finite(self) -> int:
        return self._spread.not_finite

    def add(self, action: NDArray[Any]) -> None:
        self._spread.add(action)
        self._size.add(np.abs(action))
        self._saturated.add(np.abs(action) > SATURATED_FROM)
        self._histogram.add(action)

    def figures(self) -> ActionFigures:
        return ActionFigures(
            spread=self._spread.spreads()[0],
            mean_size=self._size.spreads()[0].mean,
            saturated=self._saturated.spreads()[0].mean,
            histogram=self._histogram.histogram(),
        )


@final
class StepSums:
    """Everything summed over steps in one pass."""

    def __init__(self, obs_size: int) -> None:
        """Start with no steps."""
        self.obs = SpreadSum(obs_size)
        self.reward = SpreadSum()
        self.action = _ActionSums()
        self.policy_action = _ActionSums()
        self.random = SpreadSum()
        self.ends = {"terminated": 0.0, "truncated": 0.0}
        """Steps with the flag; NaN once some could not be read."""
        self.versions: list[int] = []
        """Oldest and newest so far; empty at first."""

    def add(self, block: Mapping[str, NDArray[Any]]) -> None:
        """Add consecutive steps, fields by name; fields that are missing add nothing."""
        if "obs" in block:
            self.obs.add(block["obs"])
        if "reward" in block:
            self.reward.add(block["reward"])
        if "action" in block:
            self.action.add(block["action"])
        if "behaviour_kind" in block:
            is_random = block["behaviour_kind"] == BehaviourKind.RANDOM
            self.random.add(is_random)
            if "action" in block:
                self.policy_action.add(block["action"][~is_random])
        for name in self.ends:
            self.ends[name] += np.count_nonzero(block[name]) if name in block else math.nan
        if "objective_version" in block:
            found = block["objective_version"]
            self.versions = [
                min([*self.versions[:1], int(found.min())]),
                max([*self.versions[1:], int(found.max())]),
            ]
