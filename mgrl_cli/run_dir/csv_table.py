"""CSV tables that read back exactly, or say in which line they are damaged.

Knows nothing of what the columns mean.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from mgrl_cli.errors import FileError
from mgrl_cli.run_dir.atomic import write_atomically

Row = TypeVar("Row")

_LARGEST_FIGURE = 1e100
"""As in `metrics`: no run measures more."""


def write_csv_table(columns: Sequence[str], rows: Iterable[Sequence[object]], path: Path) -> None:
    """Write a header and rows; a float is written so that it reads back exactly.

    Raises:
        StorageError: the operating system refused; what was there before stays.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def read_csv_table(
    path: Path, columns: Sequence[str], parse: Callable[[Sequence[str], str], Row], remedy: str
) -> list[Row]:
    """Return what `write_csv_table` wrote.

    Args:
        path: the table.
        columns: the header it must have.
        parse: makes something of the cells of one line, as many as there are columns; is told the
            line, for messages.
        remedy: what to do about a table with another header.

    Raises:
        FileError: no such file, or one that is not such a table; names the line.
    """
    try:
        text = path.read_bytes().decode()
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read '{path}': {error}; give a table of evaluations") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = next(reader, [])
        if header != list(columns):
            raise FileError(
                f"'{path}' has the columns {','.join(header)!r:.80}, expected those that this "
                f"version writes; {remedy}"
            )
        for cells in reader:
            where = f"'{path}', line {reader.line_num}"
            if len(cells) != len(columns):
                problem = f"got {len(cells)} cells, expected {len(columns)}"
                raise FileError(f"{where}: {problem}; the table is damaged")
            rows.append(parse(cells, where))
    except csv.Error as error:
        raise FileError(
            f"'{path}', line {reader.line_num}: {error}, expected CSV; restore it from a copy"
        ) from error
    return rows


def parse_count(text: str, where: str) -> int:
    """Return a whole number; FileError where the cell is none."""
    # Not int(): it would take "1_000", " 7 " and digits of other scripts.
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(2**63))):
        raise FileError(f"{where}: got {text!r:.40}, expected a whole number; the table is damaged")
    return int(text)


def parse_figure(text: str, where: str) -> float:
    """Return a number; FileError where the cell is none that a run can measure."""
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not abs(value) <= _LARGEST_FIGURE:  # nor for NaN
        raise FileError(f"{where}: got {text!r:.40}, expected a number; the table is damaged")
    return value
