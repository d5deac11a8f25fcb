import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgrl_cli.config import RunConfig
from mgrl_cli.inspection.findings import Verification
from mgrl_cli.inspection.verification import verify
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.replay.schema import FIELDS
from mgrl_cli.run_dir.checkpoints import checkpoint_paths
from mgrl_cli.run_dir.layout import RunDirectory, create_run_directory
from mgrl_cli.run_dir.lock import locked
from mgrl_cli.run_dir.manifest import MANIFEST_NAME, Manifest, read_manifest
from mgrl_cli.run_dir.settings import write_settings

DAMAGES = 40


def protected_files(run: RunDirectory) -> list[list[Path]]:
    """Every file whose bytes a digest or checksum covers, by kind of file."""
    kinds = (
        ("checkpoints/*/manifest.json",),
        ("checkpoints/*/*.safetensors",),
        ("buffer.zarr/**/c/**/*",),
        ("metrics/*.jsonl",),
        ("objective.safetensors", "objectives/*.safetensors"),
        ("config.toml",),
    )
    return [
        sorted(file for pattern in kind for file in run.path.glob(pattern) if file.is_file())
        for kind in kinds
    ]


def damage_somehow(file: Path, rng: np.random.Generator, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "flip":
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        file.write_bytes(content)
    elif how == "truncate":
        file.write_bytes(content[: rng.integers(len(content))])
    else:
        file.unlink()


def is_named(file: Path, run: RunDirectory, found: Verification) -> bool:
    inner = file.relative_to(run.path)
    if inner.parts[0] != "buffer.zarr":
        return any(str(file) in problem for problem in found.problems)
    group, (array, chunk) = (
        run.path / Path(*inner.parts[:2]),
        "/".join(inner.parts[2:]).split("/c/"),
    )
    pattern = rf"{re.escape(str(group))}: array '{array}' chunk {chunk.split('/')[0]} "
    return any(re.search(pattern, problem) for problem in found.problems)


def test_an_untouched_run_is_whole(finished: RunDirectory) -> None:
    found = verify(finished.path)
    assert (found.kind, found.problems, found.notes) == ("run", (), ())
    assert found.counts["checkpoint"] == 3
    assert found.counts["agent"] == 2
    # Everything but the event file, the lock and the group above the agents.
    others = ("tensorboard", ".lock", "buffer.zarr/zarr.json")
    files = [file for file in finished.path.rglob("*") if file.is_file()]
    read = [file for file in files if not str(file.relative_to(finished.path)).startswith(others)]
    assert found.counts["file"] == len(read)
    assert found.num_bytes == sum(file.stat().st_size for file in read)


def test_damage_to_any_protected_file_is_named(finished: RunDirectory) -> None:
    rng = np.random.default_rng(0)
    kinds = protected_files(finished)
    unnoticed: list[tuple[Path, str]] = []
    for number in range(DAMAGES):
        files = kinds[number % len(kinds)]
        file = files[rng.integers(len(files))]
        how = ("flip", "truncate", "delete")[rng.integers(3)]
        content = file.read_bytes()
        damage_somehow(file, rng, how)
        if not is_named(file, finished, verify(finished.path)):
            unnoticed.append((file, how))
        file.write_bytes(content)
    assert unnoticed == []
    assert verify(finished.path).is_whole


def test_one_damaged_part_does_not_hide_another(finished: RunDirectory) -> None:
    newest = checkpoint_paths(finished)[-1]
    (newest / "exchange.safetensors").unlink()
    finished.agent_metrics(1).write_text("{}\n")
    (finished.agent_buffer(0) / "reward" / "c" / "0").unlink()
    found = verify(finished.path)
    assert [part.name for part in found.parts if part.problems] == [
        f"checkpoint {newest.name}",
        "metrics",
        "replay of agent-000",
    ]


def test_rows_and_steps_after_the_newest_checkpoint_are_no_damage(finished: RunDirectory) -> None:
    shutil.rmtree(checkpoint_paths(finished)[-1])
    found = verify(finished.path)
    assert found.is_whole
    assert any("steps are newer than the checkpoint" in note for note in found.notes)


@pytest.mark.parametrize("count", ["committed_rows", "committed_episodes"])
@pytest.mark.parametrize("are_arrays_as_long", [False, True])
def test_more_rows_than_there_are_chunks_are_a_problem(
    finished: RunDirectory, count: str, are_arrays_as_long: bool
) -> None:
    group, absurd = finished.agent_buffer(1), 10**12

    def change(file: Path, change_document: Callable[[dict[str, Any]], None]) -> None:
        document = json.loads(file.read_text())
        change_document(document)
        file.write_text(json.dumps(document))

    change(group / "zarr.json", lambda document: document["attributes"].update({count: absurd}))
    for field in FIELDS.values() if are_arrays_as_long else ():
        change(
            group / field.path / "zarr.json",
            lambda document: document.update(shape=[absurd, *document["shape"][1:]]),
        )
    (problem,) = verify(finished.path).problems
    assert str(group) in problem
    assert str(absurd) in problem


@pytest.mark.parametrize("torn", ['{"round": 3, "env_st', '{"round": 3}\n{"ro'])
def test_a_row_torn_by_a_crash_is_noted(finished: RunDirectory, torn: str) -> None:
    with finished.population_metrics.open("a") as file:
        file.write(torn)
    found = verify(finished.path)
    assert found.is_whole
    assert found.notes == (
        f"'{finished.population_metrics}' ends within a row: being written, or left by a crash",
    )


@pytest.mark.parametrize("row", ["nonsense\n", "[1]\n", "[" * 100_000 + "\n", "x" * 2**21])
def test_newer_rows_must_be_objects(finished: RunDirectory, row: str) -> None:
    size = finished.population_metrics.stat().st_size
    with finished.population_metrics.open("a") as file:
        file.write(row)
    assert verify(finished.path).problems == (
        f"'{finished.population_metrics}' is damaged: no JSON object follows byte {size}",
    )


def test_what_a_crash_leaves_is_noted(finished: RunDirectory) -> None:
    (finished.checkpoints / ".staging-0").mkdir()
    (finished.checkpoints / ".damaged-round-000001-0").mkdir()
    crashed = verify(finished.path)
    assert crashed.is_whole
    assert [note.split("' is ")[1][:20] for note in crashed.notes] == [
        "no checkpoint: left ",
        "a damaged checkpoint",
    ]
    with locked(finished):
        written, staging, _ = verify(finished.path).notes
    assert written.startswith("the run is being written by pid ")
    assert staging.endswith("being written or removed")


def test_a_link_is_a_problem_and_is_not_followed(finished: RunDirectory, tmp_path: Path) -> None:
    for path in (finished.logs / "worker", finished.lock):
        path.unlink(missing_ok=True)
        path.symlink_to(tmp_path)
        (problem,) = verify(finished.path).problems
        assert problem.startswith(f"'{path}' is a symbolic link")
        path.unlink()


@pytest.mark.parametrize(
    "part",
    ["config.toml", "metrics/population.jsonl", "checkpoints/round-000002/manifest.json",
     "checkpoints/round-000002/agent-000.safetensors", "objective.safetensors", ".lock"],
)  # fmt: skip
def test_nobody_waits_for_a_pipe(finished: RunDirectory, part: str) -> None:
    file = finished.path / part
    file.unlink()
    os.mkfifo(file)
    assert is_named(file, finished, verify(finished.path)) or part == ".lock"


def test_settings_must_be_those_of_the_newest_checkpoint(finished: RunDirectory) -> None:
    text = finished.config.read_text()
    for change, expected in (
        (("seed = 0", "seed = 1"), "its settings do not match round-000002"),
        (("keep = 3", "keep = 4"), "though it has the same settings"),
        (("seed = 0", "sead = 0"), "restore it from a copy"),
    ):
        finished.config.write_text(text.replace(*change))
        (problem,) = verify(finished.path).problems
        assert expected in problem
        assert str(finished.config) in problem


def test_a_finished_run_has_the_objective_of_its_last_checkpoint(
    finished: RunDirectory, objective: Callable[..., LearnedObjective]
) -> None:
    objective().save(finished.objective)
    (problem,) = verify(finished.path).problems
    assert problem == (
        f"'{finished.objective}' is not the objective of round-000002; restore it from there"
    )


def rewrite_newest(run: RunDirectory, **changes: object) -> Manifest:
    """Change the newest checkpoint's manifest as its writer would have; rename it if need be."""
    path = checkpoint_paths(run)[-1]
    manifest = read_manifest(path / MANIFEST_NAME).model_copy(update=changes)
    (path / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    path.rename(path.with_name(manifest.name))
    return manifest


def test_the_best_checkpoint_is_missed(finished: RunDirectory) -> None:
    rewrite_newest(finished, best="round-000001")
    best = finished.checkpoints / "round-000001"
    shutil.rmtree(best)
    assert verify(finished.path).problems == (
        f"'{best}', the best checkpoint, is missing; restore it from a copy",
    )


def test_a_manifest_that_claims_a_billion_rounds_is_soon_done(finished: RunDirectory) -> None:
    rewrite_newest(finished, rounds=10**9, best="")
    problems = verify(finished.path).problems
    assert len(problems) == 100
    assert problems[0].startswith(f"'{finished.objective_at(10)}' is missing")


def test_lost_checkpoints_are_a_problem_once_there_are_metrics(finished: RunDirectory) -> None:
    shutil.rmtree(finished.checkpoints)
    found = verify(finished.path)
    (problem,) = found.problems
    assert str(finished.checkpoints) in problem
    assert found.counts["agent"] == 2


def test_a_run_that_has_only_begun_is_whole(
    tmp_path: Path, config: Callable[..., RunConfig]
) -> None:
    run = create_run_directory(tmp_path, "new", "unused")
    write_settings(run, config("meta-train"))
    found = verify(run.path)
    assert found.is_whole
    assert found.notes == (
        "no checkpoint has been made yet; a resume would begin at the beginning",
    )
