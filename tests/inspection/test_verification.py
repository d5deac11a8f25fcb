import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mgrl_cli.errors import FileError
from mgrl_cli.inspection.verification import verify
from mgrl_cli.inspection.verify_checkpoint import verify_checkpoint
from mgrl_cli.run_dir.checkpoints import checkpoint_paths
from mgrl_cli.run_dir.file_record import FileRecord
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.manifest import MANIFEST_NAME, read_manifest
from mgrl_cli.run_dir.tensor_file import read_tensor_file, tensor_file_bytes


@pytest.mark.parametrize(
    ("part", "kind", "files"),
    [
        ("checkpoints/round-000001", "checkpoint", 5),
        ("buffer.zarr", "buffer", 64),
        ("buffer.zarr/agent-001", "agent", 32),
        ("objective.safetensors", "objective", 1),
    ],
)
def test_parts_of_a_run_are_whole_by_themselves(
    finished: RunDirectory, part: str, kind: str, files: int
) -> None:
    found = verify(finished.path / part)
    assert (found.kind, found.problems, found.counts["file"]) == (kind, (), files)


@pytest.mark.parametrize(
    ("part", "file"),
    [
        ("checkpoints/round-000001", "agent-001.safetensors"),
        ("checkpoints/round-000001", "manifest.json"),
        ("buffer.zarr", "agent-000/obs/c/0/0"),
        ("buffer.zarr", "zarr.json"),
        ("buffer.zarr/agent-001", "episodes/length/c/0"),
        ("buffer.zarr/agent-001", "episodes/length/zarr.json"),
    ],
)
def test_damage_is_found_in_every_kind(finished: RunDirectory, part: str, file: str) -> None:
    (finished.path / part / file).unlink()
    found = verify(finished.path / part)
    assert not found.is_whole
    assert all(str(finished.path / part) in problem for problem in found.problems)


def test_a_damaged_objective_is_reported(
    finished: RunDirectory, damage: Callable[[Path], None]
) -> None:
    damage(finished.objective)
    (problem,) = verify(finished.objective).problems
    assert str(finished.objective) in problem


def test_a_checkpoint_is_known_from_within(
    finished: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint_paths(finished)[0])
    assert verify(Path()).is_whole


def test_a_checkpoint_under_another_name_is_refused(finished: RunDirectory) -> None:
    copy = shutil.copytree(checkpoint_paths(finished)[0], finished.path.parent / "copy")
    (problem,) = verify(copy).problems
    assert "give it back its name" in problem


def test_a_checkpoint_that_its_run_dropped_is_none(finished: RunDirectory) -> None:
    assert verify_checkpoint(finished.checkpoints / "round-000009") is None


def test_a_file_that_hides_in_a_checkpoint_is_found(finished: RunDirectory) -> None:
    path = checkpoint_paths(finished)[0]
    (path / "extra").write_text("hello")
    (problem,) = verify(path).problems
    assert "'extra'" in problem


def write_part(checkpoint: Path, name: str, content: bytes) -> None:
    """Replace a file and have the manifest agree."""
    manifest = read_manifest(checkpoint / MANIFEST_NAME)
    (checkpoint / name).write_bytes(content)
    files = {**manifest.files, name: FileRecord.of(content)}
    changed = manifest.model_copy(update={"files": files})
    (checkpoint / MANIFEST_NAME).write_bytes(changed.to_bytes())


@pytest.mark.parametrize(
    "tensor", ["policy.params", "policy.target", "critic.params", "critic.target"]
)
def test_parameters_must_be_finite_whatever_the_digests_say(
    finished: RunDirectory, tensor: str
) -> None:
    path = checkpoint_paths(finished)[0]
    name = "agent-000.safetensors"
    document, tensors = read_tensor_file(path / name, what="test file", max_bytes=2**20)
    tensors[tensor].view(-1)[3] = torch.nan
    write_part(path, name, tensor_file_bytes(tensors, document))
    (problem,) = verify(path).problems
    assert problem == f"'{path / name}': tensor '{tensor}' holds numbers that are not finite"


@pytest.mark.parametrize(
    "name", ["agent-000.safetensors", "exchange.safetensors", "objective.safetensors"]
)
@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}"])
def test_a_strangers_files_only_fail(finished: RunDirectory, name: str, content: bytes) -> None:
    path = checkpoint_paths(finished)[0]
    write_part(path, name, content)
    (problem,) = verify(path).problems
    assert str(path / name) in problem


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 10**5, b"\xff", b"1" * 5000, b"null"])
def test_a_strangers_manifest_only_fails(finished: RunDirectory, content: bytes) -> None:
    path = checkpoint_paths(finished)[0]
    (path / MANIFEST_NAME).write_bytes(content)
    (problem,) = verify(path).problems
    assert str(path / MANIFEST_NAME) in problem


def test_foreign_things_are_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    for path in (tmp_path, tmp_path / "holiday.jpg", tmp_path / "nowhere"):
        with pytest.raises(FileError, match="expected a run directory"):
            verify(path)


def test_a_buffer_that_is_still_empty_is_whole(finished: RunDirectory) -> None:
    for agent_id in range(2):
        shutil.rmtree(finished.agent_buffer(agent_id))
    found = verify(finished.buffer)
    assert found.is_whole
    assert found.notes == (f"'{finished.buffer}' holds no agent yet",)
