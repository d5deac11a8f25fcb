"""`mgrl plot`: figures of finished and running runs, several meta-tests in one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mgrl_cli.commands import DebugOption
from mgrl_cli.commands.run_options import RunsDirOption, split_list
from mgrl_cli.errors import UsageError

if TYPE_CHECKING:
    from mgrl_cli.run_dir.layout import RunDirectory
    from mgrl_cli.run_dir.metrics import EvaluationRow

Metric = Literal["evaluation", "training"]


def plot(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Names or paths of runs of one kind.")
    ],
    *,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            "--out",
            help="FILE.png or FILE.svg; repeatable [curves.png, training.png or population.png in "
            "RUN; compared.png in the first of several].",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            help="evaluation: without noise; training: every round, with noise [evaluation].",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="Names of the runs in the figure, separated by commas."),
    ] = None,
    runs_dir: RunsDirOption = Path("runs"),
    debug: DebugOption = False,
) -> None:
    """Draw learning curves of meta-tests and baselines over each other, or one meta-training.

    A line is a rule, and RUN:RULE where two runs have the same rule on the same environment. The
    data goes beside each figure as CSV. Works while a run goes on, too.
    Example: mgrl plot test-hopper-001 ppo-hopper-001 --out both.svg --out both.png
    """
    from mgrl_cli.plots.style import check_figure_path
    from mgrl_cli.run_dir.layout import find_run
    from mgrl_cli.run_dir.settings import read_settings

    chosen = _metric(metric or "evaluation")
    for path in out or ():
        check_figure_path(path)
    found = {run.path.resolve(): run for run in (find_run(name, runs_dir) for name in runs)}
    directories = list(found.values())
    kinds = {read_settings(run).kind for run in directories}
    if len(kinds) > 1:
        raise UsageError(
            "plot got meta-trainings and meta-tests, expected runs of one kind; plot them apart"
        )
    if kinds == {"meta-train"}:
        if metric is not None or labels is not None:
            raise UsageError(
                "--metric and --labels are for meta-tests and baselines, got a meta-training; "
                "leave them out"
            )
        _plot_training(directories, out)
    else:
        _plot_curves(_named(directories, labels), out, chosen, is_named=labels is not None)


def _plot_training(runs: "Sequence[RunDirectory]", out: Sequence[Path] | None) -> None:
    from mgrl_cli.plots.curves import plot_meta_training
    from mgrl_cli.run_dir.metrics import population_rows, read_agent_metrics

    if len(runs) > 1:
        raise UsageError(
            f"plot got {len(runs)} meta-trainings, expected one: their agents share no axes; "
            "plot them one by one"
        )
    rows = population_rows(read_agent_metrics(runs[0].metrics))
    for path in out or [runs[0].path / "population.png"]:
        _say(plot_meta_training(rows, path))


def _plot_curves(
    runs: "Mapping[str, RunDirectory]",
    out: Sequence[Path] | None,
    metric: Metric,
    *,
    is_named: bool,
) -> None:
    from mgrl_cli.plots.curves import plot_learning_curves
    from mgrl_cli.run_dir.metrics import read_agent_metrics, read_evaluations, round_rows

    rows_of = {
        name: read_evaluations(run)
        if metric == "evaluation"
        else round_rows(read_agent_metrics(run.metrics))
        for name, run in runs.items()
    }
    first = next(iter(runs.values()))
    if len(runs) == 1:
        title, stem = f"meta-test {first.name}", "curves" if metric == "evaluation" else "training"
    else:
        title = ", ".join(runs)
        stem = "compared" if metric == "evaluation" else "compared-training"
    rows = label_rows(rows_of, is_named=is_named)
    for path in out or [first.path / f"{stem}.png"]:
        _say(plot_learning_curves(rows, path, title=title, metric=metric))


def label_rows(
    rows_of: "Mapping[str, Sequence[EvaluationRow]]", *, is_named: bool
) -> "list[EvaluationRow]":
    """Return the rows of all runs with what their line is called in place of the rule.

    Args:
        rows_of: run's name in the figure → its rows.
        is_named: True where the user chose the names: then every line has one.
    """
    from dataclasses import replace

    runs_with: dict[tuple[str, str], set[str]] = {}
    for name, rows in rows_of.items():
        for row in rows:
            runs_with.setdefault((row.rule, row.environment), set()).add(name)
    ambiguous = {rule for (rule, _), names in runs_with.items() if len(names) > 1}
    labelled: list[EvaluationRow] = []
    for name, rows in rows_of.items():
        is_alone = len({row.rule for row in rows}) == 1
        for row in rows:
            if is_named and is_alone:
                labelled.append(replace(row, rule=name))
            elif is_named or row.rule in ambiguous:
                labelled.append(replace(row, rule=f"{name}:{row.rule}"))
            else:
                labelled.append(row)
    return labelled


def _metric(given: str) -> Metric:
    if given == "evaluation" or given == "training":
        return given
    raise UsageError(f"--metric got '{given}', expected evaluation or training")


def _named(runs: "Sequence[RunDirectory]", labels: str | None) -> "dict[str, RunDirectory]":
    """Return each run by its name in the figure."""
    names = [run.name for run in runs] if labels is None else split_list(labels, "--labels")
    if len(names) != len(runs):
        raise UsageError(f"--labels got {len(names)} names, expected {len(runs)}, one per run")
    if len(set(names)) < len(names):
        raise UsageError(f"two runs are called alike: {', '.join(names)}; name each with --labels")
    return dict(zip(names, runs, strict=True))


def _say(written: tuple[Path, Path]) -> None:
    for path in written:
        typer.echo(f"{path}")
