"""Which steps a batch of windows starts at, as arithmetic over episode lengths.

A position is the number of a stored step, 0 being the oldest. This module must not know where a
step lies in memory: the same lengths and the same generator give the same positions.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mgrl_cli.errors import UsageError, did_you_mean

SampleBy = Literal["start", "inside", "episode"]
"""How the start of a window is drawn, always with replacement.

- `start`: every stored step is equally likely.
- `inside`: every step whose window fits into its episode is equally likely.
- `episode`: every episode is equally likely, then every fitting step within it.

An episode shorter than a window has one fitting start, its first step; the window is then padded.
Without that, the policy would never learn from episodes of fewer than T steps.
"""
_KNOWN = get_args(SampleBy)


class StartTable:
    """Where windows of one length fit, for one list of episodes."""

    def __init__(self, lengths: NDArray[np.int64], steps: int) -> None:
        """Build the table.

        Args:
            lengths: steps of each episode, oldest first, each at least 1.
            steps: steps of a window.
        """
        self.steps = steps
        self._num_starts = np.maximum(lengths - (steps - 1), 1)
        self._starts_before_end = np.cumsum(self._num_starts)
        self._first_start = self._starts_before_end - self._num_starts
        self._first_step = np.cumsum(lengths) - lengths

    def draw_inside(self, rng: np.random.Generator, batch: int) -> NDArray[np.int64]:
        """Return `batch` positions, each fitting start equally likely."""
        number = rng.integers(self._starts_before_end[-1], size=batch)
        episode = np.searchsorted(self._starts_before_end, number, side="right")
        return self._first_step[episode] + number - self._first_start[episode]

    def draw_episode(self, rng: np.random.Generator, batch: int) -> NDArray[np.int64]:
        """Return `batch` positions, each episode equally likely, then each fitting start in it."""
        episode = rng.integers(len(self._first_step), size=batch)
        return self._first_step[episode] + rng.integers(self._num_starts[episode])


def check_request(batch: int, steps: int, sample_by: str) -> None:
    """Refuse an impossible request.

    Raises:
        UsageError: a size below 1 or an unknown `sample_by`.
    """
    if batch < 1 or steps < 1:
        raise UsageError(f"A batch needs at least 1 window of 1 step, got {batch} of {steps}.")
    if sample_by not in _KNOWN:
        raise UsageError(
            f"Unknown sample_by '{sample_by}', expected one of: {', '.join(_KNOWN)}."
            f"{did_you_mean(sample_by, _KNOWN)}"
        )
