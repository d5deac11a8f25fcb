"""A checkpoint is whole or not there, and there is always one, whatever happens to the disk."""

import errno
import itertools
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.run_dir.build import this_build
from mgrl_cli.run_dir.checkpoints import (
    Checkpoint,
    CheckpointStore,
    best_of,
    checkpoint_paths,
    load_checkpoint,
    newest_manifest,
    write_part,
)
from mgrl_cli.run_dir.file_record import FileRecord
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.manifest import Manifest, checkpoint_name
from tests.faults.io_faults import count_operations, crash_at, fail_at
from tests.faults.power_loss import power_loss

ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES)
BUILD = this_build()
RECORD = FileRecord.of(b"abc")
PARTS = ("agent-000.safetensors", "objective.safetensors")
KEEP = 2


def content_of(rounds: int, part: str) -> bytes:
    return f"{part} after {rounds} rounds ".encode() * 5


def manifest_of(
    rounds: int,
    updates: int = 0,
    *,
    files: Mapping[str, FileRecord] | None = None,
    best: str = "",
    evaluations: Mapping[str, float] | None = None,
    barren_meetings: int = 0,
) -> Manifest:
    return Manifest(
        kind="meta-train",
        rounds=rounds,
        updates=updates,
        elapsed_s=1.5 * rounds,
        settings_sha256=RECORD.sha256,
        build=BUILD,
        files=dict(files or {}),
        config=RECORD,
        metrics={},
        replay={},
        quarantined={},
        barren_meetings=barren_meetings,
        evaluations=dict(evaluations or {}),
        best=best or checkpoint_name(rounds, updates),
    )


def save(
    run: RunDirectory, rounds: int, updates: int = 0, *, keep: int = KEEP, **manifest: object
) -> Checkpoint:
    """A whole cycle, as a run makes it."""
    store = CheckpointStore(run, keep=keep)
    staging = store.stage()
    files = {part: write_part(staging, part, content_of(rounds, part)) for part in PARTS}
    return store.commit(staging, manifest_of(rounds, updates, files=files, **manifest))


def names(run: RunDirectory) -> list[str]:
    """Everything in checkpoints/, hidden or not."""
    if not run.checkpoints.is_dir():
        return []
    return sorted(path.name for path in run.checkpoints.iterdir())


def newest_round(run: RunDirectory) -> int:
    """The round of the newest checkpoint; 0: none. No half one may bear a checkpoint's name."""
    for path in checkpoint_paths(run):
        manifest = load_checkpoint(path).manifest
        for part in PARTS:
            assert (path / part).read_bytes() == content_of(manifest.rounds, part)
    checkpoint, problems = CheckpointStore(run, keep=KEEP).newest()
    assert problems == []
    return checkpoint.manifest.rounds if checkpoint is not None else 0


def recover(run: RunDirectory) -> None:
    """What a resume does, and the next two checkpoints."""
    CheckpointStore(run, keep=KEEP).sweep()
    assert all(name.startswith("round-") for name in names(run))
    for rounds in range(newest_round(run) + 1, 5):
        save(run, rounds)
    assert names(run) == ["round-000003", "round-000004"]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    (tmp_path / "run").mkdir()
    return RunDirectory(tmp_path / "run")


Copies = Callable[[], RunDirectory]


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    """Gives a new copy, at each call, of a run with checkpoints of rounds 1 and 2."""
    original = RunDirectory(tmp_path / "original")
    original.path.mkdir()
    save(original, 1)
    save(original, 2)
    numbers = itertools.count()

    def copy() -> RunDirectory:
        path = tmp_path / f"copy-{next(numbers)}"
        shutil.copytree(original.path, path)
        return RunDirectory(path)

    return copy


# ---- a cycle, and how each of its operations fails

CYCLE = """mkdir S, create S/agent, write S/agent, fsync S/agent, create S/objective,
write S/objective, fsync S/objective, create S/manifest, write S/manifest, fsync S/manifest,
fsync S, rename round-000003, fsync ., fsync .., rename S, fsync ., unlink S/agent,
unlink S/manifest, unlink S/objective, rmdir S"""


def test_a_cycle_flushes_what_it_is_about_to_show_and_drops_last(copies: Copies) -> None:
    run = copies()
    with count_operations(run.path) as operations:
        save(run, 3)
    told = []
    for operation in operations:
        kind, _, path = operation.partition(" ")
        parts = ["S" if part.startswith(".staging-") else part for part in Path(path).parts]
        path = "/".join(parts[1:]).removesuffix(".safetensors").removesuffix(".json") or "."
        told.append(f"{kind} {path if parts else '..'}".replace("agent-000", "agent"))
    unordered, last = set(told[16:19]), told[19]
    assert [*told[:16], *sorted(unordered), last] == " ".join(CYCLE.split()).split(", ")


def test_a_crash_at_any_moment_leaves_the_old_checkpoint_or_the_new(copies: Copies) -> None:
    seen = []
    for n in itertools.count(1):
        run = copies()
        with crash_at(run.path, n) as crash:
            save(run, 3)
        seen.append(newest_round(run))
        recover(run)
        if not crash.fired:
            break
    assert seen == [2] * 12 + [3] * 9  # the twelfth operation is the rename


def test_a_crash_in_the_very_first_cycle_leaves_none_or_one(tmp_path: Path) -> None:
    seen = []
    for n in itertools.count(1):
        run = RunDirectory(tmp_path / str(n))
        run.path.mkdir()
        with crash_at(run.path, n) as crash:
            save(run, 1)
        seen.append(newest_round(run))
        recover(run)
        if not crash.fired:
            break
    assert seen == [0] * 14 + [1] * 3  # two more: creating checkpoints/


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
@pytest.mark.parametrize(
    ("errno_value", "first", "stride"),
    [
        *((errno_value, 1 + number, 3) for number, errno_value in enumerate(ERRORS)),
        *(pytest.param(errno_value, 1, 1, marks=pytest.mark.slow) for errno_value in ERRORS),
    ],
)
def test_a_failure_at_any_moment_is_told_and_leaves_a_whole_checkpoint(
    copies: Copies, errno_value: int, sticky: bool, first: int, stride: int
) -> None:
    for n in itertools.count(first, stride):
        run = copies()
        with fail_at(run.path, n, errno_value, sticky=sticky) as failure:
            try:
                save(run, 3)
            except StorageError as error:
                failed = str(error)
            else:
                failed = ""
        assert bool(failed) == (failure.fired and (errno_value, sticky, n > 16) != FULL)
        assert failed.isprintable()
        assert str(run.path) in failed or not failed
        assert newest_round(run) == (2 if n <= 12 else 3)
        recover(run)
        if not failure.fired:
            break


FULL = (errno.ENOSPC, True, True)
"""A full disk from the first deletion on, which needs no space."""


@pytest.mark.parametrize(
    ("stride", "variants"), [(2, 3), pytest.param(1, 30, marks=pytest.mark.slow)]
)
def test_a_power_loss_at_any_moment_leaves_a_whole_checkpoint(
    copies: Copies, tmp_path: Path, rng: np.random.Generator, stride: int, variants: int
) -> None:
    for n in itertools.count(1, stride):
        run = copies()
        with power_loss(run.path, stop_at=n) as journal:
            save(run, 3)
        for variant in range(variants):
            cut = RunDirectory(tmp_path / f"cut-{n}-{variant}")
            journal.cut(cut.path, rng if variant else None)
            # The thirteenth operation makes the name durable, the twelfth shows it.
            allowed = {2} if n <= 12 else {2, 3} if n == 13 else {3}
            assert newest_round(cut) in allowed
            recover(cut)
        if not journal.fired:
            break


def test_a_power_loss_after_a_cycle_does_not_take_it_back(
    copies: Copies, tmp_path: Path, rng: np.random.Generator
) -> None:
    run = copies()
    first = RunDirectory(tmp_path / "first")
    first.path.mkdir()
    for saved, rounds in ((run, 3), (first, 1)):
        with power_loss(saved.path) as journal:
            save(saved, rounds)
        for variant in range(20):
            cut = RunDirectory(tmp_path / f"cut-{rounds}-{variant}")
            journal.cut(cut.path, rng if variant else None)
            assert newest_round(cut) == rounds


@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_power_loss_in_the_very_first_cycle_leaves_none_or_one(
    tmp_path: Path, rng: np.random.Generator, stride: int
) -> None:
    for n in itertools.count(1, stride):
        run = RunDirectory(tmp_path / str(n))
        run.path.mkdir()
        with power_loss(run.path, stop_at=n) as journal:
            save(run, 1)
        for variant in range(3):
            cut = RunDirectory(tmp_path / f"cut-{n}-{variant}")
            journal.cut(cut.path, rng if variant else None)
            assert newest_round(cut) in ({0} if n <= 13 else {0, 1} if n <= 15 else {1})
            recover(cut)
        if not journal.fired:
            break


def test_what_the_manifest_does_not_say_is_not_committed(copies: Copies) -> None:
    run = copies()
    store = CheckpointStore(run, keep=1)
    before = names(run)
    for surplus, message in ((True, "is no part of"), (False, "is missing")):
        staging = store.stage()
        record = write_part(staging, PARTS[0], b"x")
        files = {} if surplus else dict.fromkeys(PARTS, record)
        with pytest.raises(FileError, match=message):
            store.commit(staging, manifest_of(3, files=files))
    store.sweep()
    assert names(run) == before


# ---- finding the newest


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_where_there_are_no_checkpoints_none_is_found(run: RunDirectory) -> None:
    assert CheckpointStore(run, keep=1).newest() == (None, [])
    staging = CheckpointStore(run, keep=1).stage()
    (run.checkpoints / "round-1").mkdir()
    assert CheckpointStore(run, keep=1).newest() == (None, [])
    CheckpointStore(run, keep=1).sweep()
    assert not staging.exists()


def test_damaged_checkpoints_are_passed_over_and_named(run: RunDirectory) -> None:
    for rounds in range(1, 5):
        save(run, rounds, keep=9)
    damage(run.checkpoints / "round-000004" / "manifest.json")
    damage(run.checkpoints / "round-000003" / PARTS[1])
    (run.checkpoints / "round-000009").touch()
    checkpoint, problems = CheckpointStore(run, keep=1).newest()
    assert checkpoint is not None
    assert checkpoint.path.name == "round-000002"
    assert [str(run.checkpoints / f"round-00000{n}") in problems[i] for i, n in enumerate("943")]
    assert problems[2].endswith(f"{PARTS[1]}' is damaged: it does not match its SHA-256")
    assert len(problems) == 3


def test_where_all_are_damaged_nothing_is_begun_anew(copies: Copies) -> None:
    run = copies()
    for path in checkpoint_paths(run):
        damage(path / "manifest.json")
    before = names(run)
    store = CheckpointStore(run, keep=1)
    for look in (store.newest, store.sweep):
        with pytest.raises(FileError, match=r"no checkpoint of .* is whole; restore one") as caught:
            look()
        assert "round-000002" in str(caught.value)
    assert names(run) == before


@pytest.mark.parametrize("name", [*PARTS, "manifest.json"])
def test_every_cut_of_a_file_is_seen(copies: Copies, name: str) -> None:
    path = copies().checkpoints / "round-000002"
    content = (path / name).read_bytes()
    for size in (0, 1, len(content) // 2, len(content) - 1):
        (path / name).write_bytes(content[:size])
        with pytest.raises(FileError, match=name):
            load_checkpoint(path)
    (path / name).write_bytes(content + b"\0")
    with pytest.raises(FileError, match=name):
        load_checkpoint(path)
    (path / name).unlink()
    with pytest.raises(FileError, match=f"{name}' is missing; restore it from a copy"):
        load_checkpoint(path)


@pytest.mark.parametrize("flips", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_every_flipped_bit_is_seen(copies: Copies, rng: np.random.Generator, flips: int) -> None:
    path = copies().checkpoints / "round-000002"
    contents = {file: file.read_bytes() for file in sorted(path.iterdir())}
    load_checkpoint(path)
    for _ in range(flips):
        file = list(contents)[rng.integers(len(contents))]
        content = bytearray(contents[file])
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        file.write_bytes(content)
        with pytest.raises(FileError, match=file.name):
            load_checkpoint(path)
        file.write_bytes(contents[file])
    load_checkpoint(path)


@pytest.mark.parametrize("name", ["agent-001.safetensors", ".hidden", "\x1b[2J\n", "r\udcfcn"])
@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_too_much_is_seen(copies: Copies, name: str, kind: str) -> None:
    path = copies().checkpoints / "round-000002"
    {
        "file": (path / name).touch,
        "directory": (path / name).mkdir,
        "link": lambda: (path / name).symlink_to(PARTS[0]),
    }[kind]()
    with pytest.raises(FileError, match="which is no part of the checkpoint") as caught:
        load_checkpoint(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("new", ["round-000007", "round-000002-update-000001"])
def test_a_checkpoint_under_another_name_is_not_taken_for_another(copies: Copies, new: str) -> None:
    run = copies()
    path = (run.checkpoints / "round-000002").rename(run.checkpoints / new)
    with pytest.raises(FileError, match=f"{new}' is the checkpoint round-000002; give it back"):
        load_checkpoint(path)
    checkpoint, problems = CheckpointStore(run, keep=1).newest()
    assert checkpoint is not None
    assert checkpoint.manifest.rounds == 1
    assert len(problems) == 1


@pytest.mark.parametrize("name", [*PARTS, "manifest.json"])
def test_a_link_in_the_place_of_a_file_is_refused(copies: Copies, name: str) -> None:
    run = copies()
    path = run.checkpoints / "round-000002" / name
    path.rename(run.path / "outside")
    path.symlink_to(run.path / "outside")
    with pytest.raises(FileError, match=f"{name}' is not a regular file"):
        load_checkpoint(path.parent)


def refuse(number: int) -> Callable[..., None]:
    def refusing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refusing


def test_a_directory_that_cannot_be_listed_is_not_an_empty_one(
    copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copies()
    monkeypatch.setattr(Path, "iterdir", refuse(errno.EACCES))
    with pytest.raises(StorageError, match=r"cannot read '.*checkpoints': Permission denied"):
        CheckpointStore(run, keep=1).newest()


def test_a_checkpoint_that_cannot_be_read_is_not_taken_for_damaged(
    copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copies()
    monkeypatch.setattr(Path, "lstat", refuse(errno.EIO))
    with pytest.raises(StorageError, match=r"cannot read '.*round-000002/manifest\.json': Input"):
        CheckpointStore(run, keep=1).newest()


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_checkpoint_dropped_while_it_is_read_is_not_taken_for_damaged(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """`at`: before the manifest, the first part and the second part is looked at."""
    save(run, 1, keep=1)
    lstat, looks = Path.lstat, itertools.count(1)

    def lstat_while_the_run_goes_on(path: Path) -> os.stat_result:
        if "round-" in str(path) and next(looks) == at:
            save(run, 2, keep=1)
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", lstat_while_the_run_goes_on)
    checkpoint, problems = CheckpointStore(run, keep=1).newest()
    assert checkpoint is not None
    assert (checkpoint.manifest.rounds, problems) == (2, [])


def test_the_newest_of_a_kind_is_found(run: RunDirectory) -> None:
    for rounds, barren_meetings in ((1, 0), (2, 0), (3, 1), (4, 2)):
        save(run, rounds, keep=9, barren_meetings=barren_meetings)
    damage(run.checkpoints / "round-000002" / "manifest.json")

    def path_where(is_wanted: Callable[[Manifest], bool]) -> str | None:
        manifest = newest_manifest(run, is_wanted)
        return manifest.name if manifest is not None else None

    assert path_where(lambda manifest: manifest.barren_meetings == 0) == "round-000001"
    assert path_where(lambda manifest: manifest.barren_meetings <= 1) == "round-000003"
    assert path_where(lambda manifest: manifest.barren_meetings > 2) is None


# ---- keeping some


def test_checkpoints_are_ordered_by_position_and_not_by_text(run: RunDirectory) -> None:
    positions = [(999_999, 0), (999_999, 50), (999_999, 1_000_000), (1_000_000, 0)]
    for rounds, updates in reversed(positions):
        save(run, rounds, updates, keep=9)
    assert [path.name for path in checkpoint_paths(run)] == [
        "round-999999",
        "round-999999-update-000050",
        "round-999999-update-1000000",
        "round-1000000",
    ]
    assert newest_round(run) == 1_000_000
    save(run, 1_000_000, 7, keep=2)
    assert names(run) == ["round-1000000", "round-1000000-update-000007"]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept_and_the_best_besides(run: RunDirectory, keep: int) -> None:
    for rounds in range(1, 7):
        save(run, rounds, keep=keep, best="round-000002" if rounds >= 2 else "")
    newest = [f"round-{rounds:06d}" for rounds in range(7 - keep, 7)]
    assert names(run) == ["round-000002", *newest]
    save(run, 7, keep=keep)  # the new best
    assert names(run) == [f"round-{rounds:06d}" for rounds in range(8 - keep, 8)]


def test_a_newer_checkpoint_from_elsewhere_does_not_drive_out_our_own(copies: Copies) -> None:
    run = copies()
    shutil.copytree(run.checkpoints / "round-000002", run.checkpoints / "round-000099")
    save(run, 3, keep=1)
    assert names(run) == ["round-000003", "round-000099"]


def test_what_an_abandoned_cycle_left_goes_with_the_next(copies: Copies) -> None:
    run = copies()
    write_part(CheckpointStore(run, keep=KEEP).stage(), PARTS[0], b"x")
    (run.checkpoints / ".staging-file").touch()
    (run.checkpoints / ".staging-link").symlink_to(run.path)
    save(run, 3)
    assert names(run) == ["round-000002", "round-000003"]
    assert run.path.is_dir()


def test_the_better_of_candidate_and_incumbent_is_the_best(run: RunDirectory) -> None:
    assert best_of(manifest_of(1), run, "") == "round-000001"
    save(run, 1)  # before any evaluation
    second = manifest_of(2, evaluations={"agent-000": -9.0, "agent-001": 1.0})
    assert best_of(second, run, "round-000001") == "round-000002"
    save(run, 2, evaluations=second.evaluations)
    tie = manifest_of(3, evaluations={"agent-000": -8.0, "agent-001": 0.5})
    assert best_of(tie, run, "round-000002") == "round-000002"
    better = manifest_of(3, evaluations={"agent-000": -8.0, "agent-001": 1.0})
    assert best_of(better, run, "round-000002") == "round-000003"


def test_an_incumbent_that_is_lost_leaves_the_candidate(run: RunDirectory) -> None:
    save(run, 1, evaluations={"agent-000": 5.0})
    worse = manifest_of(2, evaluations={"agent-000": 4.0})
    assert best_of(worse, run, "round-000001") == "round-000001"
    damage(run.checkpoints / "round-000001" / "manifest.json")
    assert best_of(worse, run, "round-000001") == "round-000002"
    shutil.rmtree(run.checkpoints / "round-000001")
    assert best_of(worse, run, "round-000001") == "round-000002"


# ---- sweeping


def test_damaged_newer_checkpoints_are_put_aside_and_never_deleted(run: RunDirectory) -> None:
    for rounds in range(1, 5):
        save(run, rounds, keep=9)
    for rounds in (1, 3, 4):
        damage(run.checkpoints / f"round-00000{rounds}" / PARTS[0])
    (run.checkpoints / "round-000005").write_text("a file")
    store = CheckpointStore(run, keep=9)
    store.stage()
    kept = {
        path.name: (path / PARTS[0]).read_bytes()
        for path in run.checkpoints.glob("round-00000[34]")
    }
    store.sweep()
    aside, (first, second) = names(run)[:3], names(run)[3:]
    assert (first, second) == ("round-000001", "round-000002")  # the older one is in nobody's way
    for path, rounds in zip(aside, (3, 4, 5), strict=True):
        assert path.startswith(f".damaged-round-00000{rounds}-")
        if rounds < 5:
            content = (run.checkpoints / path / PARTS[0]).read_bytes()
            assert content == kept[f"round-00000{rounds}"]
    assert store.newest()[1] == []
    for rounds in (3, 4, 5):  # the names are free again
        save(run, rounds, keep=9)
    assert names(run)[:3] == aside


def test_sweeping_changes_nothing_where_all_is_well(copies: Copies) -> None:
    run = copies()
    with count_operations(run.path) as operations:
        CheckpointStore(run, keep=1).sweep()
    assert operations == []
