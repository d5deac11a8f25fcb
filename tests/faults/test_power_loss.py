"""The machine loses power while a run goes on: what had reached the disk is enough to go on.

Two courses are taken, in this process: a run from its claim to its end; and one that a crash left,
continued over the end of the first replay chunk. Each is stopped at a random operation, and of what
was not synced by then a random part survives, or none of it. Event files and logs are left out:
nothing is continued from them.
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mgrl_cli.errors import FileError
from mgrl_cli.inspection.verification import verify
from mgrl_cli.replay.schema import CHUNK_ROWS
from mgrl_cli.run_dir.checkpoints import checkpoint_paths
from mgrl_cli.run_dir.layout import RunDirectory, find_run
from mgrl_cli.run_dir.manifest import MANIFEST_NAME, read_manifest
from mgrl_cli.run_dir.tensor_file import read_tensor_file, tensor_file_bytes
from mgrl_cli.runtime.agent_files import part_name
from mgrl_cli.runtime.launch import claim_run
from mgrl_cli.runtime.resumption import resume, standing_of
from tests.faults.crashed_runs import crashed_run
from tests.faults.doctoring import doctor_part, only_checkpoint
from tests.faults.io_faults import count_operations
from tests.faults.power_loss import Journal, power_loss
from tests.faults.tally import trial, trials
from tests.runtime.conftest import Remembering, fingerprint, run_tiny, tiny_config

ROUND_STEPS = 20
SETTINGS = (
    *("checkpoints.interval_s=0", "checkpoints.keep=2", "meta.anneal_steps=40"),
    *(f"schedule.round_steps={ROUND_STEPS}", f"schedule.updates_start={ROUND_STEPS}"),
    *(f"exploration.random_steps={ROUND_STEPS}", f"evaluation.interval={ROUND_STEPS}"),
)
STOPS = trials(campaign=50)
CUTS = trials(campaign=5, suite=2)
"""Of each stop; the first is the worst case."""


class Course(NamedTuple):
    """A way that a run goes, again and again from the same start."""

    prepare: Callable[[Path], object]
    """Makes the runs directory that the way starts in; all of it counts as synced."""
    go: Callable[[Path], None]
    whole: dict[str, object]
    """Fingerprint of the finished run if nothing happens."""
    num_operations: int
    first_saved: int
    """Operations after which a checkpoint is sure to be there."""


@pytest.fixture(scope="module", autouse=True)
def no_event_files() -> Iterator[None]:
    """As where the `tensorboard` extra is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorboard", None)
        yield


def start_run(runs_dir: Path) -> None:
    config = tiny_config(envs=("cartpole",), agents=2, steps=3 * ROUND_STEPS, assignments=SETTINGS)
    run_tiny(config, runs_dir, "run", workers=0)


def continue_run(runs_dir: Path) -> None:
    resume(find_run("run", runs_dir), Remembering(), workers=0, say=lambda _: None)


@pytest.fixture(scope="module")
def from_the_claim(tmp_path_factory: pytest.TempPathFactory) -> Course:
    runs_dir = tmp_path_factory.mktemp("whole")
    with count_operations(runs_dir) as operations:
        start_run(runs_dir)
    committed = operations.index("rename run/checkpoints/round-000000") + 1
    assert operations[committed] == "fsync run/checkpoints"
    return Course(
        prepare=lambda runs_dir: runs_dir.mkdir(),
        go=start_run,
        whole=fingerprint(RunDirectory(runs_dir / "run")),
        num_operations=len(operations),
        first_saved=committed + 1,
    )


@pytest.fixture(scope="module")
def over_the_end_of_a_chunk(tmp_path_factory: pytest.TempPathFactory) -> Course:
    crashed = crashed_run(tmp_path_factory)

    def prepare(runs_dir: Path) -> RunDirectory:
        run = crashed.copy(runs_dir / "run")
        shutil.rmtree(checkpoint_paths(run)[-1])
        return run

    runs_dir = tmp_path_factory.mktemp("counted")
    run = prepare(runs_dir)
    assert full_chunks(run) == {0}
    with count_operations(runs_dir) as operations:
        continue_run(runs_dir)
    assert full_chunks(run) == {1}
    return Course(prepare, continue_run, crashed.undisturbed, len(operations), first_saved=0)


def full_chunks(run: RunDirectory) -> set[int]:
    """Return how many full chunks of steps the newest checkpoint names for its agents."""
    manifest = read_manifest(checkpoint_paths(run)[-1] / MANIFEST_NAME)
    return {replay.rows // CHUNK_ROWS for replay in manifest.replay.values()}


def stop(course: Course, runs_dir: Path, at: int) -> Journal:
    course.prepare(runs_dir)
    with power_loss(runs_dir, stop_at=at) as journal:
        course.go(runs_dir)
    assert journal.fired
    return journal


def check_what_is_left(runs_dir: Path, whole: dict[str, object], *, is_saved: bool) -> None:
    """Go on from what survived: exactly, or from the beginning if nothing had been saved."""
    try:
        run = find_run("run", runs_dir)
    except FileError:
        assert not is_saved
        assert not (runs_dir / "run" / "checkpoints").exists()
        assert claim_run(tiny_config(), runs_dir, "run").config.is_file()  # the name is free again
        return
    standing = standing_of(run)
    assert standing.problems == ()
    assert standing.checkpoint is not None or not is_saved
    continue_run(runs_dir)
    assert fingerprint(run) == whole
    assert verify(run.path).problems == ()
    assert leftovers(run) == []


def leftovers(run: RunDirectory) -> list[Path]:
    return [
        path
        for path in run.path.rglob("*")
        if path.name.startswith(".staging-") or path.name.endswith(".partial")
    ]


@pytest.mark.parametrize("name", ["from_the_claim", "over_the_end_of_a_chunk"])
@pytest.mark.parametrize("seed", range(STOPS))
def test_a_power_loss_loses_nothing_that_was_saved(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, seed: int
) -> None:
    course: Course = request.getfixturevalue(name)
    rng = np.random.default_rng(seed)
    at = int(rng.integers(1, course.num_operations + 1))
    journal = stop(course, tmp_path / "runs", at)
    for number in range(CUTS):
        with trial(f"05 power loss {name.replace('_', ' ')}"):
            cut = tmp_path / f"cut-{number}"
            journal.cut(cut, rng if number else None)
            try:
                check_what_is_left(cut, course.whole, is_saved=at > course.first_saved)
            except Exception as error:
                error.add_note(f"cut {number} of seed {seed}, at {journal.operations[at - 1]}")
                raise


def test_a_checkpoint_whose_tail_does_not_fit_its_position_is_refused(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    run = crashed_run(tmp_path_factory).copy(tmp_path / "run")
    path = only_checkpoint(run) / part_name(0)
    document, tensors = read_tensor_file(path, what="agent", max_bytes=2**24)
    tensors["replay.obs"] = tensors["replay.obs"][1:]
    doctor_part(path.parent, path.name, tensor_file_bytes(tensors, document))
    with pytest.raises(FileError, match=r"tensor 'replay\.obs' is torch\.float32 \(\d+, \d+\)"):
        continue_run(tmp_path)
