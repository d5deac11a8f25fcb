"""Finding the objective a user means: a file, a run, or the newest run."""

from pathlib import Path

from mgrl_cli.errors import FileError, MgrlError
from mgrl_cli.run_dir.atomic import explain_os_error
from mgrl_cli.run_dir.layout import RunDirectory, find_run, is_run_directory
from mgrl_cli.run_dir.settings import read_settings


def find_objective(wanted: str | None, runs_dir: Path) -> Path:
    """Return the path of an objective file.

    Args:
        wanted: path of a file, path or name of a run, or None for the newest meta-training run.
        runs_dir: where runs are kept.

    Raises:
        FileError: there is no such file or run, or no run at all.
    """
    if wanted is None:
        return _newest_objective(runs_dir)
    path = Path(wanted)
    try:
        if path.is_file() or path.suffix == ".safetensors":
            return path
        run = find_run(wanted, runs_dir)
    except OSError as error:  # such as a name longer than any file's
        raise FileError(explain_os_error(error, f"look for objective '{wanted:.80}'")) from error
    if not run.objective.is_file():
        raise FileError(f"run '{run.path}' holds no objective.safetensors; name another run")
    return run.objective


def _newest_objective(runs_dir: Path) -> Path:
    runs = [RunDirectory(path) for path in runs_dir.glob("*") if is_run_directory(path)]
    objectives = [run.objective for run in runs if _is_meta_training(run)]
    if not objectives:
        raise FileError(
            f"no objective: no meta-training run in '{runs_dir}'; "
            "make one with mgrl meta-train, or name one with --objective"
        )
    return max(objectives, key=lambda path: path.stat().st_mtime)


def _is_meta_training(run: RunDirectory) -> bool:
    """Return whether a run is a readable meta-training with an objective."""
    if not run.objective.is_file():
        return False
    try:
        return read_settings(run).kind == "meta-train"
    except MgrlError:  # somebody else's directory must not stand in the way
        return False
