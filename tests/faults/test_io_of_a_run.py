"""Every I/O operation of a run is its last one, or fails: nothing that was saved is lost.

Two courses are taken, in this process: a run from its claim to its first checkpoint; and one that
a crash left in the middle of a checkpoint, continued through clearing up, cutting back, a round, a
checkpoint and the removal of an old one.

A crash is simulated, so the memory of the dead attempt lives on. What of it could reach a later
one is ruled out: the lock is seen to be free, zarr's threads have ended or are refused for good
(see `interception`), and all else goes with the frames that the crash unwinds.
"""

import errno
import itertools
import json
import re
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from mgrl_cli.cli import main
from mgrl_cli.errors import StorageError
from mgrl_cli.inspection.verification import verify
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.lock import lock_holder
from mgrl_cli.runtime.launch import claim_run
from mgrl_cli.runtime.resumption import resume, standing_of
from tests.faults.io_faults import count_operations, crash_at, fail_at
from tests.faults.tally import IS_CAMPAIGN, trial
from tests.runtime.conftest import Remembering, fingerprint, run_tiny, tiny_config

ROUND_STEPS = 20
SETTINGS = (
    *("checkpoints.interval_s=0", "checkpoints.keep=2", "meta.anneal_steps=40"),
    *(f"schedule.round_steps={ROUND_STEPS}", f"schedule.updates_start={ROUND_STEPS}"),
    *(f"exploration.random_steps={ROUND_STEPS}", f"evaluation.interval={ROUND_STEPS}"),
)
WAYS = tuple(itertools.product((errno.EIO, errno.ENOSPC, errno.EACCES), (False, True)))
"""How an operation fails: with which error, and whether all later ones fail too."""
HARMLESS = ("open .lock", "unlink .lock-holder.json", "unlink buffer.zarr", "rmdir buffer.zarr")
"""Beginnings of operations whose failure need not end a run: filelock asks for the lock again, and
what the others remove means nothing."""


class Course(NamedTuple):
    """A way that a run goes, again and again from the same start."""

    prepare: Callable[[Path], object]
    """Makes the runs directory that the way starts in."""
    go: Callable[[Path], None]
    whole: dict[str, object]
    """Fingerprint of the finished run if nothing happens."""
    operations: list[str]
    """Those to be hit, in order."""

    def numbers(self) -> list[int]:
        """Return the numbers of all operations, those of checkpoints first."""
        return sorted(
            range(1, len(self.operations) + 1),
            key=lambda number: "checkpoints" not in self.operations[number - 1],
        )

    def number(self, pattern: str) -> int:
        """Return the number, from 1, of the middle one of the operations that match."""
        found = [
            number
            for number, operation in enumerate(self.operations, start=1)
            if re.fullmatch(pattern, operation)
        ]
        assert found, f"no operation of the run is a {pattern}"
        return found[len(found) // 2]


def start_run(runs_dir: Path, rounds: int) -> None:
    config = tiny_config(
        envs=("cartpole",), agents=2, steps=rounds * ROUND_STEPS, assignments=SETTINGS
    )
    run_tiny(config, runs_dir, "run", workers=0)


def continue_run(runs_dir: Path) -> None:
    resume(RunDirectory(runs_dir / "run"), Remembering(), workers=0, say=lambda _: None)


@pytest.fixture(scope="module")
def beginning(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """A run of one round, hit on the way to its first checkpoint."""
    whole = tmp_path_factory.mktemp("beginning")
    with count_operations(whole / "run") as operations:
        start_run(whole, rounds=1)
    return Course(
        prepare=lambda runs_dir: runs_dir.mkdir(),
        go=lambda runs_dir: start_run(runs_dir, rounds=1),
        whole=fingerprint(RunDirectory(whole / "run")),
        operations=operations[: operations.index("rename checkpoints/round-000000") + 3],
    )


@pytest.fixture(scope="module")
def last_round(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """A run of four rounds, continued after a crash in the middle of its last checkpoint."""
    tmp_path = tmp_path_factory.mktemp("last-round")
    with count_operations(tmp_path / "whole" / "run") as operations:
        start_run(tmp_path / "whole", rounds=4)
    half_saved = max(
        number
        for number, operation in enumerate(operations, start=1)
        if re.fullmatch(r"write checkpoints/.*/agent-001\.safetensors", operation)
    )
    with crash_at(tmp_path / "littered" / "run", half_saved):
        start_run(tmp_path / "littered", rounds=4)
    litter(RunDirectory(tmp_path / "littered" / "run"))
    course = Course(
        prepare=lambda runs_dir: shutil.copytree(tmp_path / "littered", runs_dir),
        go=continue_run,
        whole=fingerprint(RunDirectory(tmp_path / "whole" / "run")),
        operations=[],
    )
    course.prepare(tmp_path / "counted")
    with count_operations(tmp_path / "counted" / "run") as counted:
        continue_run(tmp_path / "counted")
    course.operations.extend(counted)
    return course


def litter(run: RunDirectory) -> None:
    """Add what crashes at other moments leave."""
    assert standing_of(run).rounds == 3
    assert len(list(run.checkpoints.glob(".staging-*/agent-001.safetensors"))) == 1
    for name in (
        "buffer.zarr/agent-000/obs/c/1/0",
        "buffer.zarr/agent-001/reward/c/0.1234.partial",
        ".objective.safetensors.1234.partial",
        "objectives/.round-000004.safetensors.1234.partial",
    ):
        (run.path / name).parent.mkdir(exist_ok=True, parents=True)
        (run.path / name).write_bytes(b"half of something")


def check_what_is_left(run: RunDirectory, whole: dict[str, object]) -> None:
    """Look at a run as a new process would: it is whole and goes on as if nothing had happened."""
    if not run.config.is_file():
        assert not run.checkpoints.exists()
        assert claim_run(tiny_config(), run.path.parent, run.name) == run  # the name is free again
        return
    assert lock_holder(run) is None
    assert verify(run.path).problems == ()
    standing = standing_of(run)
    assert standing.problems == ()
    continue_run(run.path.parent)
    assert fingerprint(run) == whole
    assert leftovers(run) == []


def leftovers(run: RunDirectory) -> list[Path]:
    return [
        path
        for path in run.path.rglob("*")
        if path.name.startswith((".staging-", ".lock-holder")) or path.name.endswith(".partial")
    ]


@contextmanager
def hit(course: Course, number: int, how: object = "") -> Generator[None]:
    """Name the operation in whatever goes wrong."""
    try:
        yield
    except Exception as error:
        error.add_note(f"operation {number}, {course.operations[number - 1]} {how}")
        raise


def crash(course: Course, runs_dir: Path, number: int) -> None:
    """One crash, at the operation of this number."""
    with trial("3 crash at an I/O operation"), hit(course, number):
        course.prepare(runs_dir)
        run = RunDirectory(runs_dir / "run")
        with crash_at(run.path, number) as crashed:
            course.go(runs_dir)
        assert crashed.fired
        check_what_is_left(run, course.whole)
    shutil.rmtree(runs_dir)


def fail(course: Course, runs_dir: Path, number: int, way: tuple[int, bool]) -> None:
    """One failure, at the operation of this number."""
    error_number, is_sticky = way
    row = f"4 {errno.errorcode[error_number]} {'from then on' if is_sticky else 'once'}"
    with trial(row), hit(course, number, row):
        course.prepare(runs_dir)
        run = RunDirectory(runs_dir / "run")
        message = ""
        with fail_at(run.path, number, error_number, sticky=is_sticky) as failure:
            try:
                course.go(runs_dir)
            except StorageError as error:
                message = str(error)
        assert failure.fired
        operation = failure.operations[number - 1]
        # A full disk still lets go: where nothing is written any more, nobody notices.
        if message or way != (errno.ENOSPC, True) or not operation.startswith(("unlink", "rmdir")):
            check_message(message, run, operation)
        check_final_names(run, can_mend=not is_sticky)
        check_what_is_left(run, course.whole)
    shutil.rmtree(runs_dir)


def check_message(message: str, run: RunDirectory, operation: str) -> None:
    """It is one line that names a path and, once anything is saved, says how to continue."""
    if operation.startswith(HARMLESS) and not message:
        return
    is_made = operation != "mkdir ."  # else the line names the directory of runs
    assert str(run.path if is_made else run.path.parent) in message
    assert "\n" not in message
    assert len(message) < 600
    is_going_on = re.match(r"\w+ (buffer|metrics|objective)", operation) is not None
    if is_going_on and list(run.checkpoints.glob("round-*")) and "cannot tidy" not in message:
        assert f"continue with: mgrl resume {run.path}" in message


def check_final_names(run: RunDirectory, *, can_mend: bool) -> None:
    """What has its final name is whole, and rows of metrics are unless nothing could be written."""
    for path in (*run.path.glob("*.safetensors"), *run.objectives.glob("[!.]*")):
        LearnedObjective.load(path)
    for path in run.metrics.glob("*.jsonl") if can_mend else ():
        for line in path.read_text().splitlines():
            json.loads(line)


# ---- row 3: the process dies


@pytest.mark.parametrize(
    "pattern",
    [
        r"truncate metrics/agent-001\.jsonl",
        r"rename buffer\.zarr/agent-00./.*",
        r"write \.objective\.safetensors.*",
        r"write checkpoints/\.staging-.*/agent-001\.safetensors",
        r"rename checkpoints/round-000004",
        r"rename checkpoints/\.staging-.*",
    ],
    ids=["cutting back", "replay", "objective", "saving", "commit", "dropping"],
)
def test_a_crash_loses_nothing(last_round: Course, tmp_path: Path, pattern: str) -> None:
    crash(last_round, tmp_path / "runs", last_round.number(pattern))


@pytest.mark.parametrize(
    "pattern",
    [
        r"mkdir logs",
        r"rename config\.toml",
        r"rename buffer\.zarr/.*",
        r"fsync checkpoints/\.staging-.*",
    ],
)
def test_a_crash_at_the_beginning_loses_nothing(
    beginning: Course, tmp_path: Path, pattern: str
) -> None:
    crash(beginning, tmp_path / "runs", beginning.number(pattern))


@pytest.mark.skipif(not IS_CAMPAIGN, reason="the campaign tries every operation")
@pytest.mark.parametrize("name", ["beginning", "last_round"])
def test_a_crash_at_any_operation_loses_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    course: Course = request.getfixturevalue(name)
    for number in course.numbers():
        crash(course, tmp_path / "runs", number)


# ---- row 4: an operation is refused


@pytest.mark.parametrize(
    ("way", "pattern"),
    list(
        zip(
            WAYS,
            [
                r"rmdir checkpoints/\.staging-.*",
                r"rename buffer\.zarr/agent-00./.*",
                r"rename objective\.safetensors",
                r"write metrics/population\.jsonl",
                r"fsync buffer\.zarr/agent-00./.*",
                r"write checkpoints/\.staging-.*/manifest\.json",
            ],
            strict=True,
        )
    ),
)
def test_a_failure_is_one_line_and_loses_nothing(
    last_round: Course, tmp_path: Path, way: tuple[int, bool], pattern: str
) -> None:
    fail(last_round, tmp_path / "runs", last_round.number(pattern), way)


def test_a_failure_at_the_beginning_is_one_line(beginning: Course, tmp_path: Path) -> None:
    number = beginning.number(r"write checkpoints/\.staging-.*/objective\.safetensors")
    fail(beginning, tmp_path / "runs", number, (errno.ENOSPC, True))


@pytest.mark.skipif(not IS_CAMPAIGN, reason="the campaign tries every operation")
@pytest.mark.parametrize("name", ["beginning", "last_round"])
def test_a_failure_of_any_operation_is_one_line_and_loses_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    """In all ways, but for the replay's many alike, which take turns."""
    course: Course = request.getfixturevalue(name)
    for turn in range(len(WAYS)):  # every operation once before any of them twice
        for number in course.numbers():
            is_replay = " buffer.zarr/" in course.operations[number - 1]
            if turn == 0 or not is_replay:
                fail(course, tmp_path / "runs", number, WAYS[(number + turn) % len(WAYS)])


def test_the_command_ends_with_exit_code_7_and_one_line(
    last_round: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last_round.prepare(tmp_path / "runs")
    run = RunDirectory(tmp_path / "runs" / "run")
    number = last_round.number(r"fsync checkpoints/\.staging-.*/exchange\.safetensors")
    with trial("4 EIO seen by the command"):
        with fail_at(run.path, number, errno.EIO):
            assert main(["resume", str(run.path), "--workers", "0", "--quiet"]) == 7
        out, err = capsys.readouterr()
        assert out == ""
        (line,) = err.splitlines()
        assert str(run.checkpoints) in line
        assert f"saved as round-000003, continue with: mgrl resume {run.path}" in line
        assert main(["resume", str(run.path), "--workers", "0", "--quiet"]) == 0
        assert fingerprint(run) == last_round.whole
