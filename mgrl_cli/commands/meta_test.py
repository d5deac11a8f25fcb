"""`mgrl meta-test`: train fresh agents with a frozen objective and report how well they learn."""

from collections.abc import Sequence
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
    WorkersOption,
    check_device,
    progress_line,
    split_list,
    supervision_options,
)
from mgrl_cli.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from rich.table import Table

    from mgrl_cli.run_dir.layout import RunDirectory
    from mgrl_cli.run_dir.scores import SeedScore


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
            "--against", help="What to compare with: ddpg, reinforce, untrained (same seeds)."
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
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Test an objective on an environment, from scratch, beside other rules.

    Every rule trains the same agents with the same seeds and settings. Prints the final scores;
    curves (PNG, CSV), results.json and all metrics go to RUNS_DIR/NAME.
    Example: mgrl meta-test --env hopper --against ddpg,reinforce
    """
    from rich.console import Console

    from mgrl_cli.objective_file import LearnedObjective
    from mgrl_cli.presets import resolve_config
    from mgrl_cli.run_dir.layout import check_run_name
    from mgrl_cli.run_dir.objectives import find_objective
    from mgrl_cli.runtime.launch import (
        check_environments,
        check_objective_fits,
        claim_run,
        prepare_kernels,
        settings_of_objective,
    )
    from mgrl_cli.runtime.launch import meta_test as launch
    from mgrl_cli.ui.progress import open_progress

    check_device(device)
    rules = _rules(against)
    learned = LearnedObjective.load(find_objective(objective, runs_dir))
    settings = resolve_config(
        kind="meta-test",
        preset=preset,
        base={"seeds": 3, **settings_of_objective(learned)},
        config_file=config,
        assignments=assignments or (),
        options={
            "envs": [{"id": env}] if env is not None else None,
            "rules": rules,
            "seeds": seeds,
            "steps": steps,
            "seed": seed,
            **supervision_options(max_restarts),
        },
    )
    check_objective_fits(settings, learned)
    check_run_name(runs_dir, run)
    say = progress_line(quiet=quiet)
    check_environments(settings, say)
    prepare_kernels(settings, say)
    directory = claim_run(settings, runs_dir, run)
    with open_progress(quiet=quiet, json=False, console=Console(stderr=True)) as progress:
        launch(settings, directory, learned, progress, workers=workers)
    report_scores(directory, json=json)


def report_scores(directory: "RunDirectory", *, json: bool) -> None:
    """Write and print the final scores of a finished meta-test, and draw its curves.

    Args:
        directory: of the run.
        json: print one JSON document instead of a table.
    """
    from json import dumps

    from mgrl_cli.run_dir.metrics import evaluation_rows, read_agent_metrics
    from mgrl_cli.run_dir.scores import scores_document, seed_scores, write_scores

    scores = seed_scores(evaluation_rows(read_agent_metrics(directory.metrics)))
    write_scores(directory, scores)
    if json:
        typer.echo(dumps(scores_document(directory, scores)))
    else:
        _print_table(directory, scores)
    _plot(directory, f"meta-test {directory.name}")


def _rules(against: str | None) -> list[str] | None:
    """Return the learned objective and what it is compared with; None leaves it to --config."""
    from mgrl_cli.config import RULES

    if against is None:
        return None
    rules = ["learned", *split_list(against, "--against")]
    for rule in rules:
        if rule not in RULES:
            raise UsageError(
                f"--against got '{rule}', expected some of {', '.join(RULES)}."
                f"{did_you_mean(rule, RULES)}"
            )
    return list(dict.fromkeys(rules))


def _print_table(directory: "RunDirectory", scores: "Sequence[SeedScore]") -> None:
    from rich.console import Console

    console = Console()
    if not scores:
        typer.echo(f"no evaluation within these steps; metrics are in {directory.metrics}")
        return
    console.print(_table(scores))
    typer.echo(f"{directory.path}")


def _table(scores: "Sequence[SeedScore]") -> "Table":
    """Return one row per rule, one column per seed."""
    from rich.table import Table

    from mgrl_cli.run_dir.scores import rule_scores

    seeds = sorted({score.seed for score in scores})
    table = Table(
        title="final score: mean noise-free return of the last 3 evaluations", title_justify="left"
    )
    table.add_column("rule", style="bold")
    for seed in seeds:
        table.add_column(f"seed {seed}", justify="right")
    table.add_column("mean ± std", justify="right")
    for rule in rule_scores(scores):
        by_seed = {score.seed: score.score for score in scores if score.rule == rule.rule}
        spread = f" ± {rule.std:.1f}" if rule.seeds > 1 else ""
        cells = (f"{by_seed[seed]:.1f}" if seed in by_seed else "–" for seed in seeds)
        table.add_row(rule.rule, *cells, f"{rule.mean:.1f}{spread}")
    return table


def _plot(directory: "RunDirectory", title: str) -> None:
    """Draw the learning curves where matplotlib is installed; say so where it is not."""
    from importlib.util import find_spec

    from mgrl_cli.run_dir.metrics import evaluation_rows, read_agent_metrics

    if find_spec("matplotlib") is None:
        typer.echo("no plot: pip install 'mgrl[plot]'", err=True)
        return
    from mgrl_cli.plots.curves import plot_learning_curves

    rows = evaluation_rows(read_agent_metrics(directory.metrics))
    if rows:
        plot_learning_curves(rows, directory.path / "curves.png", title=title)
