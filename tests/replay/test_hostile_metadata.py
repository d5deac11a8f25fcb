"""A `zarr.json` that somebody else wrote: readers refuse it, or read as if it were the original.

The log never reads one: it makes all of them anew when it is opened again.
"""

import json
import os
import shutil
import time
import tracemalloc
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.replay.schema import FIELDS

ABSURD = 10**15
ATTRIBUTES = {"environment": "Hopper-v5"}


class Whole(NamedTuple):
    """A log of 4500 steps, two chunks per step array."""

    path: Path
    log: ReplayLog
    rows: dict[str, Any]
    tree: dict[str, bytes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make_episode):
    path = tmp_path_factory.mktemp("whole") / "agent-000"
    log = ReplayLog.create(path, obs_size=3, act_size=2, attributes=ATTRIBUTES)
    for number in range(3):
        log.append(make_episode(1500, number))
    log.commit()
    return Whole(path, log, rows_of(ReplayReader(path)), tree_of(path))


@pytest.fixture
def path(tmp_path, whole):
    shutil.copytree(whole.path, tmp_path / "agent-000")
    return tmp_path / "agent-000"


def tree_of(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in files_of(path)}


def files_of(path):
    return (file for file in path.rglob("*") if not file.is_dir())


def rows_of(reader):
    return {
        name: reader.read(
            name, 0, reader.committed_episodes if field.per_episode else reader.committed_rows
        )
        for name, field in FIELDS.items()
    }


LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
BIG = {"name": "bytes", "configuration": {"endian": "big"}}
CRC = {"name": "crc32c"}
SHARDS = {
    "name": "sharding_indexed",
    "configuration": {
        "chunk_shape": [4096, 3],
        "codecs": [LITTLE, CRC],
        "index_codecs": [LITTLE, CRC],
        "index_location": "end",
    },
}
BLOSC = {
    "name": "blosc",
    "configuration": {
        "cname": "zstd", "clevel": 5, "shuffle": "shuffle", "typesize": 4, "blocksize": 0,
    },
}  # fmt: skip
ZSTD = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}
TRANSPOSED = {"name": "transpose", "configuration": {"order": [1, 0]}}


def chunks_of(*shape):
    return {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}}}


MUTATIONS = {
    "absurd length": {"shape": [ABSURD, 3]},
    "absurd width": {"shape": [4500, ABSURD]},
    "negative shape": {"shape": [-4500, 3]},
    "shape of words": {"shape": ["4500", "3"]},
    "shape of fractions": {"shape": [4500.5, 3]},
    "too short": {"shape": [4499, 3]},
    "no axis": {"shape": []},
    "wider numbers": {"data_type": "float64"},
    "same size, other numbers": {"data_type": "int32"},
    "objects": {"data_type": {"name": "raw_bytes", "configuration": {"length_bytes": 4}}},
    "big endian": {"codecs": [BIG, CRC]},
    "blosc": {"codecs": [LITTLE, BLOSC]},
    "zstd": {"codecs": [LITTLE, ZSTD]},
    "gzip": {"codecs": [LITTLE, {"name": "gzip", "configuration": {"level": 5}}, CRC]},
    "transposed": {"codecs": [TRANSPOSED, LITTLE, CRC]},
    "sharding": {"codecs": [SHARDS]},
    "no checksum": {"codecs": [LITTLE]},
    "two checksums": {"codecs": [LITTLE, CRC, CRC]},
    "no codec": {"codecs": []},
    "codecs that are no list": {"codecs": {"name": "bytes"}},
    "fill value": {"fill_value": 7.0},
    "fill value of words": {"fill_value": "NaN"},
    "huge chunks": chunks_of(ABSURD, 3),
    "no chunks": chunks_of(0, 3),
    "other places": {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "/"}}},
    "transformer": {"storage_transformers": [{"name": "evil", "must_understand": True}]},
    "unknown, to be understood": {"evil": {"must_understand": True}},
    "huge attributes": {"attributes": {"a": "x" * 2**21}},
    "group instead of array": {"node_type": "group"},
    "unknown node": {"node_type": "link"},
    "other format": {"zarr_format": 2},
}  # fmt: skip


@contextmanager
def soon_and_in_little_memory():
    tracemalloc.start()
    before = time.process_time()
    try:
        yield
        assert time.process_time() - before < 5
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()


def assert_refused(path, message="agent-000"):
    with (
        soon_and_in_little_memory(),
        pytest.raises(FileError, match=message) as caught,
    ):
        rows_of(ReplayReader(path))
    assert "\n" not in str(caught.value)


def reopen(path, whole):
    ReplayLog.reopen(path, whole.log.position, whole.log.tail, ATTRIBUTES)


def assert_mended(path, whole):
    with soon_and_in_little_memory():
        reopen(path, whole)
    assert tree_of(path) == whole.tree
    assert not any(file.is_symlink() for file in path.rglob("*"))


@pytest.mark.parametrize("change", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_tampered_array_is_refused_and_then_mended(path, whole, change):
    file = path / "obs" / "zarr.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert_refused(path, "obs")
    assert_mended(path, whole)


@pytest.mark.parametrize(
    "attributes",
    [
        {"committed_rows": ABSURD},
        {"committed_episodes": ABSURD},
        {"obs_size": ABSURD},
        {"act_size": 2**16},
        {"obs_size": 3.0},
        {"format_version": 2},
        {"padding": "x" * 2**20},
    ],
    ids=lambda attributes: "-".join(attributes),
)
def test_a_tampered_group_is_refused_and_then_mended(path, whole, attributes):
    file = path / "zarr.json"
    document = json.loads(file.read_text())
    document["attributes"].update(attributes)
    file.write_text(json.dumps(document))
    assert_refused(path)
    assert_mended(path, whole)


@pytest.mark.parametrize("inner", ["zarr.json", "episodes/zarr.json", "reward/zarr.json"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_truncated_metadata_are_refused_and_then_mended(path, whole, inner, share):
    text = (path / inner).read_text()
    (path / inner).write_text(text[: int(share * len(text))])
    assert_refused(path)
    assert_mended(path, whole)


def test_metadata_of_another_kind_of_node_are_refused_and_then_mended(path, whole):
    for inner, other in (("episodes", "episodes/start"), ("", "reward"), ("reward", "episodes")):
        (path / inner / "zarr.json").write_bytes((path / other / "zarr.json").read_bytes())
        assert_refused(path)
        assert_mended(path, whole)


def test_a_whole_replay_inside_an_array_is_refused(path, whole):
    shutil.rmtree(path / "obs")
    shutil.copytree(whole.path, path / "obs")
    assert_refused(path, "obs")
    with pytest.raises(FileError, match="'obs' chunk 0 is missing"):
        reopen(path, whole)


def replace_by_link(path, inner):
    shutil.move(path / inner, path.parent / "elsewhere")
    (path / inner).symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize(
    "inner", ["obs/c/1/0", "obs/c/1", "reward/c/1", "episodes/start", "episodes", "obs/zarr.json"]
)
def test_links_are_refused_even_where_they_lead_to_the_same_bytes(path, whole, inner):
    replace_by_link(path, inner)
    assert_refused(path, "is a link")
    elsewhere = path.parent / "elsewhere"
    held = tree_of(elsewhere) if elsewhere.is_dir() else elsewhere.read_bytes()
    assert_mended(path, whole)  # and nothing is written where the link led
    assert held == (tree_of(elsewhere) if elsewhere.is_dir() else elsewhere.read_bytes())


@pytest.mark.parametrize("inner", ["obs/c/0/0", "obs/c/0", "reward/c/0", "reward/c", "reward"])
def test_links_in_the_place_of_full_chunks_are_never_believed(path, whole, inner):
    replace_by_link(path, inner)
    assert_refused(path, "is a link")
    with pytest.raises(FileError, match="is a link"):
        reopen(path, whole)


@pytest.mark.parametrize("inner", ["zarr.json", "obs/zarr.json", "reward/c/1", "reward/c/0"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_pipes_and_folders_in_the_place_of_files_are_refused(path, whole, inner, make):
    (path / inner).unlink()
    make(path / inner)
    assert_refused(path, "no plain file")
    if inner == "reward/c/0":
        with pytest.raises(FileError, match="no plain file"):
            reopen(path, whole)
    else:
        assert_mended(path, whole)


def test_consolidated_metadata_are_not_believed(path, whole):
    file = path / "zarr.json"
    document = json.loads(file.read_text())
    tampered = json.loads((path / "obs" / "zarr.json").read_text())
    tampered["codecs"] = [BIG, CRC]
    inline = {"kind": "inline", "must_understand": False, "metadata": {"obs": tampered}}
    file.write_text(json.dumps({**document, "consolidated_metadata": inline}))
    reader = ReplayReader(path, whole.log.position)
    np.testing.assert_array_equal(reader.read("obs", 0, 4500), whole.rows["obs"])


FILES = ["zarr.json", "episodes/zarr.json", "obs/zarr.json", "terminated/zarr.json",
         "episodes/start/zarr.json"]  # fmt: skip
JSON_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(0, 5000),
    st.floats(allow_subnormal=False),  # serial runs of other tests make torch flush them
    st.text(max_size=8),
    st.sampled_from(["bytes", "crc32c", "float32", "bool", "big", "array", "group", "NaN"]),
    st.just(json.dumps(BIG)).map(json.loads),
    st.lists(st.integers(-1, 5000), max_size=3),
    st.dictionaries(st.sampled_from(["name", "configuration", "endian"]), st.text(max_size=3)),
)


def places_of(document, place=()):
    """Every place inside a JSON document, as the keys that lead there."""
    items = ()
    if isinstance(document, dict):
        items = document.items()
    elif isinstance(document, list):
        items = enumerate(document)
    for key, value in items:
        yield (*place, key)
        yield from places_of(value, (*place, key))


def mutate_keys(text, data):
    document = json.loads(text)
    for _ in range(data.draw(st.integers(1, 3))):
        places = list(places_of(document))
        if not places:
            break
        *outer, key = data.draw(st.sampled_from(places))
        node = document
        for each in outer:
            node = node[each]
        action = data.draw(st.sampled_from(["set", "set", "remove", "add"]))
        if action == "remove":
            del node[key]
        elif action == "add" and isinstance(node, list):
            node.append(data.draw(JSON_VALUES))
        else:
            node[key] = data.draw(JSON_VALUES)
    return json.dumps(document).encode()


def mutate_bytes(text, data):
    content = bytearray(text)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        stop = at + data.draw(st.sampled_from([0, 1, 1, 1, 9]))
        content[at:stop] = data.draw(st.binary(max_size=2) | st.sampled_from([b"0", b"9", b"-"]))
        content = content or bytearray(b" ")
    return bytes(content)


@settings(max_examples=150, deadline=None)
@given(inner=st.sampled_from(FILES), data=st.data())
def test_random_metadata_give_the_original_rows_or_an_error(whole, inner, data):
    path, position, expected = whole.path, whole.log.position, whole.rows
    file = path / inner
    original = file.read_bytes()
    mutate = data.draw(st.sampled_from([mutate_keys, mutate_bytes]))
    file.write_bytes(mutate(original, data))
    try:
        reader = ReplayReader(path, position)
        rows = rows_of(reader)
        problems = reader.verify()
    except (FileError, StorageError) as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
        return
    finally:
        file.write_bytes(original)
    assert problems == []
    for name, values in expected.items():
        np.testing.assert_array_equal(rows[name], values, name)
        assert rows[name].dtype == values.dtype
