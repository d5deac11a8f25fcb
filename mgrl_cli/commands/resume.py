"""`mgrl resume`: continue a run where its newest checkpoint stands."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgrl_cli.commands import DebugOption
from mgrl_cli.commands.run_options import (
    QuietOption,
    RunsDirOption,
    StuckBelowOption,
    WorkersOption,
    check_stuck_below,
    prepare_for_workers,
    progress_line,
)

if TYPE_CHECKING:
    from mgrl_cli.run_dir.layout import RunDirectory


def resume(
    run: Annotated[str, typer.Argument(help="Name or path of the run.")],
    *,
    runs_dir: RunsDirOption = Path("runs"),
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    stuck_below: StuckBelowOption = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="On stdout: one JSON line per round, or the scores of a test."),
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Continue a meta-training or meta-test that was stopped, in its own directory.

    What comes out is bit for bit what the run would have given without the stop. Settings are those
    of the run. Example: mgrl resume runs/first
    """
    prepare_for_workers(workers)
    from mgrl_cli.run_dir.layout import find_run

    check_stuck_below(stuck_below)
    directory = find_run(run, runs_dir)
    resume_run(directory, workers=workers, quiet=quiet, json=json, stuck_below=stuck_below)


def resume_run(
    directory: "RunDirectory",
    *,
    workers: int | None,
    quiet: bool,
    json: bool,
    stuck_below: float | None = None,
) -> None:
    """Continue a run and report its results as the command that began it would have."""
    from rich.console import Console

    from mgrl_cli.commands.meta_test import report_scores
    from mgrl_cli.runtime.kernel_cache import prepare_kernels
    from mgrl_cli.runtime.launch import check_environments, check_rules
    from mgrl_cli.runtime.resumption import resume as launch
    from mgrl_cli.runtime.resumption import standing_of, tidy
    from mgrl_cli.studies.validation import validate
    from mgrl_cli.ui.progress import open_progress

    say = progress_line(quiet=quiet)
    standing = standing_of(directory)
    settings = standing.config
    is_test = settings.kind == "meta-test"
    if standing.is_finished:
        tidy(directory, standing)
        how = standing.early_end or "nothing is left to do"
        say(f"run '{directory.path}' is finished: {how}")
    else:
        check_rules(settings)
        check_environments(settings, say)
        prepare_kernels(settings, say, workers=workers)
        with open_progress(
            quiet=quiet,
            json=json and not is_test,
            console=Console(stderr=True),
            rounds_before=standing.rounds,
        ) as progress:
            validator = partial(validate, workers=workers)
            launch(directory, progress, workers=workers, say=say, validator=validator)
    if is_test:
        report_scores(directory, json=json, stuck_below=stuck_below)
    elif not json:
        typer.echo(f"{directory.objective}")
