import json
import re
import shutil
import time

import numpy as np
import pytest
import zarr

from mgrl_cli.errors import FileError
from mgrl_cli.replay.digest import ReplayPosition
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.replay.schema import FIELDS

LENGTHS = (900, 1500, 2000, 1, 800, 30, 3000, 7, 500, 462)  # 9200 steps: three chunks
KEPT = 4  # 4401 steps: inside the second chunk


def create(path):
    return ReplayLog.create(path, obs_size=3, act_size=2, attributes={"environment": "Hopper-v5"})


def append(log, make_episode, numbers):
    for number in numbers:
        log.append(make_episode(LENGTHS[number], number, is_truncated=number % 3 == 0))
        log.commit()


def tree_of(path):
    """Every file by its place, and every folder as None."""
    return {
        str(file.relative_to(path)): None if file.is_dir() else file.read_bytes()
        for file in path.rglob("*")
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, make_episode):
    """The tree after all ten episodes, and the positions after each."""
    path = tmp_path_factory.mktemp("uninterrupted") / "agent-000"
    log = create(path)
    positions = [log.position]
    for number in range(len(LENGTHS)):
        append(log, make_episode, [number])
        positions.append(log.position)
    return path, tree_of(path), positions


@pytest.fixture
def path(tmp_path):
    return tmp_path / "buffer.zarr" / "agent-000"


def a_later_commit(path, log, make_episode):
    log.append(make_episode(9000, 88))
    log.commit()


def a_commit_that_never_counted(path, log, make_episode):
    before = (path / "zarr.json").read_bytes()
    a_later_commit(path, log, make_episode)
    (path / "zarr.json").write_bytes(before)


def a_commit_that_only_enlarged_arrays(path, log, make_episode):
    for field in FIELDS.values():
        zarr.open_array(path / field.path, mode="r+").resize(
            (90_000, *field.row_shape(obs_size=3, act_size=2))
        )


def litter(path, log, make_episode):
    for field in FIELDS.values():
        for number in (2, 17):
            junk = path / field.chunk_path(number)
            junk.parent.mkdir(parents=True, exist_ok=True)
            junk.write_bytes(b"junk")
        (path / f"{field.chunk_path(0)}.0123456789abcdef.partial").write_bytes(b"half")
        (path / field.path / "zarr.0123456789abcdef.partial").write_bytes(b"{")
    (path / "zarr.0123456789abcdef.partial").write_bytes(b"")


CRASHES = [
    lambda *_: None,
    a_later_commit,
    a_commit_that_never_counted,
    a_commit_that_only_enlarged_arrays,
    litter,
]


@pytest.mark.parametrize("crash", CRASHES, ids=lambda crash: crash.__name__)
def test_a_run_continued_after_a_crash_leaves_the_bytes_of_an_uninterrupted_one(
    path, make_episode, uninterrupted, crash
):
    _, expected, positions = uninterrupted
    log = create(path)
    append(log, make_episode, range(KEPT))
    at_checkpoint = tree_of(path)
    crash(path, log, make_episode)
    log = ReplayLog.reopen(path, positions[KEPT])
    assert tree_of(path) == at_checkpoint
    assert log.position == positions[KEPT]
    append(log, make_episode, range(KEPT, len(LENGTHS)))
    log.sync()
    assert log.position == positions[-1]
    assert tree_of(path) == expected


@pytest.mark.parametrize("num_episodes", [0, 5, 10])
def test_a_log_is_continued_from_any_position_it_ever_had(
    path, make_episode, uninterrupted, num_episodes
):
    source, expected, positions = uninterrupted
    shutil.copytree(source, path)
    log = ReplayLog.reopen(path, positions[num_episodes])
    reader = ReplayReader(path)
    assert (reader.committed_rows, reader.committed_episodes) == positions[num_episodes][:2]
    assert reader.verify() == []
    append(log, make_episode, range(num_episodes, len(LENGTHS)))
    assert tree_of(path) == expected


def test_reopening_twice_is_reopening_once(path, make_episode, uninterrupted):
    source, expected, positions = uninterrupted
    shutil.copytree(source, path)
    ReplayLog.reopen(path, positions[6])
    log = ReplayLog.reopen(path, positions[6])
    append(log, make_episode, range(6, 10))
    assert tree_of(path) == expected


@pytest.mark.parametrize(
    "named", [(4401, 5), (4400, 4), (0, 4), (-1, -1), (9200, 10), (10_000, 10), (9200, 11)]
)
def test_what_the_log_does_not_hold_is_refused(path, uninterrupted, named):
    source, _, positions = uninterrupted
    shutil.copytree(source, path)
    before = tree_of(path)
    with pytest.raises(FileError, match=r"holds 9200 steps|not those the checkpoint recorded"):
        ReplayLog.reopen(path, ReplayPosition(*named, positions[KEPT].sha256))
    assert tree_of(path) == before


def test_the_log_of_another_seed_is_refused_and_left_alone(path, make_episode, uninterrupted):
    log = create(path)
    for number in range(KEPT):  # the same counts, one number different
        episode = make_episode(LENGTHS[number], number, is_truncated=number % 3 == 0)
        log.append(episode._replace(seed=episode.seed + (number == 2)))
    log.commit()
    before = tree_of(path)
    with pytest.raises(FileError, match="not those the checkpoint recorded") as caught:
        ReplayLog.reopen(path, uninterrupted[2][KEPT])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tree_of(path) == before


def test_damage_after_the_position_does_not_matter(path, make_episode, uninterrupted):
    source, expected, positions = uninterrupted
    shutil.copytree(source, path)
    for field in FIELDS.values():
        if not field.per_episode:
            (path / field.chunk_path(2)).write_bytes(b"torn")
    append(ReplayLog.reopen(path, positions[KEPT]), make_episode, range(KEPT, len(LENGTHS)))
    assert tree_of(path) == expected


def corrupt(path, rng):
    """Damage one chunk file or exchange two; return array, kind and what the files held."""
    field = list(FIELDS.values())[rng.integers(len(FIELDS))]
    chunks = [path / field.chunk_path(number) for number in range(1 if field.per_episode else 3)]
    held = {chunk: chunk.read_bytes() for chunk in chunks}
    chunk = chunks[rng.integers(len(chunks))]
    data = bytearray(held[chunk])
    others = [other for other in chunks if held[other] != held[chunk]]
    kind = rng.choice(["flip", "truncate", "delete", *(["swap"] if others else [])])
    if kind == "flip":
        bit = int(rng.integers(8 * len(data)))
        data[bit // 8] ^= 1 << bit % 8
        chunk.write_bytes(data)
    elif kind == "truncate":
        chunk.write_bytes(data[: rng.integers(len(data))])
    elif kind == "delete":
        chunk.unlink()
    else:
        chunk.write_bytes(held[others[0]])
        others[0].write_bytes(data)
    return field, kind, held


@pytest.mark.parametrize("seed", range(60))
def test_a_corrupted_chunk_is_never_believed(uninterrupted, seed):
    path, _, positions = uninterrupted
    field, kind, held = corrupt(path, np.random.default_rng(seed))
    named = rf"array '{field.path}' chunk \d (is missing|is damaged|has \d+ bytes)"
    other_rows = "the rows are not those the checkpoint recorded"
    try:
        with pytest.raises(FileError, match=other_rows if kind == "swap" else named):
            ReplayLog.reopen(path, positions[-1])
        problems = ReplayReader(path, positions[-1]).verify()
    finally:
        for chunk, data in held.items():
            chunk.write_bytes(data)
    assert problems[-1] == other_rows
    if kind != "swap":
        assert re.search(named, problems[0])


def test_verify_without_a_position_knows_no_other_rows(path, make_episode, uninterrupted):
    source, _, positions = uninterrupted
    shutil.copytree(source, path)
    chunks = [path / FIELDS["objective_version"].chunk_path(number) for number in range(2)]
    first, second = (chunk.read_bytes() for chunk in chunks)
    chunks[0].write_bytes(second)
    chunks[1].write_bytes(first)
    assert ReplayReader(path).verify() == []
    assert len(ReplayReader(path, positions[-1]).verify()) == 1


def test_a_position_limits_what_is_read_and_verified(uninterrupted, path):
    source, _, positions = uninterrupted
    shutil.copytree(source, path)
    (path / FIELDS["reward"].chunk_path(2)).unlink()
    reader = ReplayReader(path, positions[KEPT])
    assert (reader.committed_rows, reader.committed_episodes) == (4401, 4)
    assert reader.verify() == []
    assert reader.digest().hexdigest() == positions[KEPT].sha256
    assert len(ReplayReader(path, positions[-1]).verify()) == 2
    with pytest.raises(FileError, match="holds 9200 steps in 10 episodes, the checkpoint names"):
        ReplayReader(path, positions[-1]._replace(rows=9201))


def test_a_live_writer_changes_nothing_below_a_position(path, make_episode, uninterrupted):
    log = create(path)
    append(log, make_episode, range(KEPT))
    reader = ReplayReader(path, log.position)
    append(log, make_episode, range(KEPT, len(LENGTHS)))
    assert reader.verify() == []
    assert ReplayReader(path, uninterrupted[2][KEPT]).verify() == []


def test_absurdly_long_arrays_are_cut_without_looking_for_their_chunks(
    path, make_episode, uninterrupted
):
    source, expected, positions = uninterrupted
    shutil.copytree(source, path)
    for field in FIELDS.values():
        file = path / field.path / "zarr.json"
        document = json.loads(file.read_text())
        document["shape"][0] = 2**40
        file.write_text(json.dumps(document))
    before = time.monotonic()
    ReplayLog.reopen(path, positions[-1])
    assert time.monotonic() - before < 2
    assert tree_of(path) == expected


def test_sweeping_follows_no_link_and_leaves_what_is_not_its_own(path, uninterrupted, tmp_path):
    source, expected, positions = uninterrupted
    shutil.copytree(source, path)
    outside = tmp_path / "outside"
    (outside / "0").mkdir(parents=True)
    (outside / "0" / "precious").write_text("mine")
    (path / "obs" / "c" / "7").symlink_to(outside)
    (path / "reward" / "c" / "8").symlink_to(outside / "0" / "precious")
    (path / "reward" / "c" / "0.1.partial").symlink_to(outside / "0" / "precious")
    (path / "notes.txt").write_text("mine")
    ReplayLog.reopen(path, positions[-1])
    assert (outside / "0" / "precious").read_text() == "mine"
    assert tree_of(path) == {**expected, "notes.txt": b"mine"}


def test_a_link_in_place_of_the_folder_of_chunks_is_not_swept_through(path, tmp_path):
    position = create(path).position
    (tmp_path / "outside" / "0").mkdir(parents=True)
    (path / "reward" / "c").symlink_to(tmp_path / "outside")
    ReplayLog.reopen(path, position)
    assert (tmp_path / "outside" / "0").is_dir()
