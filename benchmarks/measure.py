"""How a benchmark measures and what it reports.

Everything is a ratio of two things that ran in turns, in one run: whatever slows the machine down
slows down both. Each repeat times every contender once, in an order that rotates, and gives one
ratio; what counts is the median of the ratios.
"""

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, final

import torch


class Effort(Enum):
    """How long to measure: `SMOKE` keeps the whole suite within a minute, for CI."""

    SMOKE = "smoke"
    FULL = "full"


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One line of the report: a figure, where it should be, and what it was checked against."""

    benchmark: str
    """Which module measured it."""
    setting: str
    """Sizes and environment."""
    figure: str
    """What the value is: "times faster than higher", "share of step time"."""
    value: float
    spread: tuple[float, float] | None = None
    """Quartiles of the value over the repeats."""
    direction: Literal["at least", "at most"]
    target: float
    milliseconds: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    """Median time of each contender on this machine today; only for orientation."""
    check: str
    """What proves, in the same run, that the contenders computed the same."""

    @property
    def is_met(self) -> bool:
        """Whether the value is on the right side of the target."""
        if self.direction == "at least":
            return self.value >= self.target
        return self.value <= self.target


@final
class Timings:
    """Seconds per call of each contender, one entry per repeat, in the order they were taken."""

    def __init__(self, seconds: Mapping[str, Sequence[float]]) -> None:
        self.seconds = seconds

    def median_ms(self) -> dict[str, float]:
        """Return each contender's median, in milliseconds."""
        return {name: 1e3 * statistics.median(each) for name, each in self.seconds.items()}

    def ratios(self, over: str, under: str) -> list[float]:
        """Return `over`'s time divided by `under`'s, repeat by repeat."""
        pairs = zip(self.seconds[over], self.seconds[under], strict=True)
        return [numerator / denominator for numerator, denominator in pairs]


def interleaved(
    contenders: Mapping[str, Callable[[], object]], *, repeats: int, min_s: float = 0.1
) -> Timings:
    """Time the contenders in turns.

    Args:
        contenders: by name; each is called without arguments and must not depend on the others.
        repeats: how often each is timed.
        min_s: each timing calls its contender as often as fits into this, at least once.
    """
    calls = {name: _calls_within(contender, min_s) for name, contender in contenders.items()}
    return in_turns(contenders, repeats=repeats, calls=calls)


def in_turns(
    contenders: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    calls: Mapping[str, int] | None = None,
) -> Timings:
    """Time contenders that are warm in turns, exactly as often as asked.

    Args:
        contenders: by name.
        repeats: how often each is timed.
        calls: how often one timing calls each; once where left out.
    """
    calls = calls or dict.fromkeys(contenders, 1)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for repeat in range(repeats):
        start = repeat % len(names)
        for name in names[start:] + names[:start]:
            with _without_collector():
                began_s = time.perf_counter()
                for _ in range(calls[name]):
                    contenders[name]()
                seconds[name].append((time.perf_counter() - began_s) / calls[name])
    return Timings(seconds)


def median_and_quartiles(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the median with the first and third quartile."""
    if len(values) == 1:
        return values[0], (values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, (low, high)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work as it does in a worker: one thread, denormals flushed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


@contextmanager
def cores(number: int) -> Iterator[None]:
    """Confine this process, and those it starts meanwhile, to so many cores (Linux)."""
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:number])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _calls_within(contender: Callable[[], object], min_s: float) -> int:
    """Return how many calls fit; the first call warms up and does not count."""
    contender()
    began_s = time.perf_counter()
    contender()
    return max(1, int(min_s / max(time.perf_counter() - began_s, 1e-9)))


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep Python's cyclic garbage collector out of a timing."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
