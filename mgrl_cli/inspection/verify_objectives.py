"""Proving a run's objectives: the present one and those kept along the way."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from mgrl_cli.config import RunConfig
from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.inspection.findings import Part
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.run_dir.file_record import record_of_file
from mgrl_cli.run_dir.layout import HISTORY_ROUNDS, RunDirectory
from mgrl_cli.run_dir.manifest import OBJECTIVE_NAME, Manifest

_MOST_PROBLEMS = 100
"""Files missed by name; a manifest may claim any number of rounds."""


def verify_objectives(run: RunDirectory, newest: Manifest | None, config: RunConfig | None) -> Part:
    """Load every objective file of a run, and miss those that must be there.

    Args:
        run: whose.
        newest: manifest of the newest checkpoint; None: there is none.
        config: the run's settings; None: they cannot be read.
    """
    missing = islice(
        (path for path in _due(run, newest, config) if not os.path.lexists(path)), _MOST_PROBLEMS
    )
    problems = [f"'{path}' is missing; restore it from a copy" for path in missing]
    num_files = num_bytes = 0
    for path in (run.objective, *sorted(run.objectives.glob("*.safetensors"))):
        if not os.path.lexists(path):  # a resume drops those of rounds that it plays again
            continue
        try:
            LearnedObjective.load(path)
            num_files, num_bytes = num_files + 1, num_bytes + path.stat().st_size
        except (FileError, StorageError, FileNotFoundError) as error:
            if os.path.lexists(path):
                problems.append(str(error))
    if not problems and newest is not None and _is_settled(newest, config):
        problems += _difference(run, newest)
    return Part(
        name="objectives",
        counts={"file": num_files},
        num_bytes=num_bytes,
        problems=tuple(problems),
    )


def _due(run: RunDirectory, newest: Manifest | None, config: RunConfig | None) -> Iterator[Path]:
    """Yield the files that a run has once it has made its newest checkpoint."""
    if newest is None:
        return
    if OBJECTIVE_NAME in newest.files and (newest.kind == "meta-test" or newest.rounds > 0):
        yield run.objective
    if newest.kind == "meta-train":
        for rounds in range(HISTORY_ROUNDS, newest.rounds + 1, HISTORY_ROUNDS):
            yield run.objective_at(rounds)
        if config is not None and 0 < newest.rounds == config.num_rounds:
            yield run.objective_at(newest.rounds)


def _is_settled(newest: Manifest, config: RunConfig | None) -> bool:
    """Return whether the run's objective cannot be newer than the newest checkpoint's."""
    is_finished = config is not None and newest.is_final(config)
    return newest.kind == "meta-test" or is_finished


def _difference(run: RunDirectory, newest: Manifest) -> Iterator[str]:
    expected = newest.files.get(OBJECTIVE_NAME)
    try:
        if expected is not None and record_of_file(run.objective) != expected:
            yield f"'{run.objective}' is not the objective of {newest.name}; restore it from there"
    except (FileError, StorageError) as error:
        yield str(error)
