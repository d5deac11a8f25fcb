"""How often a fault was tried and survived: few trials of each in the suite, many in the campaign.

`make test-faults` names a file in MGRL_FAULTS. Every trial adds a line to it, from whichever
process, and the session ends with a table of what it holds.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FILE = os.environ.get("MGRL_FAULTS")
IS_CAMPAIGN = _FILE is not None


def trials(campaign: int, suite: int = 1) -> int:
    """Return how many trials to make."""
    return campaign if IS_CAMPAIGN else suite


@contextmanager
def trial(row: str, number: int = 1) -> Iterator[None]:
    """Count trials of a row of the table in docs/reliability.md; survived if nothing is raised."""
    survived = 0
    try:
        yield
        survived = number
    finally:
        _note({"row": row, "tried": number, "survived": survived})


def table() -> list[str]:
    """Return one line per row that the campaign has tried so far."""
    if _FILE is None:
        return []
    tried: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    for line in Path(_FILE).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        tried[entry["row"]] += entry["tried"]
        survived[entry["row"]] += entry["survived"]
    return [f"{row:<60} {survived[row]:>6} of {tried[row]:>6}" for row in sorted(tried)]


def _note(entry: dict[str, object]) -> None:
    if _FILE is not None:
        with Path(_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
