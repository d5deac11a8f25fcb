"""One run of a study: the command that makes it, and how far it is by what is on disk.

A job is an ordinary run, begun and continued by the command line that anybody could type. Must not
know what a run computes, nor how jobs are executed.
"""

import json
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mgrl_cli.errors import FileError, MgrlError, StorageError
from mgrl_cli.run_dir.atomic import explain_os_error
from mgrl_cli.run_dir.checkpoints import checkpoint_paths, newest_manifest
from mgrl_cli.run_dir.layout import RunDirectory, is_run_directory
from mgrl_cli.run_dir.lock import lock_holder
from mgrl_cli.run_dir.settings import read_settings

_LAST_LINE_BYTES = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One run of a study."""

    name: str
    """Unique in the study, usable as the name of a file: its log is NAME.log."""
    run: Path
    """Run directory; its parent need not exist yet."""
    arguments: tuple[str, ...]
    """The command that begins it: "meta-train", "meta-test" or "baseline" with all its options but
    --run, --runs-dir, --workers and --quiet."""
    agents: int
    """How many the run has: it can use as many workers."""
    agent_steps: int
    """Env steps of all its agents together: the measure of its work."""
    num_rounds: int
    needs: tuple[str, ...] = ()
    """Names of jobs that must have finished before."""


def command_of(job: Job, workers: int) -> list[str]:
    """Return the command line that begins the job's run, or continues what is there of it."""
    how = ["--workers", str(workers), "--quiet"]
    start = [sys.executable, "-m", "mgrl_cli"]
    if is_run_directory(job.run):
        return [*start, "resume", str(job.run), *how]
    where = ["--run", job.run.name, "--runs-dir", str(job.run.parent)]
    return [*start, *job.arguments, *where, *how]


def is_finished(job: Job) -> bool:
    """Return whether the job's run has been saved after its last round.

    Raises:
        StorageError: the operating system refused to tell.
    """
    run = RunDirectory(job.run)
    if not is_run_directory(job.run):
        return False
    newest = newest_manifest(run)
    try:
        return newest is not None and newest.is_final(read_settings(run))
    except MgrlError:  # `mgrl resume` will say what is wrong with it
        return False


def forget_unsaved(job: Job) -> None:
    """Remove a run that was killed before it had saved anything: it would begin anew anyway.

    It may not even have its objective yet, and then it could not be resumed. Left alone where
    somebody is at work on it, or where metrics tell of checkpoints that are gone.

    Raises:
        StorageError: the operating system refused.
    """
    run = RunDirectory(job.run)
    if not is_run_directory(job.run) or checkpoint_paths(run):
        return
    with suppress(FileError):  # what is wrong with the lock, `mgrl resume` will say
        if lock_holder(run) is None:
            _remove_without_metrics(run)


def _remove_without_metrics(run: RunDirectory) -> None:
    try:
        if not any(path.stat().st_size for path in run.metrics.glob("*.jsonl")):
            shutil.rmtree(run.path)
    except OSError as error:
        raise StorageError(explain_os_error(error, f"remove '{run.path}'")) from error


def has_settings(job: Job) -> bool:
    """Return whether the run has come past all that precedes it, such as compiling kernels."""
    return RunDirectory(job.run).config.is_file()


def fraction_of(job: Job) -> float:
    """Return how much of the run is made by its metrics, in [0, 1]; 0 where that is not known."""
    with suppress(FileError, OSError):
        rounds = _last_round(RunDirectory(job.run).population_metrics)
        return min(1.0, rounds / max(1, job.num_rounds))
    return 0.0


def _last_round(path: Path) -> int:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LAST_LINE_BYTES))
        lines = file.read().split(b"\n")
    if len(lines) < 2:
        return 0
    try:
        last: object = json.loads(lines[-2])  # after the last newline a line may be in the making
    except ValueError as error:
        raise FileError(f"'{path}' is damaged") from error
    match last:
        case {"round": int() as finished}:
            return finished
        case _:
            raise FileError(f"'{path}' is damaged")
