import copy
import json
import os
import re
import shutil
import time

import numpy as np
import pytest
import zarr

from mgrl_cli.errors import FileError
from mgrl_cli.replay.digest import ReplayPosition, blank_tail
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.replay.reader import ReplayReader, agent_groups
from mgrl_cli.replay.schema import FIELDS, STEP_FIELDS
from tests.faults.power_loss import power_loss

LENGTHS = (900, 1500, 2000, 1, 800, 30, 3000, 7, 500, 462)  # 9200 steps: three chunks
KEPT = 4  # 4401 steps: inside the second chunk
ATTRIBUTES = {"environment": "Hopper-v5", "kwargs": {"a": [1, None]}}


def create(path):
    return ReplayLog.create(path, obs_size=3, act_size=2, attributes=ATTRIBUTES)


def moment_of(log):
    """What a checkpoint keeps of a log."""
    return log.position, copy.deepcopy(log.tail)


def reopen(path, moment):
    return ReplayLog.reopen(path, *moment, ATTRIBUTES)


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
    """The tree after all ten episodes, and the moments after each."""
    path = tmp_path_factory.mktemp("uninterrupted") / "agent-000"
    log = create(path)
    moments = [moment_of(log)]
    for number in range(len(LENGTHS)):
        append(log, make_episode, [number])
        moments.append(moment_of(log))
    return path, tree_of(path), moments


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
    _, expected, moments = uninterrupted
    log = create(path)
    append(log, make_episode, range(KEPT))
    at_checkpoint = tree_of(path)
    crash(path, log, make_episode)
    log = reopen(path, moments[KEPT])
    assert tree_of(path) == at_checkpoint
    assert log.position == moments[KEPT][0]
    append(log, make_episode, range(KEPT, len(LENGTHS)))
    log.sync()
    assert log.position == moments[-1][0]
    assert tree_of(path) == expected


@pytest.mark.parametrize("num_episodes", [0, 5, 10])
def test_a_log_is_continued_from_any_position_it_ever_had(
    path, make_episode, uninterrupted, num_episodes
):
    source, expected, moments = uninterrupted
    shutil.copytree(source, path)
    log = reopen(path, moments[num_episodes])
    reader = ReplayReader(path)
    assert (reader.committed_rows, reader.committed_episodes) == moments[num_episodes][0][:2]
    assert reader.verify() == []
    append(log, make_episode, range(num_episodes, len(LENGTHS)))
    assert tree_of(path) == expected


def test_reopening_twice_is_reopening_once(path, make_episode, uninterrupted):
    source, expected, moments = uninterrupted
    shutil.copytree(source, path)
    reopen(path, moments[6])
    log = reopen(path, moments[6])
    append(log, make_episode, range(6, 10))
    assert tree_of(path) == expected


def test_a_position_at_the_end_of_a_chunk_has_no_tail(path, make_episode):
    log = create(path)
    log.append(make_episode(8192))
    log.commit()
    moment, before = moment_of(log), tree_of(path)
    assert len(moment[1]["obs"]) == 0
    log.append(make_episode(5, 1))
    log.commit()
    reopen(path, moment)
    assert tree_of(path) == before


# ---- what a power loss may leave of files that are overwritten without a sync


def missing(file, newer):
    file.unlink()


def empty(file, newer):
    file.write_bytes(b"")


def half(file, newer):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def zeros(file, newer):
    file.write_bytes(bytes(file.stat().st_size))


def of_a_later_commit(file, newer):
    file.write_bytes(newer)


def a_folder(file, newer):
    file.unlink()
    file.mkdir()
    (file / "inner").write_bytes(b"junk")


def a_pipe(file, newer):
    file.unlink()
    os.mkfifo(file)


def a_link(file, newer):
    file.unlink()
    file.symlink_to("/dev/null")


STATES = [missing, empty, half, zeros, of_a_later_commit, a_folder, a_pipe, a_link]


def is_overwritten(inner):
    """Whether a file belongs to no full chunk of 4401 steps and 4 episodes."""
    is_first_chunk = "/c/0" in f"/{inner}" and not inner.startswith("episodes/")
    return not is_first_chunk


@pytest.mark.parametrize("seed", range(len(STATES) + 4))
def test_what_a_power_loss_left_of_overwritten_files_is_made_anew(
    path, make_episode, uninterrupted, seed
):
    source, _, moments = uninterrupted
    log = create(path)
    append(log, make_episode, range(KEPT))
    at_checkpoint = tree_of(path)
    rng = np.random.default_rng(seed)
    files = [inner for inner, held in at_checkpoint.items() if held and is_overwritten(inner)]
    assert len(files) == 17 + 15
    for inner in files:
        state = STATES[seed] if seed < len(STATES) else STATES[rng.integers(len(STATES))]
        state(path / inner, (source / inner).read_bytes())
    reopen(path, moments[KEPT])
    assert tree_of(path) == at_checkpoint


def test_folders_that_hold_no_full_chunk_may_be_missing_or_no_folders(
    path, make_episode, uninterrupted
):
    log = create(path)
    append(log, make_episode, range(KEPT))
    at_checkpoint = tree_of(path)
    shutil.rmtree(path / "episodes")
    shutil.rmtree(path / "obs" / "c" / "1")
    (path / "obs" / "c" / "1").write_bytes(b"")
    reopen(path, uninterrupted[2][KEPT])
    assert tree_of(path) == at_checkpoint


@pytest.mark.parametrize("num_episodes", [0, 2])  # 2400 steps
def test_a_log_without_full_chunks_can_be_missing_altogether(
    path, make_episode, uninterrupted, num_episodes
):
    _, expected, moments = uninterrupted
    log = reopen(path, moments[num_episodes])
    assert ReplayReader(path).verify() == []
    append(log, make_episode, range(num_episodes, len(LENGTHS)))
    assert tree_of(path) == expected


def test_a_missing_log_with_full_chunks_is_refused_and_not_begun_anew(path, uninterrupted):
    with pytest.raises(FileError, match=r"agent-000: array 'obs' chunk 0 is missing"):
        reopen(path, uninterrupted[2][KEPT])
    assert not path.parent.exists()


@pytest.mark.parametrize("state", [missing, empty, half, a_folder])
def test_the_group_around_the_agents_is_made_whole_too(path, make_episode, uninterrupted, state):
    append(create(path), make_episode, range(KEPT))
    file = path.parent / "zarr.json"
    whole = file.read_bytes()
    state(file, b"")
    reopen(path, uninterrupted[2][KEPT])
    assert file.read_bytes() == whole
    assert agent_groups(path.parent) == [path]


def test_everything_made_anew_is_synced(path, make_episode, uninterrupted, tmp_path):
    log = create(path)
    append(log, make_episode, range(KEPT))
    log.sync()
    with power_loss(tmp_path / "buffer.zarr") as journal:
        (path / "zarr.json").write_bytes(b"")
        shutil.rmtree(path / "episodes")
        reopen(path, uninterrupted[2][KEPT]).sync()
    journal.cut(tmp_path / "cut")
    assert tree_of(tmp_path / "cut" / "agent-000") == tree_of(path)


# ---- what is refused


@pytest.mark.parametrize(
    "named", [(4401, 5), (4400, 4), (0, 4), (9200, 10), (10_000, 10), (20_000, 10), (9200, 11)]
)
def test_what_the_log_does_not_hold_is_refused(path, uninterrupted, named):
    source, _, moments = uninterrupted
    shutil.copytree(source, path)
    before = tree_of(path)
    position = ReplayPosition(*named, moments[KEPT][0].sha256)
    with pytest.raises(FileError, match=r"chunk \d is missing|not those the checkpoint recorded"):
        reopen(path, (position, blank_tail(position, obs_size=3, act_size=2)))
    assert tree_of(path) == before


def test_the_log_of_another_seed_is_refused_and_left_alone(path, make_episode, uninterrupted):
    log = create(path)
    for number in range(KEPT):  # the same counts, one number in a full chunk different
        episode = make_episode(LENGTHS[number], number, is_truncated=number % 3 == 0)
        episode.reward[0] += number == 2
        log.append(episode)
    log.commit()
    before = tree_of(path)
    with pytest.raises(FileError, match="not those the checkpoint recorded") as caught:
        reopen(path, uninterrupted[2][KEPT])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tree_of(path) == before


@pytest.mark.parametrize("name", FIELDS)
def test_a_tail_that_is_not_the_one_of_the_position_is_refused(path, uninterrupted, name):
    source, expected, moments = uninterrupted
    shutil.copytree(source, path)
    position, tail = copy.deepcopy(moments[KEPT])
    tail[name][-1] = 1 - tail[name][-1]
    with pytest.raises(FileError, match="not those the checkpoint recorded"):
        reopen(path, (position, tail))
    assert tree_of(path) == expected


def test_damage_after_the_position_does_not_matter(path, make_episode, uninterrupted):
    source, expected, moments = uninterrupted
    shutil.copytree(source, path)
    for field in FIELDS.values():
        if not field.per_episode:
            (path / field.chunk_path(2)).write_bytes(b"torn")
    append(reopen(path, moments[KEPT]), make_episode, range(KEPT, len(LENGTHS)))
    assert tree_of(path) == expected


def corrupt(path, rng, fields, numbers):
    """Damage one chunk file or exchange two; return array, kind and what the files held."""
    field = fields[rng.integers(len(fields))]
    chunks = [path / field.chunk_path(number) for number in numbers]
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


OTHER_ROWS = "the rows are not those the checkpoint recorded"


@pytest.mark.parametrize("seed", range(60))
def test_a_corrupted_full_chunk_is_never_believed(uninterrupted, seed):
    path, _, moments = uninterrupted
    field, kind, held = corrupt(path, np.random.default_rng(seed), STEP_FIELDS, (0, 1))
    named = rf"array '{field.path}' chunk \d (is missing|is damaged|has \d+ bytes)"
    try:
        before = tree_of(path)
        with pytest.raises(FileError, match=OTHER_ROWS if kind == "swap" else named):
            reopen(path, moments[-1])
        assert tree_of(path) == before
        problems = ReplayReader(path, moments[-1][0]).verify()
    finally:
        for chunk, data in held.items():
            chunk.write_bytes(data)
    assert problems[-1] == OTHER_ROWS
    if kind != "swap":
        assert re.search(named, problems[0])


@pytest.mark.parametrize("seed", range(30))
def test_a_corrupted_last_chunk_is_reported_and_then_mended(uninterrupted, seed):
    path, expected, moments = uninterrupted
    rng = np.random.default_rng(seed)
    in_episodes = seed % 2 == 0
    fields = [field for field in FIELDS.values() if field.per_episode == in_episodes]
    field, _, held = corrupt(path, rng, fields, (0,) if in_episodes else (2,))
    named = rf"array '{field.path}' chunk \d (is missing|is damaged|has \d+ bytes)"
    try:
        problems = ReplayReader(path, moments[-1][0]).verify()
        reopen(path, moments[-1])
        assert tree_of(path) == expected
    finally:
        for chunk, data in held.items():
            chunk.write_bytes(data)
    assert re.search(named, problems[0])
    assert problems[-1] == OTHER_ROWS


def test_verify_without_a_position_knows_no_other_rows(path, make_episode, uninterrupted):
    source, _, moments = uninterrupted
    shutil.copytree(source, path)
    chunks = [path / FIELDS["objective_version"].chunk_path(number) for number in range(2)]
    first, second = (chunk.read_bytes() for chunk in chunks)
    chunks[0].write_bytes(second)
    chunks[1].write_bytes(first)
    assert ReplayReader(path).verify() == []
    assert len(ReplayReader(path, moments[-1][0]).verify()) == 1


def test_a_position_limits_what_is_read_and_verified(uninterrupted, path):
    source, _, moments = uninterrupted
    shutil.copytree(source, path)
    (path / FIELDS["reward"].chunk_path(2)).unlink()
    reader = ReplayReader(path, moments[KEPT][0])
    assert (reader.committed_rows, reader.committed_episodes) == (4401, 4)
    assert reader.verify() == []
    assert len(ReplayReader(path, moments[-1][0]).verify()) == 2
    with pytest.raises(FileError, match="holds 9200 steps in 10 episodes, the checkpoint names"):
        ReplayReader(path, moments[-1][0]._replace(rows=9201))


def test_a_live_writer_changes_nothing_below_a_position(path, make_episode, uninterrupted):
    log = create(path)
    append(log, make_episode, range(KEPT))
    reader = ReplayReader(path, log.position)
    append(log, make_episode, range(KEPT, len(LENGTHS)))
    assert reader.verify() == []
    assert ReplayReader(path, uninterrupted[2][KEPT][0]).verify() == []


def test_absurdly_long_arrays_are_cut_without_looking_for_their_chunks(
    path, make_episode, uninterrupted
):
    source, expected, moments = uninterrupted
    shutil.copytree(source, path)
    for field in FIELDS.values():
        file = path / field.path / "zarr.json"
        document = json.loads(file.read_text())
        document["shape"][0] = 2**40
        file.write_text(json.dumps(document))
    before = time.process_time()
    reopen(path, moments[-1])
    assert time.process_time() - before < 5
    assert tree_of(path) == expected


def test_sweeping_follows_no_link_and_leaves_what_is_not_its_own(path, uninterrupted, tmp_path):
    source, expected, moments = uninterrupted
    shutil.copytree(source, path)
    outside = tmp_path / "outside"
    (outside / "0").mkdir(parents=True)
    (outside / "0" / "precious").write_text("mine")
    (path / "obs" / "c" / "7").symlink_to(outside)
    (path / "reward" / "c" / "8").symlink_to(outside / "0" / "precious")
    (path / "reward" / "c" / "0.1.partial").symlink_to(outside / "0" / "precious")
    (path / "notes.txt").write_text("mine")
    reopen(path, moments[-1])
    assert (outside / "0" / "precious").read_text() == "mine"
    assert tree_of(path) == {**expected, "notes.txt": b"mine"}


def test_a_link_in_place_of_the_folder_of_chunks_is_not_swept_through(path, tmp_path):
    moment = moment_of(create(path))
    (tmp_path / "outside" / "0").mkdir(parents=True)
    (path / "reward" / "c").symlink_to(tmp_path / "outside")
    reopen(path, moment)
    assert (tmp_path / "outside" / "0").is_dir()
