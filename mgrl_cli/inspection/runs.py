"""All runs of a directory at a glance, by their settings, locks and newest manifests alone."""

from dataclasses import dataclass
from pathlib import Path

from mgrl_cli.errors import FileError, StorageError, UsageError
from mgrl_cli.inspection.run_checkpoints import state_of
from mgrl_cli.run_dir.atomic import explain_os_error
from mgrl_cli.run_dir.checkpoints import newest_manifest
from mgrl_cli.run_dir.layout import RunDirectory, is_run_directory
from mgrl_cli.run_dir.lock import lock_holder
from mgrl_cli.run_dir.settings import read_settings
from mgrl_cli.run_dir.validations import early_end


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLine:
    """One run. What cannot be read is None."""

    name: str
    kind: str | None
    environments: tuple[str, ...]
    agents: int | None
    quarantined: int
    """Agents out of the population."""
    rounds: int | None
    """Finished and saved."""
    num_rounds: int | None
    state: str
    """As in `run_checkpoints.State`, or "damaged"."""
    elapsed_s: float | None
    """Wall time up to the newest checkpoint."""
    remark: str
    """Who writes it, why it ended early, or what is wrong with it."""


def list_runs(runs_dir: Path) -> list[RunLine]:
    """Return the runs in a directory, by name.

    Raises:
        FileError: there is no such directory.
        StorageError: the operating system refused to list it.
    """
    try:
        paths = sorted(path for path in runs_dir.iterdir() if is_run_directory(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileError(
            f"there is no directory '{runs_dir}'; start a run, or name another --runs-dir"
        ) from error
    except OSError as error:
        raise StorageError(explain_os_error(error, f"list '{runs_dir}'")) from error
    return [_line(RunDirectory(path)) for path in paths]


def _line(run: RunDirectory) -> RunLine:
    try:
        config = read_settings(run)
        holder = lock_holder(run)
        newest = newest_manifest(run)
    except (FileError, UsageError, StorageError) as error:
        return RunLine(
            name=run.name,
            kind=None,
            environments=(),
            agents=None,
            quarantined=0,
            rounds=None,
            num_rounds=None,
            state="damaged",
            elapsed_s=None,
            remark=str(error),
        )
    return RunLine(
        name=run.name,
        kind=config.kind,
        environments=tuple(env.id for env in config.envs),
        agents=config.agents,
        quarantined=len(newest.quarantined) if newest is not None else 0,
        rounds=newest.rounds if newest is not None else 0,
        num_rounds=config.num_rounds,
        state=state_of(newest, config, holder),
        elapsed_s=newest.elapsed_s if newest is not None else None,
        remark=holder or (early_end(newest, config) if newest is not None else ""),
    )
