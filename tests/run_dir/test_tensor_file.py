"""Tensor files: one spelling, exact copies, and refusal of anything else within bounds.

Hostile files are put together here by hand: 8 bytes of header length, a JSON header, raw tensors.
"""

import json
import math
import os
import pickle  # noqa: TID251 - to write what must not be read
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.run_dir.tensor_file import (
    canonical_json,
    check_tensors,
    read_tensor_file,
    tensor_file_bytes,
)

MAX_BYTES = 2**20
DOCUMENT: dict[str, Any] = {"name": "α", "counts": [1, 2.5, None, True], "agents": 2}
TEXT = '{"agents":2,"counts":[1,2.5,null,true],"name":"\\u03b1"}'
"""`DOCUMENT`, spelled by hand."""


def tensors() -> dict[str, Tensor]:
    values = torch.arange(6).reshape(2, 3)
    dtypes = (
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    )
    return {
        **{str(dtype): values.to(dtype) for dtype in dtypes},
        "mask": values > 2,
        "scalar": torch.tensor(math.pi, dtype=torch.float64),
        "empty": torch.empty(0, 4),
        "odd numbers": torch.tensor([math.nan, -math.inf, -0.0, 1e-45]),
    }


def read(path: Path, max_bytes: int = MAX_BYTES) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return read_tensor_file(path, what="checkpoint file", max_bytes=max_bytes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.safetensors"


@pytest.fixture
def refusal(path: Path) -> Callable[[bytes], str]:
    """Read what must be refused, and return the line that does."""

    def refuse(content: bytes) -> str:
        path.write_bytes(content)
        started_s = time.process_time()
        with pytest.raises(FileError) as caught:
            read(path)
        assert time.process_time() - started_s < 2.0
        message = str(caught.value)
        assert f"'{path}' is no checkpoint file, or a damaged one: " in message
        assert len(message) < 600
        assert message.isprintable()
        return message

    return refuse


def file_of(header: object, body: bytes = b"") -> bytes:
    """A file with this header: as raw text, or as JSON in the spelling of safetensors."""
    if not isinstance(header, str):
        header = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
    return struct.pack("<Q", len(header.encode())) + header.encode() + body


def header_with(text: object = TEXT, **entries: object) -> dict[str, object]:
    return {"__metadata__": {"mgrl": text}, **entries}


def entry(dtype: str, shape: list[int], stop: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, stop]}


def test_canonical_json_has_one_spelling() -> None:
    assert canonical_json(DOCUMENT) == TEXT
    assert canonical_json(dict(reversed(DOCUMENT.items()))) == TEXT


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_canonical_json_has_no_number_that_is_not_finite(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": [number]})


def test_a_file_gives_back_document_and_tensors_bit_for_bit(path: Path) -> None:
    path.write_bytes(tensor_file_bytes(tensors(), DOCUMENT))
    document, got = read(path)
    assert document == DOCUMENT
    expected = tensors()
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape)
        assert bits(got[name]) == bits(tensor), name


def bits(tensor: Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def test_a_file_without_tensors_is_one_too(path: Path) -> None:
    path.write_bytes(tensor_file_bytes({}, {}))
    assert read(path) == ({}, {})


def test_the_same_input_gives_the_same_bytes_in_whatever_order() -> None:
    content = tensor_file_bytes(tensors(), DOCUMENT)
    reordered = dict(reversed(tensors().items()))
    assert tensor_file_bytes(reordered, dict(reversed(DOCUMENT.items()))) == content
    assert tensor_file_bytes(tensors(), DOCUMENT | {"agents": 3}) != content


def test_a_file_is_the_one_that_safetensors_would_write() -> None:
    assert tensor_file_bytes(tensors(), DOCUMENT) == save(tensors(), metadata={"mgrl": TEXT})


def test_strides_sharing_and_gradients_do_not_matter() -> None:
    whole = torch.arange(6.0).reshape(2, 3).requires_grad_()
    plain = {"a": whole.detach().clone(), "b": torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]])}
    expected = tensor_file_bytes({**plain, "c": torch.tensor([3.0, 4.0])}, {})
    assert tensor_file_bytes({"a": whole, "b": whole.T, "c": whole[1, :2]}, {}) == expected
    assert tensor_file_bytes({"a": whole, "b": whole}, {}) == tensor_file_bytes(
        {"a": plain["a"], "b": plain["a"].clone()}, {}
    )


@pytest.mark.parametrize(
    ("unwritable", "document"),
    [
        (torch.zeros(1), {"a": math.nan}),
        (torch.zeros(1), {"a": "x" * 2**20}),
        (torch.zeros(1), {2: "a", 10: "b"}),
        (torch.zeros(1, dtype=torch.complex64), {}),
        (torch.zeros([1] * 9), {}),
    ],
)
def test_what_could_not_be_read_is_not_written(
    unwritable: Tensor, document: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"JSON|header|type|shape"):
        tensor_file_bytes({"tensor": unwritable}, document)


def test_tensors_do_not_change_with_the_file(path: Path) -> None:
    content = tensor_file_bytes({"a": torch.ones(1000)}, {})
    path.write_bytes(content)
    _, got = read(path)
    with path.open("r+b") as file:
        file.seek(len(content) - 4000)
        file.write(bytes(4000))
    assert got["a"].eq(1).all()
    got["a"] += 1  # and may be changed
    assert got["a"].eq(2).all()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent", tmp_path / "absent" / "a", tmp_path / "file" / "a"):
        with pytest.raises(FileError, match=f"checkpoint file '{path}' does not exist; check"):
            read(path)


def test_only_files_are_opened(tmp_path: Path) -> None:
    """Opening a pipe without a writer would never return."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(FileError, match="expected a file, got a directory, pipe or device"):
            read(path)


def test_what_the_system_refuses_is_no_fault_of_the_file(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (loop, tmp_path / ("x" * 5000)):
        with pytest.raises(StorageError, match="cannot read checkpoint file"):
            read(path)


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="null"):
        read(tmp_path / "a\0b")


def test_the_largest_size_is_the_callers(path: Path) -> None:
    content = tensor_file_bytes(tensors(), DOCUMENT)
    path.write_bytes(content)
    assert read(path, len(content))[0] == DOCUMENT
    with pytest.raises(FileError, match=rf"at most [\d.]+ MiB, got {len(content)} bytes"):
        read(path, len(content) - 1)


@pytest.mark.parametrize("header_bytes", [2**20 + 1, 200 * 10**6, 2**40, 2**63, 2**64 - 1])
def test_an_absurd_header_is_refused_before_anything_is_allocated(
    path: Path, header_bytes: int
) -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<Q", header_bytes) + b"{}")
        file.truncate(300 * 10**6)  # a hole: takes no space
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=f"header of at most 1 MiB, got {header_bytes} bytes"):
            read(path, 2**30)
        with pytest.raises(FileError, match=r"at most 1 MiB, got 300000000 bytes"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_truncated_file_is_refused(refusal) -> None:
    content = tensor_file_bytes(tensors(), DOCUMENT)
    for size in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        refusal(content[:size])


def test_a_file_with_something_before_or_behind_is_refused(refusal) -> None:
    content = tensor_file_bytes(tensors(), DOCUMENT)
    refusal(content + b"\0")
    refusal(b"\0" + content)


class _Canary:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_a_pickle_is_refused_without_running_it(tmp_path: Path, refusal) -> None:
    trace = tmp_path / "trace"
    pickled = pickle.dumps({"weight": _Canary(trace)})
    pickle.loads(pickled)
    trace.unlink()  # the canary is live: this fails without a trace
    for content in (
        pickled,
        file_of(pickled.decode("latin-1")),
        file_of(header_with(pickled.decode("latin-1"))),
        tensor_file_bytes({}, {}) + pickled,
    ):
        refusal(content)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("metadata", "shown"),
    [
        (None, "[]"),
        ({}, "[]"),
        ([1, "mgrl"], "[]"),
        ("mgrl", "[]"),
        ({"format": "pt"}, "['format']"),
        ({"mgrl": TEXT, "extra": "x"}, "['extra', 'mgrl']"),
        ({"\x1b[2J" * 100: "x"}, r"['\x1b[2J\x1b[2J"),
    ],
)
def test_other_metadata_are_refused(refusal, metadata: object, shown: str) -> None:
    message = refusal(file_of({"__metadata__": metadata}))
    assert f"expected one metadata key 'mgrl', got {shown}" in message
    assert "expected one metadata key 'mgrl', got []" in refusal(save({"a": torch.zeros(3)}))


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace(":2,", ": 2,"),
        TEXT + " ",
        TEXT.replace('"agents":2', '"agents":2,"agents":2'),
        TEXT.replace('"agents":2', '"agents":3,"agents":2'),
        TEXT.replace("\\u03b1", "\\u03B1"),
        TEXT.replace("\\u03b1", "α"),
        TEXT.replace("name", "\\u006eame"),
        TEXT.replace("2.5", "2.50"),
        TEXT.replace("2.5", "25e-1"),
        TEXT.replace("1,2.5", "1,1e999"),
        TEXT.replace("1,2.5", "1,NaN"),
        '{"name":"a","agents":2}',
        "[]",
        "1",
        '"mgrl"',
        "null",
        "",
        "{",
        "[" * 100_000,
        '{"a":' * 50_000,
        '{"a":' + "9" * 5000 + "}",
        2,
        None,
        {"agents": 2},
    ],
)
def test_a_document_in_any_other_spelling_is_refused(refusal, text: object) -> None:
    assert "invalid metadata" in refusal(file_of(header_with(text)))


@pytest.mark.parametrize(
    "header",
    [
        json.dumps(header_with()),
        '{"__metadata__":{"mgrl":"{}","mgrl":"{}"}}',
        '{"__metadata__":{"mgrl":"{}"},"__metadata__":{"mgrl":"{}"}}',
        '{"__metadata__":{"\\u006dgrl":"{}"}}',
        '{"__metadata__":{"mgrl":"{}"},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
        '"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}',
        '\t{"__metadata__":{"mgrl":"{}"}}',
        '{"__metadata__":{"mgrl":"{}"}}\n',
    ],
)
def test_a_header_in_any_other_spelling_is_refused(refusal, header: str) -> None:
    assert "not in the one spelling" in refusal(file_of(header))


@pytest.mark.parametrize(
    "header", ["", "[]", "{", "[" * 500_000, "nul", "NaN", '{"a":' * 100_000, "\ud800"]
)
def test_a_header_that_is_no_object_is_refused(refusal, header: str) -> None:
    text = header.encode(errors="surrogatepass")
    refusal(struct.pack("<Q", len(text)) + text)


@pytest.mark.parametrize(
    ("tensor", "body"),
    [
        (entry("F32", [10**15], 4), bytes(4)),
        (entry("F32", [10**15], 4 * 10**15), bytes(4)),
        (entry("F32", [2**62, 4], 0), b""),
        (entry("F32", [0, 2**62, 2**62], 0), b""),
        (entry("F32", [0, 2**64 - 1], 0), b""),
        (entry("F32", [0, 10**15], 0), b""),
        (entry("F32", [-1], 4), bytes(4)),
        (entry("F32", [1.5], 4), bytes(4)),
        (entry("F32", [1], 5), bytes(5)),
        (entry("F32", [1] * 100_000, 4), bytes(4)),
        (entry("F32", [1], -4), bytes(4)),
        (entry("F4", [2], 1), bytes(1)),
        (entry("F8_E8M0", [1], 1), bytes(1)),
        (entry("C64", [1], 8), bytes(8)),
        (entry("\x1b[2J", [1], 8), bytes(8)),
        ({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}, bytes(8)),
        ({"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}, bytes(8)),
        ({"dtype": "F32", "shape": [1]}, bytes(4)),
        ({}, b""),
        ("F32", b""),
    ],
)
def test_tensors_that_make_no_sense_are_refused(refusal, tensor: object, body: bytes) -> None:
    refusal(file_of(header_with(a=tensor), body))


def test_tensors_may_not_overlap(refusal) -> None:
    one = entry("F32", [1], 4)
    refusal(file_of(header_with(a=one, b=one), bytes(4)))


def test_thousands_of_empty_tensors_take_neither_long_nor_much(path: Path) -> None:
    entries = {f"{number:x}": entry("F32", [0], 0) for number in range(18_000)}
    content = file_of(header_with(**entries))
    assert 0.9 * 2**20 < len(content) < 2**20
    path.write_bytes(content)
    started_s = time.process_time()
    _, got = read(path)
    assert len(got) == 18_000
    assert time.process_time() - started_s < 2.0


TEMPLATE = {"a": (torch.float32, (2, 3)), "b": (torch.int64, ())}


def check(**changes: Tensor | None) -> None:
    given: dict[str, Tensor | None] = {"a": torch.zeros(2, 3), "b": torch.tensor(1)}
    given |= changes
    present = {name: tensor for name, tensor in given.items() if tensor is not None}
    check_tensors(Path("x/agent"), present, TEMPLATE, what="checkpoint file")


def test_tensors_like_their_template_pass() -> None:
    check()


@pytest.mark.parametrize(
    ("tensor", "got"),
    [
        (torch.zeros(3, 2), "torch.float32 (3, 2)"),
        (torch.zeros(6), "torch.float32 (6,)"),
        (torch.zeros(1, 2, 3), "torch.float32 (1, 2, 3)"),
        (torch.zeros(2, 3, dtype=torch.float64), "torch.float64 (2, 3)"),
        (torch.zeros(2, 3, dtype=torch.int32), "torch.int32 (2, 3)"),
    ],
)
def test_a_tensor_unlike_its_template_is_named(tensor: Tensor, got: str) -> None:
    with pytest.raises(FileError) as caught:
        check(a=tensor)
    expected = f"checkpoint file 'x/agent': tensor 'a' is {got}, expected torch.float32 (2, 3);"
    assert str(caught.value).startswith(expected)


def test_missing_and_unknown_tensors_are_named_in_a_line() -> None:
    with pytest.raises(FileError, match=r"missing \['b'\], not expected \['c'\]"):
        check(b=None, c=torch.zeros(1))
    with pytest.raises(FileError) as caught:
        check(**{"\n" * 10_000: torch.zeros(1)})
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


WHOLE = tensor_file_bytes({"a": torch.arange(4.0), "b": torch.tensor([True])}, DOCUMENT)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A whole file of which one piece was cut out, and other bytes put in its place."""
    start = draw(st.integers(0, len(WHOLE)))
    stop = draw(st.integers(start, min(start + 20, len(WHOLE))))
    return WHOLE[:start] + draw(st.binary(max_size=20)) + WHOLE[stop:]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
HEADERS = st.dictionaries(
    st.sampled_from(["__metadata__", "a", "b"]),
    JSON
    | st.fixed_dictionaries({"mgrl": JSON | st.just(TEXT)})
    | st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "BOOL", "F4", "C64"]) | JSON,
            "shape": st.lists(st.integers(0, 2**65) | st.just(1), max_size=4) | JSON,
            "data_offsets": st.lists(st.integers(0, 8), min_size=2, max_size=2) | JSON,
        }
    ),
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed") / "file.safetensors"


@settings(max_examples=200, deadline=None)
@given(
    content=st.binary(max_size=100) | damaged() | st.builds(file_of, HEADERS, st.binary(max_size=8))
)
def test_arbitrary_bytes_are_read_whole_or_refused(fuzzed: Path, content: bytes) -> None:
    fuzzed.write_bytes(content)
    try:
        document, got = read(fuzzed)
    except (FileError, StorageError):
        return
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    assert header.pop("__metadata__") == {"mgrl": canonical_json(document)}
    assert set(got) == set(header)


def test_no_bit_of_a_header_can_flip_unseen(path: Path) -> None:
    """Seen means: refused, or the document or a name, type or shape differs."""
    whole = tensor_file_bytes({"a": torch.zeros(2, 3), "b": torch.zeros(6)}, DOCUMENT)
    header_bytes = 8 + struct.unpack("<Q", whole[:8])[0]

    def shape_of_file() -> object:
        document, got = read(path)
        return document, {name: (tensor.dtype, tensor.shape) for name, tensor in got.items()}

    path.write_bytes(whole)
    original = shape_of_file()
    for position in range(header_bytes):
        for bit in range(8):
            content = bytearray(whole)
            content[position] ^= 1 << bit
            path.write_bytes(content)
            try:
                assert shape_of_file() != original, (position, bit)
            except FileError:
                continue
