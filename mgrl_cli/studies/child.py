"""A job's process: tied to the study's, out of the terminal's reach, its output in a log.

Knows processes and signals; knows nothing of runs.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import final

from mgrl_cli.errors import StorageError
from mgrl_cli.lifeline import die_with
from mgrl_cli.run_dir.atomic import explain_os_error

_LOG_END_BYTES = 65_536


@final
class Child:
    """One command that runs until it ends by itself or is told to.

    On Linux it dies with the thread that made it, even if that is killed. It leads a process group
    of its own, so that Ctrl-C reaches it once, through the study, and not twice: the second signal
    tells a run to drop what it is doing.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        """Start the command.

        Args:
            command: program and arguments.
            log: what the command prints is appended to it.

        Raises:
            StorageError: the log cannot be written, or the operating system starts no process.
        """
        self.log = log
        parent_pid = os.getpid()
        try:
            with log.open("ab") as file:
                self._log_start = file.tell()
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    process_group=0,
                    preexec_fn=lambda: die_with(parent_pid),
                )
        except OSError as error:
            raise StorageError(explain_os_error(error, f"start a run, log '{log}'")) from error

    def poll(self) -> int | None:
        """Return the exit code as a shell gives it, None while the command runs."""
        code = self._process.poll()
        return code if code is None or code >= 0 else 128 - code

    def send(self, signal_number: int) -> None:
        """Send a signal, if the command still runs."""
        self._process.send_signal(signal_number)

    def kill(self) -> None:
        """End the command at once and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def last_words(self) -> str:
        """Return the last line of what the command printed, "" if it printed nothing."""
        try:
            with self.log.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_start, end - _LOG_END_BYTES))
                lines = file.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
