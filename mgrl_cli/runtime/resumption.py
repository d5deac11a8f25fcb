"""Continuing a run from its newest checkpoint, exactly, or saying why it cannot be exact."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import final

from mgrl_cli.config import RunConfig
from mgrl_cli.errors import FileError, MgrlError
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.replay.log import sweep_replay
from mgrl_cli.run_dir.atomic import remove_unfinished
from mgrl_cli.run_dir.build import this_build
from mgrl_cli.run_dir.checkpoints import Checkpoint, CheckpointStore
from mgrl_cli.run_dir.intrusions import refuse_code, refuse_links
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.lock import locked
from mgrl_cli.run_dir.manifest import OBJECTIVE_NAME
from mgrl_cli.run_dir.settings import read_settings, settings_sha256
from mgrl_cli.run_dir.validations import early_end
from mgrl_cli.runtime.coordinator import Coordinator, Progress
from mgrl_cli.runtime.launch import meta_test_plan, meta_train_plan
from mgrl_cli.runtime.plan import RunPlan
from mgrl_cli.runtime.validation import Validator


@final
@dataclass(frozen=True, slots=True)
class Standing:
    """How far a run has come."""

    config: RunConfig
    checkpoint: Checkpoint | None
    """The newest whole one; None: the run was stopped before its first."""
    problems: tuple[str, ...]
    """Newer checkpoints that are damaged, and are passed over."""

    @property
    def rounds(self) -> int:
        """Rounds that are finished and saved."""
        return self.checkpoint.manifest.rounds if self.checkpoint is not None else 0

    @property
    def is_finished(self) -> bool:
        """True where nothing is left to do."""
        checkpoint = self.checkpoint
        return checkpoint is not None and checkpoint.manifest.is_final(self.config)

    @property
    def early_end(self) -> str:
        """Why the run ended before its last round; "" where it did not."""
        return early_end(self.checkpoint.manifest, self.config) if self.checkpoint else ""


def standing_of(run: RunDirectory) -> Standing:
    """Return how far a run has come; reads only.

    Raises:
        FileError: settings or checkpoints are damaged, or do not belong together; or the run came
            with a program.
        UsageError: a setting is invalid.
        StorageError: the operating system refused.
    """
    refuse_code(run)
    config = read_settings(run)
    checkpoint, problems = CheckpointStore(run, keep=config.checkpoints.keep).newest()
    if checkpoint is None and _has_metrics(run):
        raise FileError(
            f"run '{run.path}' has metrics but no checkpoint, so it cannot be continued; "
            "restore its checkpoints/ from a copy"
        )
    if checkpoint is not None:
        _check_belongs(run, config, checkpoint)
    return Standing(config, checkpoint, tuple(problems))


def resume(
    run: RunDirectory,
    progress: Progress,
    *,
    workers: int | None,
    say: Callable[[str], None],
    validator: Validator | None = None,
) -> None:
    """Continue a run to its end; see `Coordinator.execute` for what it raises.

    Args:
        run: an existing run.
        progress: what shows it.
        workers: processes; None: as many as for a new run, 0: everything in this process.
        say: told in one line what is out of the ordinary.
        validator: makes the validations, where the run has any.

    Raises:
        RunLockedError: another process writes the run.
        FileError: the run holds nothing whole to continue from.
    """
    with locked(run):
        refuse_links(run)
        standing = standing_of(run)  # again: it may have moved on before it was locked
        for problem in standing.problems:
            say(f"passed over a damaged checkpoint: {problem}")
        _sweep(run, standing)
        if standing.is_finished:
            return
        if standing.checkpoint is None:
            say("the run was stopped before its first checkpoint; it starts at its beginning")
        else:
            _say_differences(standing.checkpoint, say)
            say(f"continues from {standing.checkpoint.path.name}")
        plan = _plan(run, standing, workers, validator)
        Coordinator(plan, progress, standing.checkpoint).execute()


def tidy(run: RunDirectory, standing: Standing) -> None:
    """Remove what a crash left in a finished run, where that can be done.

    Nothing more is to come of the run, so it is no error if another process is at work on it, if it
    is not what it should be or if it cannot be written.
    """
    with suppress(MgrlError), locked(run):
        refuse_links(run)
        _sweep(run, standing)


def _sweep(run: RunDirectory, standing: Standing) -> None:
    """Remove what a crash left; the run must be locked and without links."""
    CheckpointStore(run, keep=standing.config.checkpoints.keep).sweep()
    for directory in (run.path, run.objectives, *run.validation.glob("round-*")):
        remove_unfinished(directory)
    sweep_replay(run.buffer)


def _plan(
    run: RunDirectory, standing: Standing, workers: int | None, validator: Validator | None
) -> RunPlan:
    if standing.config.kind == "meta-train":
        return meta_train_plan(standing.config, run, workers, validator)
    if not standing.config.needs_objective:
        return meta_test_plan(standing.config, run, None, workers)
    if standing.checkpoint is None and not run.objective.is_file():
        raise FileError(
            f"run '{run.path}' was stopped before it had its objective; start it again "
            "under another name"
        )
    of_checkpoint = standing.checkpoint and standing.checkpoint.path / OBJECTIVE_NAME
    objective = LearnedObjective.load(of_checkpoint or run.objective)
    return meta_test_plan(standing.config, run, objective, workers)


def _has_metrics(run: RunDirectory) -> bool:
    return any(path.stat().st_size for path in run.metrics.glob("*.jsonl"))


def _check_belongs(run: RunDirectory, config: RunConfig, checkpoint: Checkpoint) -> None:
    if checkpoint.manifest.settings_sha256 != settings_sha256(config):
        raise FileError(
            f"'{run.config}' is not what the run was started with: its settings do not match "
            f"{checkpoint.path.name}; restore it from a copy (only [checkpoints] and "
            "supervision.max_restarts and .hang_timeout_s may change)"
        )


def _say_differences(checkpoint: Checkpoint, say: Callable[[str], None]) -> None:
    differences = checkpoint.manifest.build.differences(this_build())
    if differences:
        say(
            "the continuation will not be bit-identical to an uninterrupted run: "
            + ", ".join(differences)
        )
