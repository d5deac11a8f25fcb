"""Proving a run's metrics: what a checkpoint recorded byte for byte, newer rows by their form."""

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mgrl_cli.inspection.findings import Part
from mgrl_cli.run_dir.atomic import explain_os_error
from mgrl_cli.run_dir.file_record import FileRecord, RollingRecord
from mgrl_cli.run_dir.layout import RunDirectory

_LONGEST_ROW_BYTES = 2**20
_NOTHING = RollingRecord().record


class _Outcome(NamedTuple):
    num_bytes: int
    problem: str = ""
    note: str = ""


def verify_metrics(run: RunDirectory, recorded: Mapping[str, FileRecord]) -> Part:
    """Read all metrics files of a run.

    Args:
        run: whose.
        recorded: name → the beginning that the newest checkpoint recorded; empty: no checkpoint.
    """
    names = sorted(recorded.keys() | {path.name for path in run.metrics.glob("*.jsonl")})
    outcomes: list[_Outcome] = []
    for name in names:
        path, beginning = run.metrics / name, recorded.get(name, _NOTHING)
        outcome = _outcome(path, beginning)
        if outcome.problem:
            # Once more: a restart of workers may have cut rows off and written others meanwhile.
            outcome = _outcome(path, beginning)
        outcomes.append(outcome)
    return Part(
        name="metrics",
        counts={"file": len(names)},
        num_bytes=sum(outcome.num_bytes for outcome in outcomes),
        problems=tuple(outcome.problem for outcome in outcomes if outcome.problem),
        notes=tuple(outcome.note for outcome in outcomes if outcome.note),
    )


def _outcome(path: Path, beginning: FileRecord) -> _Outcome:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return _Outcome(0, f"'{path}' is not a regular file; restore it from a copy")
        with path.open("rb") as file:
            return _read(path, file, beginning)
    except FileNotFoundError:
        return _Outcome(0, f"'{path}' is missing; restore it from a copy")
    except OSError as error:
        return _Outcome(0, explain_os_error(error, f"read '{path}'"))


def _read(path: Path, file: BinaryIO, beginning: FileRecord) -> _Outcome:
    read = RollingRecord()
    read.add_from(file, beginning.bytes)
    if read.record != beginning:
        return _Outcome(
            read.record.bytes,
            f"'{path}' is damaged: of its first {beginning.bytes} bytes, which the checkpoint "
            "recorded, some are gone or changed; restore it from a copy",
        )
    num_bytes = beginning.bytes
    while line := file.readline(_LONGEST_ROW_BYTES):
        is_torn = not line.endswith(b"\n") and len(line) < _LONGEST_ROW_BYTES
        if is_torn:
            note = f"'{path}' ends within a row: being written, or left by a crash"
            return _Outcome(num_bytes + len(line), note=note)
        if not _is_row(line):
            return _Outcome(
                num_bytes, f"'{path}' is damaged: no JSON object follows byte {num_bytes}"
            )
        num_bytes += len(line)
    return _Outcome(num_bytes)


def _is_row(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
