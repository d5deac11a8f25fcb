import csv
import math
from dataclasses import fields
from pathlib import Path

import pytest

from mgrl_cli.errors import StorageError
from mgrl_cli.plots.data import EvaluationRow, PopulationRow, write_csv


def test_csv_reads_back_as_the_rows(
    tmp_path: Path, evaluations: list[EvaluationRow], population: list[PopulationRow]
):
    for rows in (evaluations, population):
        path = tmp_path / "new" / "rows.csv"
        write_csv(rows, path)
        with path.open(newline="", encoding="utf-8") as file:
            read = list(csv.DictReader(file))
        names = [field.name for field in fields(rows[0])]
        assert list(read[0]) == names
        assert len(read) == len(rows)
        for row, cells in zip(rows, read, strict=True):
            for name in names:
                value = getattr(row, name)
                if isinstance(value, float) and math.isnan(value):
                    assert cells[name] == ""
                else:
                    assert type(value)(cells[name]) == value


def test_write_error_is_told_in_one_line(tmp_path: Path, evaluations: list[EvaluationRow]):
    with pytest.raises(StorageError, match="cannot write"):
        write_csv(evaluations, tmp_path)
