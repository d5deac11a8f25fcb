"""Refusing what came with a run from elsewhere: programs and links that lead out of it.

Looks at names and kinds of files only; knows nothing of what they hold.
"""

import os
from importlib import machinery
from pathlib import Path

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.run_dir.atomic import explain_os_error
from mgrl_cli.run_dir.layout import RunDirectory


def refuse_code(run: RunDirectory) -> None:
    """Check that nothing inside the run directory could be imported by Python.

    A run's settings may name `module:Name-v0`. The module is to be the user's own, never one that
    came with a stranger's run.

    Raises:
        FileError: a file is named like a module.
    """
    suffixes = tuple(machinery.all_suffixes())
    for _, _, names in os.walk(run.path):
        for name in names:
            if name.endswith(suffixes):
                raise FileError(
                    f"run '{run.path}' holds the program '{name}', expected none; "
                    "remove it, or move it out of the run if it is yours"
                )


def refuse_links(run: RunDirectory) -> None:
    """Check that nothing inside the run directory is a symbolic link.

    A run from elsewhere could otherwise lead what is written on resume to any file of the user's.
    The directory itself may be reached through links: those the user made.

    Raises:
        FileError: something is a link.
        StorageError: the operating system refused to list a directory.
    """
    pending = [run.path]
    try:
        while pending:
            with os.scandir(pending.pop()) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.is_symlink():
                        raise FileError(
                            f"'{entry.path}' is a symbolic link, expected none inside a run; "
                            "put a copy of what it points to in its place"
                        )
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
    except OSError as error:
        raise StorageError(explain_os_error(error, f"look through run '{run.path}'")) from error
