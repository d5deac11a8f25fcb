"""Means and counts of one agent over one round, by the names documented in docs/metrics.md."""

from typing import Literal, get_args

Mean = Literal[
    "mean_return",
    "critic_loss",
    "policy_loss",
    "action_slack",
    "gain",
    "cosine",
    "inner_gradient_norm",
    "meta_gradient_norm",
    "evaluation",
]
Count = Literal["skipped_updates", "skipped_gradients"]


class RoundStatistics:
    """Accumulates sums and counts; a mean of nothing is None."""

    def __init__(self) -> None:
        self._sums: dict[Mean, float] = dict.fromkeys(get_args(Mean), 0.0)
        self._numbers: dict[Mean, int] = dict.fromkeys(get_args(Mean), 0)
        self._counts: dict[Count, int] = dict.fromkeys(get_args(Count), 0)
        self.latest: dict[Mean, float] = {}
        """Last value of each figure, for the live view."""

    def add(self, name: Mean, value: float) -> None:
        """Add one value to a mean."""
        self._sums[name] += value
        self._numbers[name] += 1
        self.latest[name] = value

    def count(self, name: Count, happened: bool) -> None:
        """Count an event."""
        self._counts[name] += happened

    def summary(self) -> dict[str, float | int | None]:
        """Return every mean (None where nothing was added) and every count."""
        means = {
            name: self._sums[name] / number if number else None
            for name, number in self._numbers.items()
        }
        return {**means, **self._counts}
