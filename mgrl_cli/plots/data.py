"""The data behind a figure, as CSV beside it."""

import csv
import math
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from mgrl_cli.errors import StorageError
from mgrl_cli.run_dir.metrics import (
    EvaluationRow,
    PopulationRow,
)


def write_csv(rows: Sequence[EvaluationRow] | Sequence[PopulationRow], path: Path) -> None:
    """Write `rows` with a header; NaN is an empty cell, floats read back exactly.

    Raises:
        StorageError: the system refuses to write.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if rows:
                writer.writerow([field.name for field in fields(rows[0])])
            writer.writerows([_cell(value) for value in astuple(row)] for row in rows)
    except OSError as error:
        message = f"Cannot write {path}: {error.strerror}. Free space or choose another place"
        raise StorageError(message) from error


def _cell(value: object) -> object:
    return "" if isinstance(value, float) and math.isnan(value) else value
