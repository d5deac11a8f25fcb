"""TensorBoard event files, where the `tensorboard` extra is installed; nothing otherwise.

Written here and now: the writer that comes with torch leaves it to a thread, and what goes wrong
there ends up as a traceback on the user's terminal.
"""

import importlib.util
import math
import os
import socket
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, final

from mgrl_cli.errors import StorageError
from mgrl_cli.run_dir.atomic import create_directory, explain_os_error

_FORMAT = "tensorboard.compat.proto"
"""Made by a generator that type checkers cannot follow, hence imported by name."""


@final
class TensorBoardLog:
    """Scalars over the env steps of one agent, one tag per figure and agent."""

    def __init__(self, directory: Path, *, purge_from: int) -> None:
        """Remember where to write; opened at the first row, since the import takes seconds.

        Args:
            directory: of the event files.
            purge_from: step from which on what earlier files hold is void, since a run continues
                from a checkpoint.
        """
        self._directory = directory
        self._purge_from = purge_from
        self._file: BinaryIO | None = None
        self._is_available = importlib.util.find_spec("tensorboard") is not None

    def add(self, tag: str, row: Mapping[str, object], step: int) -> None:
        """Write every finite float of a metrics row as `tag/name`; no counters.

        Args:
            tag: whose figures.
            row: the figures.
            step: env steps that each agent was to have made.

        Raises:
            StorageError: the operating system refused, now or since the last row.
        """
        if not self._is_available:
            return
        with self._storage_errors():
            if self._file is None:
                self._file = self._open()
            for name, value in row.items():
                if isinstance(value, float) and math.isfinite(value):
                    _write_event(self._file, step, summary=_scalar(f"{tag}/{name}", value))
            self._file.flush()

    def close(self) -> None:
        """Flush and close.

        Raises:
            StorageError: the operating system refused.
        """
        with self._storage_errors():
            if self._file is not None:
                self._file.close()

    def _open(self) -> BinaryIO:
        """Begin an event file, saying from which step on earlier ones are void."""
        create_directory(self._directory)
        # Files are read in the order of their names.
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}"
        file = (self._directory / name).open("ab")
        _write_event(file, self._purge_from, file_version="brain.Event:2")
        _write_event(file, self._purge_from, session_log=_start())
        return file

    @contextmanager
    def _storage_errors(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(explain_os_error(error, f"write '{self._directory}'")) from error


def _write_event(file: BinaryIO, step: int, **content: object) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    event = import_module(f"{_FORMAT}.event_pb2").Event(wall_time=time.time(), step=step, **content)
    RecordWriter(file).write(event.SerializeToString())


def _scalar(tag: str, value: float) -> object:
    summary = import_module(f"{_FORMAT}.summary_pb2").Summary
    return summary(value=[summary.Value(tag=tag, simple_value=value)])


def _start() -> object:
    session_log = import_module(f"{_FORMAT}.event_pb2").SessionLog
    return session_log(status=session_log.START)
