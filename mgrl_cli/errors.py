"""Every error a user can meet, each with its exit code.

A message is one line that says what is wrong, what was got, what was expected and what to do next.
Only `cli.py` turns these into text and exit codes; everything below raises them.
"""

import difflib
from collections.abc import Iterable


class MgrlError(Exception):
    """An error with a one-line message for the user. Exit code 1: internal."""

    exit_code = 1


class UsageError(MgrlError):
    """Wrong usage, invalid configuration, missing extra, unsupported spaces, run name taken."""

    exit_code = 2


class RunLockedError(MgrlError):
    """Another process writes this run."""

    exit_code = 3


class FileError(MgrlError):
    """A file is missing, corrupt or not ours."""

    exit_code = 4


class WorkerError(MgrlError):
    """An environment or a worker process failed."""

    exit_code = 5


class DivergedError(MgrlError):
    """Training produced no finite gradient any more."""

    exit_code = 6


class StorageError(MgrlError):
    """No space left, or the operating system refused to read or write."""

    exit_code = 7


class Interrupted(MgrlError):  # noqa: N818 - what the user did is no error
    """A signal ended what was going on; what was finished is kept. Carries its exit code."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known name nearest to `name`, or ""."""
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{nearest[0]}'?" if nearest else ""
