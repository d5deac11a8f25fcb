"""Means and counts of one agent over one round, by the names documented in docs/metrics.md."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

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
Count = Literal["skipped_updates", "skipped_gradients", "failed_episodes"]


class StatisticsRecord(BaseModel):
    """A round's statistics as a checkpoint keeps them."""

    # Sums may have become infinite on the way to a divergence: text in JSON, hence not strict.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    sums: dict[Mean, float]
    numbers: dict[Mean, int]
    counts: dict[Count, int]


class RoundStatistics:
    """Accumulates sums and counts; a mean of nothing is None."""

    def __init__(self, record: StatisticsRecord | None = None) -> None:
        """Start at zero, or where a checkpoint stopped in the middle of a round."""
        self._sums: dict[Mean, float] = dict.fromkeys(get_args(Mean), 0.0)
        self._numbers: dict[Mean, int] = dict.fromkeys(get_args(Mean), 0)
        self._counts: dict[Count, int] = dict.fromkeys(get_args(Count), 0)
        if record is not None:
            self._sums |= record.sums
            self._numbers |= record.numbers
            self._counts |= record.counts
        self.latest: dict[Mean, float] = {}
        """Last value of each figure, for the live view."""

    def add(self, name: Mean, value: float) -> None:
        """Add one value to a mean."""
        self._sums[name] += value
        self._numbers[name] += 1
        self.latest[name] = value

    def count(self, name: Count, happened: bool = True) -> None:
        """Count an event."""
        self._counts[name] += happened

    def summary(self) -> dict[str, float | int | None]:
        """Return every mean (None where nothing was added) and every count."""
        means = {
            name: self._sums[name] / number if number else None
            for name, number in self._numbers.items()
        }
        return {**means, **self._counts}

    def record(self) -> StatisticsRecord:
        """Return what a checkpoint keeps."""
        return StatisticsRecord(
            sums=dict(self._sums), numbers=dict(self._numbers), counts=dict(self._counts)
        )
