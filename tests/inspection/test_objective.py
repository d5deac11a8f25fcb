import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mgrl_cli.errors import FileError
from mgrl_cli.inspection.objective import inspect_objective
from mgrl_cli.objective_file import LearnedObjective


@pytest.fixture
def file(tmp_path: Path, objective: Callable[..., LearnedObjective]) -> Path:
    objective().save(tmp_path / "objective.safetensors")
    return tmp_path / "objective.safetensors"


def test_parameters_are_counted_and_measured(
    file: Path, objective: Callable[..., LearnedObjective]
) -> None:
    report = inspect_objective(file)

    params = objective().params.numpy().astype(np.float64)
    assert report.num_parameters == params.size
    assert report.norm == pytest.approx(np.sqrt((params**2).sum()))
    assert sum(report.histogram.counts) == params.size
    assert sum(tensor.norm**2 for tensor in report.tensors) == pytest.approx(report.norm**2)
    first = report.tensors[0]
    assert (first.name, first.shape) == ("action.linear_1.weight", (2, 4))
    assert (first.spread.min, first.spread.max) == (params[:8].min(), params[:8].max())
    assert sum(first.histogram.counts) == 8


def test_metadata_are_those_of_the_file(file: Path) -> None:
    report = inspect_objective(file)
    assert report.metadata["environments"] == ["pendulum"]
    assert report.metadata["meta_steps"] == 5
    assert report.size_bytes == file.stat().st_size
    assert len(str(report.metadata["sha256"])) == len(hashlib.sha256().hexdigest())
    assert report.warnings == ()


def test_an_objective_that_asks_for_nothing_is_odd(
    tmp_path: Path, objective: Callable[..., LearnedObjective]
) -> None:
    objective(last_layer="zero", meta_steps=0).save(tmp_path / "fresh")
    nothing, untrained = inspect_objective(tmp_path / "fresh").warnings
    assert nothing.startswith("asks for nothing")
    assert untrained.startswith("not trained")


def test_a_damaged_file_is_refused(file: Path, damage: Callable[[Path], None]) -> None:
    damage(file)
    with pytest.raises(FileError, match="SHA-256"):
        inspect_objective(file)
