"""All that workers and the coordinator ever say to each other.

A worker that has come to rest reports, gets an order, saves its agents if told to, and goes on or
ends. Messages cross process borders, so they hold plain values only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mgrl_cli.run_dir.file_record import FileRecord
from mgrl_cli.run_dir.manifest import ReplayRecord

MetricsRow = dict[str, float | int | str | None]


@dataclass(frozen=True, slots=True)
class Departure:
    """An agent that has left the population for good."""

    reason: str
    replay: ReplayRecord
    """What it leaves on disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A worker at rest: ready, at a round's end, or interrupted in the middle of a round."""

    rounds: int
    """Rounds its agents have finished."""
    updates: int = 0
    """Updates of the next round that are made already."""
    is_interrupted: bool = False
    rows: Sequence[MetricsRow] = ()
    """One per agent, of the round just finished."""
    departures: Mapping[int, Departure] = field(default_factory=dict[int, Departure])
    """Agents quarantined in the round just finished."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What all workers do next."""

    rounds: int
    """Rounds that everyone has finished. A worker that is ahead saves what it was at their end."""
    save_to: Path | None
    """Staging directory to save agents to; None: nothing to save."""
    proceed: bool
    """False: end."""
    rests: bool = False
    """True: report again instead of playing on."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a worker has written into a staging directory."""

    files: dict[str, FileRecord]
    replay: dict[str, ReplayRecord]
    """By the name of the agent's group."""
    evaluations: dict[str, float]


@dataclass(frozen=True, slots=True)
class WorkerFailure:
    """Why a worker gave up."""

    message: str
    exit_code: int
    details: str
    """The worker's traceback."""
