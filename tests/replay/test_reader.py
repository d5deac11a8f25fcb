import json
import shutil
import time

import numpy as np
import pytest
import zarr

from mgrl_cli.errors import FileError, UsageError
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.replay.reader import ReplayReader, agent_groups
from mgrl_cli.replay.schema import FIELDS


@pytest.fixture(scope="module")
def whole_log(tmp_path_factory, make_episode):
    """A whole log of 5010 steps: two chunks per step array, one per episode array."""
    path = tmp_path_factory.mktemp("whole") / "buffer.zarr" / "agent-000"
    log = ReplayLog.create(path, obs_size=3, act_size=2, attributes={})
    for number, length in enumerate((4000, 1000, 10)):
        log.append(make_episode(length, number))
    log.commit()
    return path


@pytest.fixture
def path(tmp_path, whole_log):
    """A copy of the whole log, to be damaged."""
    shutil.copytree(whole_log.parent, tmp_path / "buffer.zarr")
    return tmp_path / "buffer.zarr" / "agent-000"


def change_json(file, change):
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def change_values(path, name, rows, values):
    """Write false values with a right checksum, as a program with a bug would."""
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.open_array(path / FIELDS[name].path, mode="r+")[rows] = values


@pytest.mark.parametrize("field", FIELDS.values(), ids=lambda field: field.name)
def test_a_missing_chunk_is_named_and_never_read_as_zeros(path, field):
    chunk = 0 if field.per_episode else 1
    (path / field.chunk_path(chunk)).unlink()
    reader = ReplayReader(path)
    with pytest.raises(FileError, match=rf"'{field.path}' chunk {chunk} is missing"):
        reader.read(field.name, 2 if field.per_episode else 4090, 3 if field.per_episode else 5000)
    assert any(f"'{field.path}' chunk {chunk} is missing" in line for line in reader.verify())


@pytest.mark.parametrize("field", FIELDS.values(), ids=lambda field: field.name)
def test_a_flipped_bit_is_found(path, field):
    file = path / field.chunk_path(0)
    data = bytearray(file.read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(5):
        bit = int(rng.integers(8 * len(data)))
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        reader = ReplayReader(path)
        with pytest.raises(FileError, match=rf"'{field.path}' chunk 0 is damaged"):
            reader.read(field.name, 0, 1)
        data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)
    assert ReplayReader(path).verify() == []


@pytest.mark.parametrize("keep", [0, 1, 4, 20_000, -1])
def test_a_truncated_chunk_is_found(path, keep):
    file = path / FIELDS["action"].chunk_path(1)
    file.write_bytes(file.read_bytes()[:keep])
    reader = ReplayReader(path)
    with pytest.raises(FileError, match=r"'action' chunk 1 has \d+ bytes, expected 32772"):
        reader.read_episode(2)
    assert reader.read_episode(0).seed == 100
    assert len(reader.verify()) == 1


def test_verify_looks_at_the_disk_again(path):
    reader = ReplayReader(path)
    reader.read_episode(0)
    (path / FIELDS["reward"].chunk_path(0)).unlink()
    assert len(reader.verify()) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path / "typo",
        lambda path: path / "obs",
        lambda path: path / "obs" / "zarr.json",
        lambda path: path.parent,
        lambda path: path / "episodes",
    ],
    ids=["missing", "an array", "a file", "the parent", "the subgroup"],
)
def test_what_is_not_an_agents_group_is_refused(path, make):
    target = make(path)
    with pytest.raises(FileError) as caught:
        ReplayReader(target)
    assert str(target) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (path / "typo").exists()


def test_an_empty_or_foreign_directory_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for function in (ReplayReader, agent_groups):
        with pytest.raises(FileError, match="missing"):
            function(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format", "other", "no mgrl replay"),
        ("format_version", 2, "format version 2, expected 1"),
        ("committed_rows", -1, "'committed_rows' is -1"),
        ("committed_rows", 5.0, "'committed_rows' is 5.0"),
        ("committed_rows", True, "'committed_rows' is True"),
        ("committed_rows", 5011, "has 5010 rows, 5011 are committed"),
        ("committed_rows", 10**15, "'committed_rows'"),
        ("committed_episodes", 10**30, "'committed_episodes'"),
        ("committed_episodes", None, "'committed_episodes' is None"),
        ("obs_size", 0, "'obs_size' is 0"),
        ("obs_size", 10**15, "from 1 to 65536"),
        ("obs_size", 4, "does not describe"),
        ("act_size", "2", "'act_size' is '2'"),
    ],
)
def test_false_attributes_are_refused(path, name, value, message):
    change_json(path / "zarr.json", lambda document: document["attributes"].update({name: value}))
    with pytest.raises(FileError, match=message) as caught:
        ReplayReader(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["zarr.json", "obs/zarr.json", "episodes/start/zarr.json"])
@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "3", '{"zarr_format": 3}', "[" * 50_000, "\xff", "{}", " " * 2**21],
)
def test_damaged_metadata_are_refused(path, file, text):
    (path / file).write_text(text, encoding="latin-1")
    with pytest.raises(FileError) as caught:
        ReplayReader(path)
    assert "\n" not in str(caught.value)


def test_metadata_of_absurd_size_are_not_even_parsed(path):
    with (path / "obs" / "zarr.json").open("a") as file:
        file.write(" " * 2**21)
    with pytest.raises(FileError, match="expected at most 1048576"):
        ReplayReader(path)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [5010, 4]},
        {"shape": [5010]},
        {"shape": [-5, 3]},
        {"shape": [5009, 3]},
        {"data_type": "float64"},
        {"data_type": "evil"},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]},
        {"codecs": [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 5}}]},
        {"codecs": [{"name": "made-up"}]},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**9, 3]}}},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}}},
        {"zarr_format": 9},
    ],
    ids=str,
)
def test_a_tampered_array_is_refused(path, change):
    change_json(path / "obs" / "zarr.json", lambda document: document.update(change))
    with pytest.raises(FileError, match="obs"):
        ReplayReader(path)


def test_absurd_claimed_sizes_cost_neither_time_nor_memory(path):
    absurd = 2**40
    for field in FIELDS.values():
        change_json(
            path / field.path / "zarr.json",
            lambda document: document.update(shape=[absurd, *document["shape"][1:]]),
        )
    assert ReplayReader(path).verify() == []  # rows beyond the committed ones are nobody's
    counts = {"committed_rows": absurd, "committed_episodes": absurd}
    change_json(path / "zarr.json", lambda document: document["attributes"].update(counts))
    before = time.process_time()
    reader = ReplayReader(path)
    with pytest.raises(FileError, match="'reward' chunk 2 is missing"):
        reader.read("reward", 0, absurd)
    with pytest.raises(FileError, match="'episodes/start' chunk 1 is missing"):
        reader.episodes()
    problems = reader.verify()
    assert problems[-1] == "too many problems: stopped looking"
    assert len(problems) == 101
    assert time.process_time() - before < 5


def test_an_episode_that_claims_rows_of_others_is_refused(path):
    change_values(path, "length", 2, 10**12)
    reader = ReplayReader(path)
    with pytest.raises(FileError, match="episode 2 claims rows"):
        reader.read_episode(2)
    assert reader.verify() == ["episode 2: length 1000000000000 is impossible"]


@pytest.mark.parametrize(
    ("name", "rows", "value", "problem"),
    [
        ("start", 1, 3999, "episode 1: starts at row 3999, expected 4000"),
        ("length", 2, 9, "episodes cover 5009 rows, 5010 are committed"),
        ("length", 0, 0, "episode 0: length 0 is impossible"),
        ("return", 1, 0.0, "episode 1: return 0 is not the sum of its rewards, 1.5005e+06"),
        ("return", 2, np.nan, "array 'episodes/return': a number that is not finite at row 2"),
        ("reward", 4500, 3.5, "episode 1: return 1.5005e+06 is not the sum"),
        ("reward", slice(4098, 4101), np.inf, "'reward': a number that is not finite at row 4098"),
        ("action", 17, 1.5, "'action': an action outside [-1, 1] at row 17 and 0 more"),
        ("final_obs", 1, np.nan, "'episodes/final_obs': a number that is not finite at row 1"),
        ("behaviour_kind", 5009, 2, "'behaviour_kind': an unknown behaviour kind at row 5009"),
        ("terminated", 4998, True, "'terminated': an episode ends inside itself at row 4998"),
        ("truncated", 0, True, "'truncated': an episode ends inside itself at row 0"),
        ("seed", 0, -3, "'episodes/seed': a negative number at row 0"),
    ],
)
def test_verify_finds_impossible_values(path, name, rows, value, problem):
    change_values(path, name, rows, value)
    problems = ReplayReader(path).verify()
    assert any(problem in line for line in problems), problems
    assert all("\n" not in line for line in problems)


def test_only_known_fields_and_committed_rows_can_be_read(path):
    reader = ReplayReader(path)
    with pytest.raises(UsageError, match="Unknown replay field 'rewards'"):
        reader.read("rewards", 0, 1)
    for rows in ((-1, 2), (3, 2), (0, 5011)):
        with pytest.raises(UsageError, match="not all committed"):
            reader.read("reward", *rows)
    for index in (-1, 3):
        with pytest.raises(UsageError, match="not all committed"):
            reader.read_episode(index)


def test_what_was_read_is_the_callers_own(path):
    reader = ReplayReader(path)
    reader.read("reward", 0, 5)[:] = 0
    assert reader.read("reward", 0, 2).tolist() == [1, 2]


def test_agent_groups_of_a_parent_without_agents_are_none(tmp_path):
    zarr.open_group(tmp_path / "buffer.zarr", mode="w", zarr_format=3)
    assert agent_groups(tmp_path / "buffer.zarr") == []
