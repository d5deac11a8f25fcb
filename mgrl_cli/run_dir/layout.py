"""Every path of a run directory, how a new one is claimed and an old one found."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

from mgrl_cli.errors import FileError, StorageError, UsageError, did_you_mean
from mgrl_cli.run_dir.atomic import create_directory, explain_os_error, sync_directory

HISTORY_ROUNDS = 10
"""Rounds between two objectives kept for testing along the way."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FILES_BEFORE_SETTINGS = re.compile(
    r"\.lock|\.lock-holder\.json|\.(config\.toml|\.lock-holder\.json)\.[0-9a-f]{32}\.partial"
)
"""What a run that is killed may leave before it has settings, besides empty directories."""


def agent_name(agent_id: int) -> str:
    """Return what an agent's files and groups are called."""
    return f"agent-{agent_id:03d}"


@final
@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths of one run."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name, its directory's."""
        return self.path.name

    @property
    def config(self) -> Path:
        """Everything resolved, plus versions and command line."""
        return self.path / "config.toml"

    @property
    def objective(self) -> Path:
        """The current objective."""
        return self.path / "objective.safetensors"

    @property
    def objectives(self) -> Path:
        """Directory of the objectives kept along the way."""
        return self.path / "objectives"

    def objective_at(self, round_index: int) -> Path:
        """Return the objective as it was at the end of a round."""
        return self.objectives / f"round-{round_index:06d}.safetensors"

    @property
    def best_objective(self) -> Path:
        """The best objective by the validations so far."""
        return self.path / "objective-best.safetensors"

    @property
    def validation(self) -> Path:
        """Directory of the tests made along the way, one directory per validation."""
        return self.path / "validation"

    def validation_at(self, round_index: int) -> Path:
        """Return the directory of the tests of the objective at the end of a round."""
        return self.validation / f"round-{round_index:06d}"

    @property
    def checkpoints(self) -> Path:
        """Directory of everything needed to continue, one directory per checkpoint."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """Directory of append-only JSON lines."""
        return self.path / "metrics"

    def agent_metrics(self, agent_id: int) -> Path:
        """Return the file of one agent's rounds."""
        return self.metrics / f"{agent_name(agent_id)}.jsonl"

    @property
    def population_metrics(self) -> Path:
        """File of the population's rounds."""
        return self.metrics / "population.jsonl"

    @property
    def validation_metrics(self) -> Path:
        """File of the validations."""
        return self.metrics / "validation.jsonl"

    @property
    def buffer(self) -> Path:
        """Replay of all agents."""
        return self.path / "buffer.zarr"

    def agent_buffer(self, agent_id: int) -> Path:
        """Return the replay log of one agent."""
        return self.buffer / agent_name(agent_id)

    @property
    def logs(self) -> Path:
        """Directory of one file per worker."""
        return self.path / "logs"

    @property
    def events(self) -> Path:
        """JSON lines of what happened to the run, beside the workers' logs."""
        return self.logs / "events.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Directory of TensorBoard event files."""
        return self.path / "tensorboard"

    @property
    def results(self) -> Path:
        """Table of a meta-test's final scores."""
        return self.path / "results.json"

    @property
    def evaluations(self) -> Path:
        """Every evaluation of a meta-test, one line each."""
        return self.path / "evaluations.csv"

    @property
    def lock(self) -> Path:
        """Empty file that whoever writes the run holds a lock on; it stays, held or not."""
        return self.path / ".lock"

    @property
    def lock_holder(self) -> Path:
        """Who holds the lock. Says nothing while the lock is free."""
        return self.path / ".lock-holder.json"


def check_run_name(runs_dir: Path, name: str | None) -> None:
    """Refuse a name that cannot be claimed, before anything is spent on the run.

    Raises:
        UsageError: the name is taken or cannot be a directory name, or the parent is not UTF-8.
        StorageError: the parent is a file.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise UsageError(
            f"run name '{name}' is not usable, expected 1-100 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit; choose another --run"
        )
    if not str(runs_dir).isprintable():
        raise UsageError(
            f"cannot keep runs in {str(runs_dir)!a}, expected a path of printable characters in "
            "UTF-8; choose another --runs-dir"
        )
    if runs_dir.exists() and not runs_dir.is_dir():
        raise StorageError(f"cannot create a run in '{runs_dir}': it is a file, not a directory")
    if name is not None and (runs_dir / name).exists():
        refuse_taken(runs_dir / name)


def refuse_taken(path: Path) -> None:
    """Check that nothing is at `path`, or nothing but what a run left that never had settings.

    Raises:
        UsageError: something is there.
    """
    if os.path.lexists(path) and not is_unstarted(path):
        raise _taken(path)


def is_unstarted(path: Path) -> bool:
    """Return whether a directory is empty but for what a run left that never had settings."""
    try:
        return not path.is_symlink() and all(map(_is_left_before_settings, path.iterdir()))
    except (OSError, ValueError):  # no directory, or none that can be judged
        return False


def _is_left_before_settings(path: Path) -> bool:
    if path.is_symlink():
        return False
    if path.is_dir():
        return path.name in ("metrics", "logs") and not any(path.iterdir())
    return path.is_file() and _FILES_BEFORE_SETTINGS.fullmatch(path.name) is not None


def create_run_directory(runs_dir: Path, name: str | None, stem: str) -> RunDirectory:
    """Claim a new run directory; an existing one is never overwritten.

    A directory of this name that is `is_unstarted` is claimed too. Another process may do so at the
    same time: call `refuse_taken` once the run is locked.

    Args:
        runs_dir: parent, created if need be.
        name: the run's name, or None for `stem` and the next free number.
        stem: beginning of a made-up name.

    Raises:
        UsageError: the name is taken or cannot be a directory name, or the parent is not UTF-8.
        StorageError: the directory cannot be created.
    """
    check_run_name(runs_dir, name)
    try:
        create_directory(runs_dir)
        if name is not None:
            return _claim(runs_dir / name, may_exist=True)
        clean_stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:80]
        number = 0
        while True:
            number += 1
            path = runs_dir / f"{clean_stem}-{number:03d}"
            if not path.exists():
                with suppress(UsageError):  # another process was faster
                    return _claim(path, may_exist=False)
    except OSError as error:
        raise StorageError(explain_os_error(error, f"create a run in '{runs_dir}'")) from error


def _claim(path: Path, *, may_exist: bool) -> RunDirectory:
    try:
        path.mkdir()
    except FileExistsError as error:
        if not (may_exist and is_unstarted(path)):
            raise _taken(path) from error
    run = RunDirectory(path)
    for directory in (run.metrics, run.logs):
        directory.mkdir(exist_ok=True)
    sync_directory(path)
    sync_directory(path.parent)
    return run


def _taken(path: Path) -> UsageError:
    return UsageError(f"run '{path}' exists and is never overwritten; choose another --run")


def is_run_directory(path: Path) -> bool:
    """Return whether `path` looks like a run of ours."""
    return (path / "config.toml").is_file() and (path / "metrics").is_dir()


def find_run(name_or_path: str, runs_dir: Path) -> RunDirectory:
    """Return an existing run by path or by name.

    Raises:
        FileError: there is no such run.
    """
    candidates = (Path(name_or_path), runs_dir / name_or_path)
    for candidate in candidates:
        if is_run_directory(candidate):
            return RunDirectory(candidate)
    for candidate in candidates:
        if is_unstarted(candidate):
            raise FileError(
                f"run '{candidate}' was stopped before it had settings, so there is nothing to "
                f"continue; start it again as before, with --run {candidate.name}"
            )
    known = [path.name for path in sorted(runs_dir.glob("*")) if is_run_directory(path)]
    raise FileError(
        f"no run '{name_or_path}' here or in '{runs_dir}'.{did_you_mean(name_or_path, known)}"
    )
