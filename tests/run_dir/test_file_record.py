"""Size and digest of a file, whole, in pieces and under a limit."""

import hashlib
import io
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from mgrl_cli.errors import FileError
from mgrl_cli.run_dir.file_record import FileRecord, RollingRecord, record_of_file

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""SHA-256 of "abc", from FIPS 180-2, appendix B.1."""


def test_the_record_of_known_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    record = FileRecord(bytes=3, sha256=ABC)
    assert FileRecord.of(b"abc") == record
    assert record_of_file(tmp_path / "file") == record


def test_a_file_of_several_blocks_is_read_whole(tmp_path: Path) -> None:
    content = os.urandom((1 << 21) + 5)
    (tmp_path / "file").write_bytes(content)
    assert record_of_file(tmp_path / "file") == FileRecord(
        bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )


def test_pieces_add_up_to_the_whole() -> None:
    rolling = RollingRecord()
    assert rolling.record == FileRecord.of(b"")
    rolling.add(b"a")
    rolling.add_from(io.BytesIO(b"bcdef"), 2)
    assert rolling.record == FileRecord(bytes=3, sha256=ABC)
    rolling.add_from(io.BytesIO(b"de"), 9)  # as many as there are
    assert rolling.record == FileRecord.of(b"abcde")


def test_a_file_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert record_of_file(tmp_path / "file", limit_bytes=3).sha256 == ABC
    with pytest.raises(FileError, match="too large: got 3 bytes, expected 2 at most"):
        record_of_file(tmp_path / "file", limit_bytes=2)


@pytest.mark.parametrize("kind", ["missing", "link", "pipe", "directory"])
def test_only_a_regular_file_has_a_record(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "link":
        (tmp_path / "outside").write_bytes(b"abc")
        path.symlink_to(tmp_path / "outside")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    expected = "is missing" if kind == "missing" else "is not a regular file"
    with pytest.raises(FileError, match=f"file' {expected}; restore it from a copy"):
        record_of_file(path)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"bytes": -1, "sha256": "{ABC}"}}',
        f'{{"bytes": 1.0, "sha256": "{ABC}"}}',
        f'{{"bytes": "1", "sha256": "{ABC}"}}',
        f'{{"bytes": true, "sha256": "{ABC}"}}',
        f'{{"bytes": 1, "sha256": "{ABC.upper()}"}}',
        f'{{"bytes": 1, "sha256": "{ABC[1:]}"}}',
        f'{{"bytes": 1, "sha256": "{ABC}\\n"}}',
        f'{{"bytes": 1, "sha256": "{ABC}", "name": "x"}}',
        '{"bytes": 1}',
    ],
)
def test_a_record_that_no_file_can_have_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        FileRecord.model_validate_json(text)


def test_a_record_survives_json_and_never_changes() -> None:
    record = FileRecord.of(b"abc")
    assert FileRecord.model_validate_json(record.model_dump_json()) == record
    with pytest.raises(ValidationError, match="frozen"):
        record.bytes = 4  # pyright: ignore[reportAttributeAccessIssue]
