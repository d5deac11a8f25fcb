"""The data behind a figure, as CSV beside it."""

import csv
import math
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from mgrl_cli.errors import StorageError, UsageError
from mgrl_cli.run_dir.atomic import explain_os_error
from mgrl_cli.run_dir.metrics import EvaluationRow, PopulationRow


def check_rows(rows: Sequence[object], path: Path) -> None:
    """Refuse to draw nothing.

    Raises:
        UsageError: no rows.
    """
    if not rows:
        message = (
            f"Nothing to plot to {path}: got no measurements, expected at least one round with "
            "some. Let the run go on first"
        )
        raise UsageError(message)


def write_csv(rows: Sequence[EvaluationRow] | Sequence[PopulationRow], path: Path) -> None:
    """Write records with their fields' names as header.

    Raises:
        StorageError: the system refuses to write.
    """
    header = [field.name for field in fields(rows[0])] if rows else []
    write_table(header, [astuple(row) for row in rows], path)


def write_table(header: Sequence[str], rows: Sequence[Sequence[object]], path: Path) -> None:
    """Write a table; NaN is an empty cell, floats read back exactly.

    Raises:
        StorageError: the system refuses to write.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if header:
                writer.writerow(header)
            writer.writerows([_cell(value) for value in row] for row in rows)
    except OSError as error:
        raise StorageError(explain_os_error(error, f"write '{path}'")) from error


def _cell(value: object) -> object:
    return "" if isinstance(value, float) and math.isnan(value) else value
