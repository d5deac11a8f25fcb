"""A manifest is read as it was written, or refused, whoever wrote it."""

import hashlib
import json
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.run_dir.build import this_build
from mgrl_cli.run_dir.file_record import FileRecord
from mgrl_cli.run_dir.manifest import (
    Manifest,
    ReplayRecord,
    checkpoint_name,
    position_of,
    read_manifest,
)

RECORD = FileRecord.of(b"abc")
MANIFEST = Manifest(
    kind="meta-train",
    rounds=7,
    updates=250,
    elapsed_s=12.5,
    settings_sha256=RECORD.sha256,
    build=this_build(),
    files={"agent-000.safetensors": RECORD, "exchange.safetensors": RECORD},
    config=RECORD,
    metrics={"agent-000.jsonl": RECORD, "population.jsonl": RECORD},
    replay={"agent-000": ReplayRecord(rows=3500, episodes=12, sha256=RECORD.sha256)},
    quarantined={"agent-001": 'it said "ä\n\x1b"'},
    barren_meetings=2,
    evaluations={"agent-000": 0.1 + 0.2},
    best="round-000003",
)
WHOLE = MANIFEST.to_bytes()


def canonical(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def sealed(document: dict[str, Any]) -> bytes:
    """What a stranger could write: anything, with the right digest."""
    rest = {key: value for key, value in document.items() if key != "sha256"}
    return canonical({**rest, "sha256": hashlib.sha256(canonical(rest)).hexdigest()})


def changed(*where_and_value: Any) -> bytes:
    """The manifest with a value somewhere else inside, and a digest that fits."""
    *where, key, value = where_and_value
    document = inner = json.loads(WHOLE)
    for step in where:
        inner = inner[step]
    inner[key] = value
    return sealed(document)


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(FileError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f"'{path}' ")
    assert len(message) < len(str(path)) + 350
    return message.removeprefix(f"'{path}' ")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "manifest.json"


# ---- whole ones


def test_a_manifest_survives_the_file(path: Path) -> None:
    path.write_bytes(WHOLE)
    read = read_manifest(path)
    assert read.model_copy(update={"sha256": ""}) == MANIFEST
    assert read.to_bytes() == WHOLE
    assert (read.name, read.position) == ("round-000007-update-000250", (7, 250))


def test_a_manifest_is_canonical_json_under_its_own_digest() -> None:
    assert sealed(json.loads(WHOLE)) == WHOLE


def test_the_largest_population_fits(path: Path) -> None:
    agents = [f"agent-{number:03d}" for number in range(4096)]
    manifest = MANIFEST.model_copy(
        update={
            "files": {f"{agent}.safetensors": RECORD for agent in agents},
            "metrics": {f"{agent}.jsonl": RECORD for agent in agents},
            "replay": dict.fromkeys(agents, MANIFEST.replay["agent-000"]),
            "evaluations": dict.fromkeys(agents, -1234.56789012345),
            "quarantined": dict.fromkeys(agents, "x" * 200),
        }
    )
    path.write_bytes(manifest.to_bytes())
    assert read_manifest(path).files.keys() == manifest.files.keys()


# ---- names and positions


@pytest.mark.parametrize(
    ("position", "name"),
    [
        ((0, 0), "round-000000"),
        ((12, 0), "round-000012"),
        ((12, 7), "round-000012-update-000007"),
        ((12, 0, 1), "round-000012-validated"),
        ((999_999, 0), "round-999999"),
        ((1_000_000, 1_000_000), "round-1000000-update-1000000"),
    ],
)
def test_a_name_says_a_position_and_back(position: tuple[int, ...], name: str) -> None:
    assert checkpoint_name(*position) == name
    assert position_of(name) == position


@pytest.mark.parametrize(
    "name",
    [
        *("", "round-", "round-1", "round-0000012", "round-000012-update-000000", "round-00001²"),
        *("round-000012 ", "round-000012\n", "round-000012/..", ".staging-0", "round-00000\u0661"),
        *("round-000012-update-7", "Round-000012", "round--00001", "round-" + "9" * 5000),
    ],
)
def test_any_other_name_is_no_position(name: str) -> None:
    assert position_of(name) is None


# ---- which one is better


@pytest.mark.parametrize(
    ("ours", "theirs", "is_better"),
    [
        ({0: 11.0, 1: -150.0, 2: 1.0}, {0: 10.0, 1: -200.0, 2: 3.0}, True),  # 2 : 1
        ({0: 10.5, 1: -900.0, 2: 1.0}, {0: 10.0, 1: -200.0, 2: 3.0}, False),  # 1 : 2
        ({0: 99.0, 1: 1.9, 2: 5.0}, {0: 1.0, 1: 2.0, 2: 5.0}, False),  # 1 : 1, one abstains
        ({0: 1.0}, {0: 1.0}, False),
        ({0: -0.0}, {0: 0.0}, False),
        ({0: 1e308}, {0: -1e308}, True),
        ({}, {0: 1.0}, False),
        ({}, {}, False),
        ({0: -500.0}, {}, True),  # nobody was evaluated there: anything known is better
        ({0: -500.0, 1: 1.0}, {1: 2.0}, False),  # 1 : 1
        ({0: 2.0}, {0: 1.0, 1: 5.0, 2: 5.0}, True),  # 1 : 0, two agents have left
    ],
)
def test_agents_vote_which_checkpoint_is_better(
    ours: dict[int, float], theirs: dict[int, float], is_better: bool
) -> None:
    candidate, incumbent = (
        MANIFEST.model_copy(
            update={"evaluations": {f"agent-{agent:03d}": score for agent, score in given.items()}}
        )
        for given in (ours, theirs)
    )
    assert candidate.is_better_than(incumbent) is is_better


# ---- damaged ones


@pytest.mark.parametrize(("stride", "bits"), [(3, 1), pytest.param(1, 8, marks=pytest.mark.slow)])
def test_a_flipped_bit_anywhere_is_seen(path: Path, stride: int, bits: int) -> None:
    for position in range(0, len(WHOLE), stride):
        for number in range(bits):
            content = bytearray(WHOLE)
            content[position] ^= 1 << (position + number) % 8
            refused(path, bytes(content))


def test_a_cut_anywhere_is_seen(path: Path) -> None:
    for size in range(0, len(WHOLE), 7):
        refused(path, WHOLE[:size])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WHOLE + b"\n", "is damaged: it does not match its own"),
        (WHOLE + WHOLE, "is damaged: it is not JSON"),
        (WHOLE[:-1] + b',"version":1}', "is damaged: it does not match its own"),
        (b"\xef\xbb\xbf" + WHOLE, "is damaged: it does not match its own"),
        (WHOLE.decode().encode("utf-16"), "is damaged: it does not match its own"),
        (WHOLE.replace(b'"rounds":7', b'"rounds":8'), "is damaged: it does not match its own"),
        (WHOLE.replace(b'"rounds":7', b'"rounds":' + b"7" * 5000), "is damaged: it is not JSON"),
        (WHOLE.replace(b'"rounds":7', b'"rounds":NaN'), "is no manifest of a checkpoint, or"),
        (WHOLE.replace(b"12.5", b"Infinity"), "is no manifest of a checkpoint, or damaged"),
        (WHOLE.replace(b"12.5", b"1e400"), "is no manifest of a checkpoint, or damaged"),
        (b"", "is damaged: it is not JSON"),
        (b"[]", "is no manifest of a checkpoint: it is not a JSON object"),
        (b"null", "is no manifest of a checkpoint: it is not a JSON object"),
        (b"\xff\xfe\xfd", "is damaged: it is not JSON"),
        (b'{"a":' * 2**17, "is damaged: it is not JSON"),
        (b"[" * (4 * 2**20), "is damaged: it is not JSON"),
    ],
)
def test_what_is_not_written_as_we_write_is_refused(
    path: Path, content: bytes, message: str
) -> None:
    assert refused(path, content).startswith(message)


# ---- hostile ones, whole by their own account


def test_a_digest_that_fits_makes_a_strangers_manifest_readable(path: Path) -> None:
    """So that the refusals below are for their own reasons."""
    path.write_bytes(changed("rounds", 8))
    assert read_manifest(path).rounds == 8


BAD_NAMES = [
    *(
        "../x",
        "/etc/passwd",
        "a\0b",
        "agent-000.safetensors/../../x",
        "..",
        "",
        ".",
        "manifest.json",
    ),
    *("agent-000.safetensors\n", "agent-0.safetensors", "AGENT-000.safetensors", "\x1b[2J\ud800"),
    *("agent-000\\..\\x", "x" * 100_000, "agent-00\u0660.safetensors", "C:agent-000.safetensors"),
]


@pytest.mark.parametrize("field", ["files", "metrics", "replay", "quarantined", "evaluations"])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_not_ours_is_refused(path: Path, field: str, name: str) -> None:
    value = next(iter(json.loads(WHOLE)[field].values()))
    refused(path, changed(field, name, value))


@pytest.mark.parametrize(
    "best", ["../round-000001", "/etc", "round-000001/../x", "round-000001\n", "x", None, 1]
)
def test_the_best_checkpoint_leads_nowhere_else(path: Path, best: object) -> None:
    assert "'best'" in refused(path, changed("best", best))


@pytest.mark.parametrize(
    "where",
    [("\x1b]0;x\n",), ("build", "host"), ("config", "path"), ("replay", "agent-000", "path")],
)
def test_an_unknown_key_is_named(path: Path, where: tuple[str, ...]) -> None:
    message = refused(path, changed(*where, "x"))
    assert repr(where[-1])[1:-1] in message
    assert "not permitted" in message


@pytest.mark.parametrize("value", [10**30, -1, 1.5, 7.0, True, "7", None, [7], {}])
@pytest.mark.parametrize(
    "where", [("rounds",), ("updates",), ("barren_meetings",), ("replay", "agent-000", "rows")]
)
def test_an_absurd_count_is_named(path: Path, where: tuple[str, ...], value: object) -> None:
    assert f"'{'.'.join(where)}'" in refused(path, changed(*where, value))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("elapsed_s",), -0.1),
        (("elapsed_s",), "1"),
        (("evaluations", "agent-000"), "NaN"),
        (("evaluations", "agent-000"), 10**400),
        (("files", "agent-000.safetensors", "bytes"), -1),
        (("files", "agent-000.safetensors", "sha256"), "g" * 64),
        (("settings_sha256",), RECORD.sha256.upper()),
        (("settings_sha256",), RECORD.sha256 + "\n"),
        (("kind",), "meta-steal"),
        (("format",), "mgrl-objective"),
        (("build", "threads"), "1"),
        (("build",), None),
        (("files",), []),
        (("quarantined", "agent-001"), ["x"]),
    ],
)
def test_an_absurd_value_is_named(path: Path, where: tuple[str, ...], value: object) -> None:
    assert f"'{'.'.join(where)}'" in refused(path, changed(*where, value))


@pytest.mark.parametrize("version", [0, 2, 10**30, "1", True, 1.0, None, [1] * 1000, "\x1b\n"])
def test_another_version_is_named(path: Path, version: object) -> None:
    message = refused(path, changed("version", version))
    if version == 1:  # true and 1.0, to Python, and no int all the same
        assert message.startswith("is damaged")
    else:
        assert message == (
            f"has format version {version!r:.40}, expected 1; use the mgrl that wrote it"
        )


@pytest.mark.parametrize("field", json.loads(WHOLE))
def test_a_missing_field_is_refused(path: Path, field: str) -> None:
    document = json.loads(WHOLE)
    del document[field]
    refused(path, canonical(document) if field == "sha256" else sealed(document))


@pytest.mark.parametrize("size", [4 * 2**20 + 1, 2**40])
def test_a_huge_file_is_refused_unread(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)  # nothing but a hole
    with pytest.raises(FileError, match=f"too large: got {size} bytes, expected 4194304 at most"):
        read_manifest(path)


@pytest.mark.parametrize("where", [("files",), ()])
def test_a_million_problems_are_counted_and_not_told(path: Path, where: tuple[str, ...]) -> None:
    document = json.loads(WHOLE)
    inner = document
    for step in where:
        inner = inner[step]
    inner |= {f"{number:05d}": 0 for number in range(100_000)}
    assert refused(path, sealed(document)).endswith("00000 problems")


@pytest.mark.parametrize("kind", ["missing", "link", "pipe", "directory", "file above"])
def test_only_a_regular_file_is_a_manifest(path: Path, kind: str) -> None:
    expected = "is not a regular file"
    if kind == "link":
        (path.parent / "outside").write_bytes(WHOLE)
        path.symlink_to("outside")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        expected = "is missing"
    if kind == "file above":
        path.touch()
        path = path / "manifest.json"
    with pytest.raises(FileError, match=f"json' {expected}; restore it from a copy"):
        read_manifest(path)


# ---- arbitrary ones

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@st.composite
def spliced(draw: st.DrawFn) -> bytes:
    """A manifest of which one piece was cut out, and other bytes put in its place."""
    start = draw(st.integers(0, len(WHOLE)))
    stop = draw(st.integers(start, min(start + 20, len(WHOLE))))
    return WHOLE[:start] + draw(st.binary(max_size=20)) + WHOLE[stop:]


@st.composite
def doctored(draw: st.DrawFn) -> bytes:
    """A manifest with any JSON somewhere inside, and a digest that fits."""
    document = deepcopy(json.loads(WHOLE))
    inner = document
    while True:
        key = draw(st.sampled_from(sorted(inner)) | st.text(max_size=5))
        if not isinstance(inner.get(key), dict) or draw(st.booleans()):
            break
        inner = inner[key]
    inner[key] = draw(JSON)
    return sealed(document)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed") / "manifest.json"


@settings(max_examples=150, deadline=None)
@given(content=doctored() | spliced() | st.binary(max_size=60) | JSON.map(canonical))
def test_arbitrary_manifests_are_read_whole_or_refused(fuzzed: Path, content: bytes) -> None:
    fuzzed.write_bytes(content)
    manifest, problem = None, ""
    try:
        manifest = read_manifest(fuzzed)
    except (FileError, StorageError) as error:
        problem = str(error)
    assert problem.isprintable()
    if manifest is not None:
        assert manifest.to_bytes() == content
        assert position_of(manifest.name) == manifest.position
