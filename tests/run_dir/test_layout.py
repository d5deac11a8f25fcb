"""Where a run's files lie, and how a new run is claimed without touching an old one."""

import os
from pathlib import Path

import pytest

from mgrl_cli.errors import FileError, StorageError, UsageError
from mgrl_cli.run_dir.layout import (
    RunDirectory,
    create_run_directory,
    find_run,
    is_run_directory,
)


def make_run(path: Path) -> RunDirectory:
    """What a run is recognised by."""
    (path / "metrics").mkdir(parents=True)
    (path / "config.toml").write_text("")
    return RunDirectory(path)


def test_paths_are_those_of_the_documentation() -> None:
    run = RunDirectory(Path("runs/demo"))
    assert run.name == "demo"
    paths = {
        run.config: "config.toml",
        run.objective: "objective.safetensors",
        run.objective_at(40): "objectives/round-000040.safetensors",
        run.population_metrics: "metrics/population.jsonl",
        run.agent_metrics(7): "metrics/agent-007.jsonl",
        run.agent_buffer(7): "buffer.zarr/agent-007",
        run.objectives: "objectives",
        run.best_objective: "objective-best.safetensors",
        run.validation_at(40): "validation/round-000040",
        run.validation_metrics: "metrics/validation.jsonl",
        run.checkpoints: "checkpoints",
        run.logs: "logs",
        run.events: "logs/events.jsonl",
        run.lock: ".lock",
        run.lock_holder: ".lock-holder.json",
        run.tensorboard: "tensorboard",
        run.results: "results.json",
    }
    assert {path.relative_to("runs/demo").as_posix() for path in paths} == set(paths.values())


def test_a_new_run_gets_its_directories_and_parents(tmp_path: Path) -> None:
    run = create_run_directory(tmp_path / "deep" / "runs", "demo", "stem")
    assert run.path == tmp_path / "deep" / "runs" / "demo"
    assert sorted(path.name for path in run.path.iterdir()) == ["logs", "metrics"]


def test_a_taken_name_is_refused_and_the_old_run_left_alone(tmp_path: Path) -> None:
    old = create_run_directory(tmp_path, "demo", "stem")
    old.config.write_text("old")
    before = {path: path.stat() for path in [old.path, *old.path.rglob("*")]}
    with pytest.raises(UsageError, match="never overwritten; choose another --run"):
        create_run_directory(tmp_path, "demo", "stem")
    assert {path: path.stat() for path in [old.path, *old.path.rglob("*")]} == before


@pytest.mark.parametrize("content", [None, "a file"])
def test_a_name_that_a_file_or_a_dangling_link_has_is_taken(
    tmp_path: Path, content: str | None
) -> None:
    if content is None:
        (tmp_path / "demo").symlink_to("nowhere")
    else:
        (tmp_path / "demo").write_text(content)
    with pytest.raises(UsageError, match="exists"):
        create_run_directory(tmp_path, "demo", "stem")


HEX = "0123456789abcdef" * 2
LEFT_BEFORE_SETTINGS = (
    *("metrics/", "logs/", ".lock", ".lock-holder.json"),
    *(f".config.toml.{HEX}.partial", f"..lock-holder.json.{HEX}.partial"),
)
"""In the order in which a run makes them, so that a kill leaves the first few."""


def place(path: Path, name: str) -> None:
    if name.endswith("/"):
        (path / name).mkdir(parents=True)
    else:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("")


@pytest.mark.parametrize("number", range(len(LEFT_BEFORE_SETTINGS) + 1))
def test_a_name_whose_run_never_had_settings_is_free(tmp_path: Path, number: int) -> None:
    (tmp_path / "demo").mkdir()
    for name in LEFT_BEFORE_SETTINGS[:number]:
        place(tmp_path / "demo", name)
    run = create_run_directory(tmp_path, "demo", "stem")
    assert run.metrics.is_dir()
    assert run.logs.is_dir()
    with pytest.raises(FileError, match="start it again as before, with --run demo"):
        find_run("demo", tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        *("config.toml", "checkpoints/", "metrics/agent-000.jsonl", "logs/x", "notes.txt", ".git/"),
        *("objective.safetensors", "buffer.zarr/", ".config.toml.0.partial", "metrics/deep/", "x/"),
    ],
)
def test_a_name_whose_directory_holds_anything_else_is_taken(tmp_path: Path, name: str) -> None:
    place(tmp_path / "demo", name)
    before = sorted((tmp_path / "demo").rglob("*"))
    with pytest.raises(UsageError, match="never overwritten; choose another --run"):
        create_run_directory(tmp_path, "demo", "stem")
    assert sorted((tmp_path / "demo").rglob("*")) == before


@pytest.mark.parametrize("name", ["demo", "demo/metrics", "demo/.lock"])
def test_a_name_whose_directory_is_or_holds_a_link_is_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="never overwritten; choose another --run"):
        create_run_directory(tmp_path, "demo", "stem")


def test_made_up_names_pass_over_what_never_had_settings(tmp_path: Path) -> None:
    (tmp_path / "stem-001").mkdir()
    assert create_run_directory(tmp_path, None, "stem").name == "stem-002"


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/b", "/tmp/x", ".hidden", "-x", " x", "x ", "a\nb", "x\n"),
        *("nul\0", "\x1b[2J", "ä", "a:b", "~", "x" * 101),
    ],
)
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    runs_dir = tmp_path / "runs"
    with pytest.raises(UsageError, match="expected 1-100 letters, digits"):
        create_run_directory(runs_dir, name, "stem")
    assert not runs_dir.exists()


@pytest.mark.parametrize("name", ["a", "7", "A.b_c-d", "x" * 100])
def test_ordinary_names_are_taken(tmp_path: Path, name: str) -> None:
    assert create_run_directory(tmp_path, name, "stem").name == name


def test_made_up_names_count_up_and_fill_gaps(tmp_path: Path) -> None:
    names = [create_run_directory(tmp_path, None, "lunar-cheetah").name for _ in range(3)]
    assert names == ["lunar-cheetah-001", "lunar-cheetah-002", "lunar-cheetah-003"]
    (tmp_path / "lunar-cheetah-002").rename(tmp_path / "kept")
    assert create_run_directory(tmp_path, None, "lunar-cheetah").name == "lunar-cheetah-002"


def test_a_made_up_name_that_somebody_else_takes_meanwhile_is_passed_over(tmp_path: Path) -> None:
    # To `exists` a dangling link is free, to `mkdir` it is taken: as if another run had just begun.
    (tmp_path / "stem-001").symlink_to("nowhere")
    assert create_run_directory(tmp_path, None, "stem").name == "stem-002"


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("my_tasks:Thing-v0", "my_tasks-Thing-v0-001"),
        ("../../etc", "etc-001"),
        ("x" * 300, "x" * 80 + "-001"),
    ],
)
def test_a_made_up_name_is_always_a_usable_one(tmp_path: Path, stem: str, name: str) -> None:
    assert create_run_directory(tmp_path, None, stem).path == tmp_path / name


@pytest.mark.parametrize("name", ["r\udcfcns", "r\nuns", "nul\0"])
def test_runs_are_not_kept_where_logs_and_messages_cannot_name_them(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="expected a path of printable characters") as caught:
        create_run_directory(tmp_path / name, "demo", "stem")
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_runs_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(StorageError, match="cannot create a run in"):
        create_run_directory(tmp_path / "runs", "demo", "stem")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_a_storage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="Permission denied"):
            create_run_directory(tmp_path, "demo", "stem")
    finally:
        tmp_path.chmod(0o700)


def test_a_run_is_recognised_by_settings_and_metrics(tmp_path: Path) -> None:
    assert not is_run_directory(tmp_path)
    assert not is_run_directory(tmp_path / "absent")
    (tmp_path / "config.toml").write_text("")
    assert not is_run_directory(tmp_path)
    (tmp_path / "metrics").mkdir()
    assert is_run_directory(tmp_path)


def test_a_run_is_found_by_path_and_by_name(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo")
    assert find_run("demo", tmp_path) == run
    assert find_run(str(run.path), tmp_path / "elsewhere") == run


def test_a_run_that_is_not_there_gets_the_nearest_name(tmp_path: Path) -> None:
    make_run(tmp_path / "demo-hopper")
    (tmp_path / "demo-hoper-notes").mkdir()  # no run
    with pytest.raises(FileError) as caught:
        find_run("demo-hoper", tmp_path)
    assert str(caught.value) == (
        f"no run 'demo-hoper' here or in '{tmp_path}'. Did you mean 'demo-hopper'?"
    )


def test_a_run_is_not_found_where_there_are_no_runs_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no run 'demo'"):
        find_run("demo", tmp_path / "absent")
