"""Proving what a run's validations left: the best objective, and every test as a run of its own.

Tests may be removed once the training is over: their scores are in the run's metrics.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mgrl_cli.config import RunConfig
from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.inspection.findings import Part
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.run_dir.file_record import record_of_file
from mgrl_cli.run_dir.layout import RunDirectory, is_run_directory
from mgrl_cli.run_dir.manifest import OBJECTIVE_NAME, Manifest


def verify_validations(
    run: RunDirectory,
    newest: Manifest | None,
    config: RunConfig | None,
    verify: Callable[[Path], Iterator[Part]],
) -> Part | None:
    """Read all that the validations left; return None where there are none.

    Args:
        run: whose.
        newest: manifest of the newest checkpoint; None: there is none.
        config: the run's settings; None: they cannot be read.
        verify: yields the parts of a run.
    """
    record = newest.validation if newest is not None else None
    if record is None and not run.validation.exists() and not run.best_objective.exists():
        return None
    problems: list[str] = []
    num_files = num_bytes = num_tests = 0
    directories = sorted(run.validation.glob("round-*"))
    for path in (run.best_objective, *(directory / OBJECTIVE_NAME for directory in directories)):
        problem, size = _verify_objective(path)
        num_files, num_bytes = num_files + bool(size), num_bytes + size
        problems += [problem] if problem else []
    problems += _best_problems(run, newest, config)
    for test in (test for directory in directories for test in sorted(directory.iterdir())):
        if is_run_directory(test):
            parts = list(verify(test))
            num_tests, num_bytes = num_tests + 1, num_bytes + sum(part.num_bytes for part in parts)
            problems += [problem for part in parts for problem in part.problems]
    return Part(
        name="validations",
        counts={"file": num_files, "test": num_tests},
        num_bytes=num_bytes,
        problems=tuple(problems),
    )


def _verify_objective(path: Path) -> tuple[str, int]:
    """Return what is wrong with an objective ("": nothing, or it is not there), and its size."""
    if not os.path.lexists(path):
        return "", 0
    try:
        LearnedObjective.load(path)
        return "", path.stat().st_size
    except (FileError, StorageError, FileNotFoundError) as error:
        return (str(error) if os.path.lexists(path) else ""), 0


def _best_problems(
    run: RunDirectory, newest: Manifest | None, config: RunConfig | None
) -> Iterator[str]:
    """Yield what is wrong with the best objective, once nothing more can replace it."""
    record = newest.validation if newest is not None else None
    if newest is None or record is None or record.objective is None:
        return
    if not os.path.lexists(run.best_objective):
        yield f"'{run.best_objective}' is missing; restore it from a copy"
    elif config is not None and newest.is_final(config):
        try:
            is_recorded = record_of_file(run.best_objective) == record.objective
        except (FileError, StorageError) as error:
            yield str(error)
            return
        if not is_recorded:
            yield (
                f"'{run.best_objective}' is not the best objective that {newest.name} recorded; "
                f"restore it from '{run.validation_at(record.best)}'"
            )
