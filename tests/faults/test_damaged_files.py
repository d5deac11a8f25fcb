"""Damaged files in a whole run: every command finds them, names them and never builds on them."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from mgrl_cli.replay.schema import CHUNK_ROWS, STEP_FIELDS
from mgrl_cli.run_dir.checkpoints import checkpoint_paths
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.manifest import MANIFEST_NAME, read_manifest
from mgrl_cli.runtime.resumption import standing_of
from tests.commands.tiny_runs import Outcome
from tests.faults.crashed_runs import KEPT, CrashedRun, contents, crashed_run
from tests.faults.tally import trial, trials
from tests.runtime.conftest import fingerprint

FLIP = "08 bit flipped in a checkpoint"
CUT = "07 checkpoint file cut, lengthened, deleted, swapped or old"

Damage = Callable[[Path, np.random.Generator], str]


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> CrashedRun:
    return crashed_run(tmp_path_factory)


@pytest.fixture
def run(crashed: CrashedRun, tmp_path: Path) -> RunDirectory:
    return crashed.copy(tmp_path / "run")


# ---- ways to damage a file; each returns what it did


def flip_bit(path: Path, rng: np.random.Generator, end: int | None = None) -> str:
    content = bytearray(path.read_bytes())
    place, bit = int(rng.integers(len(content) if end is None else end)), int(rng.integers(8))
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {place} of {path.name} flipped"


def truncate(path: Path, rng: np.random.Generator) -> str:
    content = path.read_bytes()
    length = int(rng.choice([0, 1, len(content) // 2, len(content) - 1]))
    path.write_bytes(content[:length])
    return f"{path.name} cut to {length} of {len(content)} bytes"


def delete(path: Path, _: np.random.Generator) -> str:
    path.unlink()
    return f"{path.name} deleted"


def append(path: Path, rng: np.random.Generator) -> str:
    path.write_bytes(path.read_bytes() + rng.bytes(1))
    return f"{path.name} longer by a byte"


def swap(path: Path, rng: np.random.Generator) -> str:
    others = sorted(other for other in path.parent.iterdir() if other != path)
    other = others[rng.integers(len(others))]
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)
    return f"{path.name} and {other.name} swapped"


def take_older(path: Path, rng: np.random.Generator) -> str:
    older = path.parent.with_name(KEPT[-2]) / path.name
    if older.read_bytes() == path.read_bytes():  # the exchange: nothing has been learned yet
        return flip_bit(path, rng)
    shutil.copyfile(older, path)
    return f"{path.name} replaced by that of {KEPT[-2]}"


DAMAGES: tuple[Damage, ...] = (
    *(flip_bit, flip_bit, flip_bit, flip_bit),
    *(truncate, truncate, delete, append, swap, take_older),
)


def damage_checkpoint(checkpoint: Path, rng: np.random.Generator) -> str:
    files = sorted(checkpoint.iterdir())
    damage = DAMAGES[rng.integers(len(DAMAGES))]
    return damage(files[rng.integers(len(files))], rng)


@contextmanager
def restored(directory: Path) -> Iterator[None]:
    """Give a directory of files back what it held."""
    before = {path: path.read_bytes() for path in directory.iterdir()}
    yield
    for path, content in before.items():
        path.write_bytes(content)


def resumed(capsys: pytest.CaptureFixture[str], run: RunDirectory) -> Outcome:
    return Outcome(capsys, ["resume", str(run.path), "--workers", "0"])


def assert_exact(run: RunDirectory, crashed: CrashedRun, case: str) -> None:
    assert fingerprint(run) == crashed.undisturbed, case
    litter = [*run.path.rglob("*.partial"), *run.checkpoints.glob(".staging-*")]
    assert litter == [], case


# ---- checkpoints


def test_without_damage_the_run_is_whole_and_ends_exactly(
    capsys: pytest.CaptureFixture[str], crashed: CrashedRun, run: RunDirectory
) -> None:
    assert standing_of(run).problems == ()
    for command in ("verify", "inspect"):
        assert Outcome(capsys, [command, str(run.path)]).exit_code == 0
    outcome = resumed(capsys, run)
    assert outcome.exit_code == 0
    assert f"continues from {KEPT[-1]}" in outcome.err
    assert "damaged" not in outcome.err
    assert_exact(run, crashed, "no damage")
    assert Outcome(capsys, ["verify", str(run.path)]).exit_code == 0


def test_every_damage_to_a_checkpoint_is_found_and_the_one_before_it_taken(
    run: RunDirectory,
) -> None:
    newest = run.checkpoints / KEPT[-1]
    for seed in range(trials(campaign=1000, suite=60)):
        with restored(newest):
            case = f"seed {seed}: " + damage_checkpoint(newest, np.random.default_rng(seed))
            with trial(FLIP if "flipped" in case else CUT):
                standing = standing_of(run)
                assert standing.checkpoint is not None, case
                assert standing.checkpoint.path.name == KEPT[-2], case
                (problem,) = standing.problems
                assert newest.name in problem, case
                assert any(path.name in problem for path in [newest, *newest.iterdir()]), case
    assert standing_of(run).problems == ()


@pytest.mark.parametrize("seed", range(trials(campaign=20, suite=2)))
def test_a_run_whose_newest_checkpoint_is_damaged_says_so_and_ends_exactly(
    capsys: pytest.CaptureFixture[str], crashed: CrashedRun, run: RunDirectory, seed: int
) -> None:
    newest = run.checkpoints / KEPT[-1]
    with trial("07-08 newest checkpoint damaged, resumed to the end"):
        case = damage_checkpoint(newest, np.random.default_rng([seed, 1]))
        for command in ("verify", "inspect"):
            outcome = Outcome(capsys, [command, str(run.path)])
            assert (outcome.exit_code, newest.name in outcome.err) == (4, True), case
        outcome = resumed(capsys, run)
        assert outcome.exit_code == 0, case
        assert f"passed over a damaged checkpoint: '{newest}" in outcome.err, case
        assert f"continues from {KEPT[-2]}" in outcome.err, case
        assert_exact(run, crashed, case)


@pytest.mark.parametrize("seed", range(trials(campaign=20)))
def test_a_run_whose_checkpoints_are_all_damaged_is_refused_and_left_alone(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, seed: int
) -> None:
    rng = np.random.default_rng([seed, 2])
    with trial("07-08 every checkpoint damaged"):
        case = [damage_checkpoint(path, rng) for path in checkpoint_paths(run)]
        before = contents(run.path)
        outcome = resumed(capsys, run)
        assert outcome.exit_code == 4, case
        assert "no checkpoint of" in outcome.refusal
        assert KEPT[-1] in outcome.refusal
        assert contents(run.path) == before, case


# ---- everything else that a digest covers


def protected_files(run: RunDirectory) -> Iterator[tuple[Path, int]]:
    """Yield the files of a run and how many of their bytes no crash may leave changed."""
    manifest = read_manifest(run.checkpoints / KEPT[-1] / MANIFEST_NAME)
    yield run.config, run.config.stat().st_size
    yield run.objective, run.objective.stat().st_size
    yield from ((run.metrics / name, record.bytes) for name, record in manifest.metrics.items())
    for checkpoint in checkpoint_paths(run):
        yield from ((path, path.stat().st_size) for path in checkpoint.iterdir())
    yield from (
        (path, path.stat().st_size)
        for path in run.buffer.glob("agent-*/**/c/**/[0-9]*")
        if path.is_file()
    )


def test_a_flipped_bit_anywhere_is_named_by_verify(
    capsys: pytest.CaptureFixture[str], run: RunDirectory
) -> None:
    files = sorted(protected_files(run))
    for seed in range(trials(campaign=300, suite=6)):
        rng = np.random.default_rng([seed, 3])
        path, end = files[rng.integers(len(files))]
        content = path.read_bytes()
        with trial("08 bit flipped anywhere, found by verify"):
            case = f"seed {seed}: {flip_bit(path, rng, end)}"
            outcome = Outcome(capsys, ["verify", str(run.path)])
            assert outcome.exit_code == 4, case
            assert names(outcome.err, path), f"{case}: {outcome.err}"
        path.write_bytes(content)
    assert Outcome(capsys, ["verify", str(run.path)]).exit_code == 0


def names(text: str, path: Path) -> bool:
    """Return whether a message names a file, or the array and chunk that it holds."""
    if "/c/" not in str(path):
        return path.name in text
    array, _, chunk = str(path).partition("/c/")
    agent, _, name = array.partition("buffer.zarr/")[2].partition("/")
    return agent in text and f"array '{name}' chunk {chunk.partition('/')[0]}" in text


def test_changed_metrics_are_named_and_never_continued(
    capsys: pytest.CaptureFixture[str], run: RunDirectory
) -> None:
    manifest = read_manifest(run.checkpoints / KEPT[-1] / MANIFEST_NAME)
    for name, record in manifest.metrics.items():
        path = run.metrics / name
        content = path.read_bytes()
        for damaged in (content[: record.bytes // 2], b"X" + content[1:], None):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            with trial("07 committed metrics changed"):
                outcome = resumed(capsys, run)
                assert (outcome.exit_code, str(path) in outcome.err) == (4, True)
            path.write_bytes(content)


# ---- replay


def chunk_file(run: RunDirectory, rng: np.random.Generator, chunk: int) -> tuple[str, str, Path]:
    """Return agent, array and file of a random step array's chunk."""
    agent = f"agent-{rng.integers(2):03d}"
    field = STEP_FIELDS[rng.integers(len(STEP_FIELDS))]
    return agent, field.name, run.buffer / agent / field.chunk_path(chunk)


def test_a_damaged_full_chunk_is_named_and_never_taken_for_zeros(
    capsys: pytest.CaptureFixture[str], crashed: CrashedRun, run: RunDirectory
) -> None:
    assert (
        read_manifest(run.checkpoints / KEPT[-1] / MANIFEST_NAME).replay["agent-000"].rows
        >= CHUNK_ROWS
    )
    for seed in range(trials(campaign=300, suite=6)):
        rng = np.random.default_rng([seed, 4])
        agent, array, path = chunk_file(run, rng, 0)
        content = path.read_bytes()
        # The reading commands cost more: they look at everything.
        commands = ("resume", "inspect", "verify") if seed % 10 == 0 else ("resume",)
        with trial("09 full replay chunk damaged"):
            case = f"seed {seed}: " + (flip_bit, truncate, delete)[seed % 3](path, rng)
            for command in commands:
                words = ["--workers", "0"] if command == "resume" else []
                outcome = Outcome(capsys, [command, str(run.path), *words])
                assert outcome.exit_code == 4, (command, case)
                assert agent in outcome.err, (command, case)
                assert f"array '{array}' chunk 0" in outcome.err, (command, case)
        path.write_bytes(content)
    assert resumed(capsys, run).exit_code == 0
    assert_exact(run, crashed, "damage undone")


@pytest.mark.parametrize("seed", range(trials(campaign=20, suite=2)))
def test_a_damaged_last_chunk_or_description_is_made_anew_from_the_checkpoint(
    capsys: pytest.CaptureFixture[str], crashed: CrashedRun, run: RunDirectory, seed: int
) -> None:
    rng = np.random.default_rng([seed, 5])
    with trial("09 last replay chunk or zarr.json damaged"):
        agent, array, path = chunk_file(run, rng, 1)
        if seed % 2:
            path = run.buffer / agent / array / "zarr.json"
        case = f"seed {seed}, {agent} {array}: " + (truncate, delete, flip_bit)[seed % 3](path, rng)
        assert resumed(capsys, run).exit_code == 0, case
        assert_exact(run, crashed, case)


# ---- beyond the commit


def leave_junk(run: RunDirectory, rng: np.random.Generator) -> None:
    """Put all kinds of things where a crash, or somebody, may have left them."""
    for agent in ("agent-000", "agent-001"):
        for field in STEP_FIELDS:
            file = run.buffer / agent / field.chunk_path(int(rng.integers(2, 100)))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(rng.bytes(rng.integers(1000)))
            file.with_name(f"{file.name}.{rng.bytes(8).hex()}.partial").write_bytes(rng.bytes(10))
        with (run.metrics / f"{agent}.jsonl").open("a") as metrics:
            metrics.write(json.dumps({"round": 99}) + '\n{"round": 1')
    staging = run.checkpoints / ".staging-0123"
    shutil.copytree(run.checkpoints / KEPT[0], staging)
    (staging / "agent-000.safetensors").write_bytes(rng.bytes(100))
    for number in (7, 10, 999_999):
        shutil.copyfile(run.objective, run.objective_at(number))
    run.objective.write_bytes(rng.bytes(100))
    run.path.joinpath(".objective.safetensors.0123.partial").write_bytes(rng.bytes(100))
    with run.population_metrics.open("ab") as metrics:
        metrics.write(rng.bytes(50))


@pytest.mark.parametrize("seed", range(trials(campaign=10)))
def test_what_lies_beyond_the_newest_checkpoint_is_ignored_and_swept(
    capsys: pytest.CaptureFixture[str], crashed: CrashedRun, run: RunDirectory, seed: int
) -> None:
    with trial("10 junk beyond the newest checkpoint"):
        leave_junk(run, np.random.default_rng([seed, 6]))
        outcome = resumed(capsys, run)
        assert outcome.exit_code == 0, f"seed {seed}: {outcome.err}"
        assert_exact(run, crashed, f"seed {seed}")
        assert Outcome(capsys, ["verify", str(run.path)]).exit_code == 0
