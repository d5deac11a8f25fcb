"""`mgrl meta-test`: train fresh agents with a frozen objective and report how well they learn."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgrl_cli.commands import DebugOption, JsonOption
from mgrl_cli.commands.run_options import (
    ConfigOption,
    DeviceOption,
    MaxRestartsOption,
    PresetOption,
    QuietOption,
    RunOption,
    RunsDirOption,
    SeedOption,
    SetOption,
    StepsOption,
    StuckBelowOption,
    WorkersOption,
    check_device,
    check_stuck_below,
    prepare_for_workers,
    progress_line,
    split_rules,
    supervision_options,
)

if TYPE_CHECKING:
    from mgrl_cli.config import RunConfig
    from mgrl_cli.objective_file import LearnedObjective
    from mgrl_cli.run_dir.layout import RunDirectory
    from mgrl_cli.run_dir.scores import ScoreReport


def meta_test(
    *,
    env: Annotated[
        str | None,
        typer.Option("--env", help="Test environment (names: mgrl envs), or one in --config."),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option("--objective", help="Objective file or run [the newest run in RUNS_DIR]."),
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Fresh agents per rule [3].")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="What to compare with on the same seeds: ddpg, td3, reinforce, vpg, ppo, "
            "untrained, ... (see mgrl baseline).",
        ),
    ] = None,
    steps: StepsOption = None,
    preset: PresetOption = "laptop",
    run: RunOption = None,
    runs_dir: RunsDirOption = Path("runs"),
    seed: SeedOption = None,
    workers: WorkersOption = None,
    max_restarts: MaxRestartsOption = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
    device: DeviceOption = "cpu",
    quiet: QuietOption = False,
    stuck_below: StuckBelowOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Test an objective on an environment, from scratch, beside other rules.

    Every rule trains the same agents with the same seeds and settings. Prints the final scores;
    curves (PNG, CSV), evaluations.csv, results.json and all metrics go to RUNS_DIR/NAME.
    Example: mgrl meta-test --env hopper --against ddpg,reinforce
    """
    prepare_for_workers(workers)
    from mgrl_cli.objective_file import LearnedObjective
    from mgrl_cli.presets import resolve_config
    from mgrl_cli.run_dir.objectives import find_objective
    from mgrl_cli.runtime.launch import check_objective_fits, settings_of_objective

    check_device(device)
    rules = None if against is None else split_rules(against, "--against")
    learned = LearnedObjective.load(find_objective(objective, runs_dir))
    settings = resolve_config(
        kind="meta-test",
        preset=preset,
        base={"seeds": 3, **settings_of_objective(learned)},
        config_file=config,
        assignments=assignments or (),
        options={
            "envs": [{"id": env}] if env is not None else None,
            "rules": list(dict.fromkeys(["learned", *rules])) if rules is not None else None,
            "seeds": seeds,
            "steps": steps,
            "seed": seed,
            **supervision_options(max_restarts),
        },
    )
    check_objective_fits(settings, learned)
    run_test(
        settings,
        learned,
        name=run,
        runs_dir=runs_dir,
        workers=workers,
        quiet=quiet,
        json=json,
        stuck_below=stuck_below,
    )


def run_test(
    settings: "RunConfig",
    learned: "LearnedObjective | None",
    *,
    name: str | None,
    runs_dir: Path,
    workers: int | None,
    quiet: bool,
    json: bool,
    stuck_below: float | None,
) -> None:
    """Check, claim, run and report a meta-test, or a run of baselines.

    Args:
        settings: of the run.
        learned: what drives the rule "learned"; None where no rule is it.
        name: of the run; None: made up.
        runs_dir: where runs are kept.
        workers: processes; None: one per core.
        quiet: show no progress.
        json: print the scores as JSON.
        stuck_below: count the runs that end below this score; None: do not.
    """
    from rich.console import Console

    from mgrl_cli.run_dir.layout import check_run_name
    from mgrl_cli.runtime.kernel_cache import prepare_kernels
    from mgrl_cli.runtime.launch import (
        check_environments,
        check_rules,
        claim_run,
        meta_test,
    )
    from mgrl_cli.ui.progress import open_progress

    check_stuck_below(stuck_below)
    check_run_name(runs_dir, name)
    check_rules(settings)
    say = progress_line(quiet=quiet)
    check_environments(settings, say)
    prepare_kernels(settings, say, workers=workers)
    directory = claim_run(settings, runs_dir, name)
    with open_progress(quiet=quiet, json=False, console=Console(stderr=True)) as progress:
        meta_test(settings, directory, learned, progress, workers=workers)
    report_scores(directory, json=json, stuck_below=stuck_below)


def report_scores(
    directory: "RunDirectory", *, json: bool, stuck_below: float | None = None
) -> None:
    """Write and print the final scores of a finished meta-test, write its rows, draw its curves.

    Args:
        directory: of the run.
        json: print one JSON document instead of tables.
        stuck_below: count the runs that ended below this score; None: do not.
    """
    from json import dumps

    from mgrl_cli.run_dir.evaluations import evaluations_of, write_evaluations
    from mgrl_cli.run_dir.scores import score_report, scores_document, write_scores

    report = score_report(directory, stuck_below=stuck_below)
    write_scores(directory, report)
    write_evaluations(evaluations_of(directory), directory.evaluations)
    if json:
        typer.echo(dumps(scores_document(report), allow_nan=False))
    else:
        _print_scores(directory, report)
    _plot(directory, f"meta-test {directory.name}")


def _print_scores(directory: "RunDirectory", report: "ScoreReport") -> None:
    from mgrl_cli.ui.scores import score_lines
    from mgrl_cli.ui.tables import stdout_console

    if not report.seeds:
        typer.echo(f"no evaluation within these steps; metrics are in {directory.metrics}")
        return
    console = stdout_console()
    for line in score_lines(report, console.width):
        console.print(line)
    typer.echo(f"{directory.path}")


def _plot(directory: "RunDirectory", title: str) -> None:
    """Draw the learning curves where matplotlib is installed; say so where it is not."""
    from importlib.util import find_spec

    from mgrl_cli.run_dir.metrics import read_evaluations

    if find_spec("matplotlib") is None:
        typer.echo("no plot: pip install 'mgrl[plot]'", err=True)
        return
    from mgrl_cli.plots.curves import plot_learning_curves

    rows = read_evaluations(directory)
    if rows:
        plot_learning_curves(rows, directory.path / "curves.png", title=title)
