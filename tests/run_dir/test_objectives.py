"""Which objective a user means. Only paths are looked at, never an objective's content."""

import os
from pathlib import Path

import pytest

from mgrl_cli.config import RunConfig, validate_config
from mgrl_cli.errors import FileError
from mgrl_cli.run_dir.layout import RunDirectory, create_run_directory
from mgrl_cli.run_dir.objectives import find_objective
from mgrl_cli.run_dir.settings import write_settings


def make_run(runs_dir: Path, name: str, *, kind: str = "meta-train", age_s: int | None) -> Path:
    """A run, `age_s` seconds old; None: without an objective."""
    settings: RunConfig = validate_config(
        {"kind": kind, "preset": "smoke", "steps": 1, "envs": [{"id": "pendulum"}]}
    )
    run: RunDirectory = create_run_directory(runs_dir, name, "stem")
    write_settings(run, settings)
    if age_s is not None:
        run.objective.write_bytes(b"")
        os.utime(run.objective, (1e9 - age_s, 1e9 - age_s))
    return run.objective


def test_without_a_wish_it_is_the_newest_meta_training(tmp_path: Path) -> None:
    make_run(tmp_path, "a", age_s=20)
    newest = make_run(tmp_path, "b", age_s=10)
    make_run(tmp_path, "c", age_s=30)
    make_run(tmp_path, "tested", kind="meta-test", age_s=1)  # holds a copy of what it tested
    make_run(tmp_path, "unfinished", age_s=None)
    (tmp_path / "notes").mkdir()
    (tmp_path / "file.txt").write_text("")
    assert find_objective(None, tmp_path) == newest


@pytest.mark.parametrize("has_directory", [True, False])
def test_without_any_run_it_says_how_to_make_one(tmp_path: Path, has_directory: bool) -> None:
    runs_dir = tmp_path / "runs"
    if has_directory:
        make_run(runs_dir, "tested", kind="meta-test", age_s=1)
    with pytest.raises(FileError, match=r"make one with mgrl meta-train, or name one with --obj"):
        find_objective(None, runs_dir)


def test_a_run_is_taken_by_name_or_path(tmp_path: Path) -> None:
    objective = make_run(tmp_path, "a", age_s=1)
    assert find_objective("a", tmp_path) == objective
    assert find_objective(str(tmp_path / "a"), tmp_path / "elsewhere") == objective


def test_any_existing_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "odd name"
    path.write_bytes(b"")
    assert find_objective(str(path), tmp_path) == path


def test_a_missing_file_is_left_to_the_loader_which_names_it(tmp_path: Path) -> None:
    path = tmp_path / "absent.safetensors"
    assert find_objective(str(path), tmp_path) == path


def test_a_wrong_name_gets_the_nearest_run(tmp_path: Path) -> None:
    make_run(tmp_path, "hopper-7", age_s=1)
    with pytest.raises(FileError, match="Did you mean 'hopper-7'"):
        find_objective("hoper-7", tmp_path)


def test_a_run_without_an_objective_is_named(tmp_path: Path) -> None:
    make_run(tmp_path, "young", age_s=None)
    with pytest.raises(FileError, match=r"run '.*young' holds no objective"):
        find_objective("young", tmp_path)


@pytest.mark.parametrize("wanted", ["", "x" * 5000, "nul\0", "a/" * 3000])
def test_a_hostile_name_is_no_objective(tmp_path: Path, wanted: str) -> None:
    with pytest.raises(FileError):
        find_objective(wanted, tmp_path)
