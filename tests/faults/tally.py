"""How often a fault was tried and survived: one trial of each in the suite, many in the campaign.

`make test-faults` sets MGRL_FAULTS=campaign, prints the table and writes it where MGRL_FAULTS_TABLE
says.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IS_CAMPAIGN = os.environ.get("MGRL_FAULTS") == "campaign"

_tried: dict[str, int] = {}
_survived: dict[str, int] = {}


def trials(campaign: int, suite: int = 1) -> int:
    """Return how many trials to make."""
    return campaign if IS_CAMPAIGN else suite


@contextmanager
def trial(row: str, number: int = 1) -> Iterator[None]:
    """Count trials of a row of the table in docs/reliability.md; survived if nothing is raised."""
    _tried[row] = _tried.get(row, 0) + number
    _survived.setdefault(row, 0)
    yield
    _survived[row] += number


def table() -> list[str]:
    """Return one line per row that was tried."""
    return [f"{row:<60} {_survived[row]:>6} of {_tried[row]:>6}" for row in sorted(_tried)]


def write_table() -> None:
    """Append this session's figures to the file that the campaign names, if any."""
    path = os.environ.get("MGRL_FAULTS_TABLE")
    if path is None:
        return
    with Path(path).open("a", encoding="utf-8") as file:
        for row in sorted(_tried):
            entry = {"row": row, "tried": _tried[row], "survived": _survived[row]}
            file.write(json.dumps(entry) + "\n")
