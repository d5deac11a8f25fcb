import json
from pathlib import Path

import pytest
import zarr

from mgrl_cli.errors import FileError
from mgrl_cli.inspection.recognition import recognise
from mgrl_cli.run_dir.layout import RunDirectory


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        (".", "run"),
        ("buffer.zarr", "buffer"),
        ("buffer.zarr/agent-001", "agent"),
        ("objective.safetensors", "objective"),
    ],
)
def test_everything_is_known_by_its_content(run: RunDirectory, part: str, kind: str) -> None:
    assert recognise(run.path / part) == kind
    renamed = run.path.parent / "another name"
    (run.path / part).rename(renamed)
    assert recognise(renamed) == kind


def test_a_checkpoint_is_known_by_its_manifest_or_else_by_its_name(
    finished: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = finished.checkpoints / "round-000001"
    assert recognise(checkpoint) == "checkpoint"
    renamed = checkpoint.rename(finished.path.parent / "another name")
    assert recognise(renamed) == "checkpoint"
    named = renamed.rename(checkpoint)
    (named / "manifest.json").unlink()
    monkeypatch.chdir(named)
    assert recognise(Path()) == "checkpoint"


def test_a_run_without_its_settings_is_still_a_run(run: RunDirectory) -> None:
    (run.path / "config.toml").unlink()
    assert recognise(run.path) == "run"


def test_a_buffer_without_its_metadata_is_still_a_buffer(run: RunDirectory) -> None:
    (run.path / "buffer.zarr" / "zarr.json").unlink()
    assert recognise(run.path / "buffer.zarr") == "buffer"


def test_what_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"nowhere' does not exist, expected a run directory"):
        recognise(tmp_path / "nowhere")


def test_an_empty_directory_is_called_empty(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="an empty directory"):
        recognise(tmp_path)


def test_a_directory_of_runs_names_some(run: RunDirectory) -> None:
    with pytest.raises(FileError, match=r"a directory of runs \(name one of them, such as a\)"):
        recognise(run.path.parent)


def test_a_foreign_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(FileError, match="without anything that mgrl wrote"):
        recognise(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and so on", b"12345678["])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(FileError, match="no file that mgrl can look into"):
        recognise(tmp_path / "file")


def test_a_zarr_array_is_no_replay(run: RunDirectory) -> None:
    with pytest.raises(FileError, match="no Zarr group"):
        recognise(run.path / "buffer.zarr" / "agent-000" / "obs")


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000])
def test_damaged_zarr_metadata_are_named(run: RunDirectory, content: bytes) -> None:
    metadata = run.path / "buffer.zarr" / "zarr.json"
    metadata.write_bytes(content)
    with pytest.raises(FileError, match=r"zarr.json' is damaged"):
        recognise(run.path / "buffer.zarr")


def test_metadata_that_are_no_object_are_no_group(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text(json.dumps([1]))
    with pytest.raises(FileError, match="no Zarr group"):
        recognise(tmp_path)


def test_looking_at_a_foreign_zarr_group_does_not_make_it_ours(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "other.zarr", mode="w", zarr_format=3, attributes={"format": "x"})
    assert recognise(tmp_path / "other.zarr") == "agent"  # opening it says whose it is
