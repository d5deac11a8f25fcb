"""Writes a run's metrics: JSON lines that grow row by row and can be cut back to a checkpoint.

Knows nothing of what the rows mean; `metrics` reads them.
"""

import json
import math
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self, final

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.run_dir.atomic import explain_os_error
from mgrl_cli.run_dir.file_record import FileRecord, RollingRecord


@final
class MetricsFile:
    """One metrics file in progress, and its only writer.

    A row is there whole or not at all: what a failed or interrupted append left of one is cut off,
    at once if the system lets us, and before the next row in any case. No file stays open.
    """

    def __init__(self, path: Path, *, written: RollingRecord | None = None) -> None:
        """Begin a file; use `cut_back` to continue one.

        Args:
            path: where; nothing may be there yet, or an empty file.
            written: what the file holds already, None for a new file.

        Raises:
            FileError: a new file's path holds something.
            StorageError: the operating system refused.
        """
        self._path = path
        self._written = RollingRecord() if written is None else written
        if written is not None:
            return
        try:
            with path.open("ab") as file:
                size_bytes = file.tell()
        except OSError as error:
            raise StorageError(explain_os_error(error, f"create '{path}'")) from error
        if size_bytes:
            raise FileError(f"'{path}' holds {size_bytes} bytes, expected none; name another run")

    @classmethod
    def cut_back(cls, path: Path, record: FileRecord) -> Self:
        """Continue a file from where `record` was taken, and cut off what was written since.

        Raises:
            FileError: the file does not begin with what was recorded; it is left as it is.
            StorageError: the operating system refused.
        """
        written = RollingRecord()
        changed = FileError(
            f"'{path}' is not what the checkpoint recorded: of its first {record.bytes} bytes some "
            "are gone or changed; restore it from a copy"
        )
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size < record.bytes:
                raise changed
            with path.open("r+b") as file:
                written.add_from(file, record.bytes)
                if written.record != record:
                    raise changed
                file.truncate(record.bytes)
        except FileNotFoundError as error:
            raise changed from error
        except OSError as error:
            raise StorageError(explain_os_error(error, f"cut back '{path}'")) from error
        return cls(path, written=written)

    @property
    def record(self) -> FileRecord:
        """Size and digest of all rows appended."""
        return self._written.record

    def append(self, row: Mapping[str, object]) -> None:
        """Append one line; figures that are not finite become null, as JSON has no word for them.

        Raises:
            FileError: somebody else cut the file.
            StorageError: the operating system refused; the row is not in the file.
        """
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        line = (json.dumps(clean, allow_nan=False) + "\n").encode()
        end = self._written.record.bytes
        try:
            with self._path.open("r+b") as file:
                if file.seek(0, os.SEEK_END) < end:
                    raise FileError(
                        f"'{self._path}' became shorter than the {end} bytes written; resume the "
                        "run from a checkpoint"
                    )
                file.truncate(end)
                file.seek(end)
                file.write(line)
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._path, end)
            raise StorageError(explain_os_error(error, f"append to '{self._path}'")) from error
        self._written.add(line)

    def sync(self) -> None:
        """Wait until all rows and the file's name are on the disk.

        Raises:
            StorageError: the operating system refused.
        """
        try:
            for path in (self._path, self._path.parent):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except OSError as error:
            raise StorageError(explain_os_error(error, f"write '{self._path}'")) from error
