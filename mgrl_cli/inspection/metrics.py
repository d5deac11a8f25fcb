"""Metrics files as far as they can be read: a damaged line is named and does not hide the others.

(`run_dir.metrics` refuses a damaged file whole, as a figure drawn from half of it would mislead.)
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from mgrl_cli.errors import StorageError
from mgrl_cli.run_dir.metrics import Record


@dataclass(frozen=True, slots=True)
class MetricsSummary:
    """What one file holds, as far as it can be read."""

    rows: tuple[Record, ...]
    problem: str
    """Why lines are missing from `rows`; "" if none is."""


def read_metrics(path: Path) -> MetricsSummary:
    """Return the whole lines of a file; a last line still being written is left out.

    Raises:
        StorageError: the operating system refused. A file that does not exist has no lines.
    """
    try:
        *lines, _torn = path.read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return MetricsSummary((), "")
    except OSError as error:
        raise StorageError(f"cannot read '{path}': {error.strerror}; check permissions") from error
    rows: list[Record] = []
    damaged: list[int] = []
    for number, line in enumerate(lines, start=1):
        row = _parse(line)
        if row is None:
            damaged.append(number)
        else:
            rows.append(row)
    problem = ""
    if damaged:
        others = f" and {len(damaged) - 1} more lines" if len(damaged) > 1 else ""
        problem = f"{path}: line {damaged[0]}{others} hold no JSON object; the file is damaged"
    return MetricsSummary(tuple(rows), problem)


def figure(row: Record, key: str) -> float:
    """Return a number, NaN where there is none."""
    value = row.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # somebody wrote hundreds of digits
            return math.nan
    return math.nan


def count(row: Record, key: str) -> int:
    """Return a whole number, 0 where there is none."""
    value = row.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def last_known(rows: tuple[Record, ...], key: str) -> float:
    """Return the newest number that is known, NaN where none is."""
    known = [value for row in rows if not math.isnan(value := figure(row, key))]
    return known[-1] if known else math.nan


def _parse(line: bytes) -> Record | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("Record", row) if isinstance(row, dict) else None
