"""`mgrl matrix`: objectives from several trainings and hand-written rules, tested side by side."""

from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgrl_cli.commands import DebugOption, JsonOption
from mgrl_cli.commands.run_options import QuietOption, RunsDirOption, split_list
from mgrl_cli.commands.study import (
    JobsOption,
    check_plan,
    draw,
    execute,
    print_results,
    write_rows_and_tables,
)
from mgrl_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mgrl_cli.studies.directory import StudyDirectory
    from mgrl_cli.studies.matrix import Matrix
    from mgrl_cli.studies.plan import Plan
    from mgrl_cli.studies.rows import StudyRow
    from mgrl_cli.studies.table import CellScore


def matrix(
    *,
    train: Annotated[
        list[str] | None,
        typer.Option(
            "--train",
            help="A row: training environments such as lunar,cheetah (lunar:3,cheetah:1), or a "
            "finished run; repeatable.",
        ),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option("--test", help="A column: test environments, comma-separated; repeatable."),
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option(
            "--objectives", help="What drives fresh agents, e.g. learned,ddpg,reinforce [learned]."
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Fresh agents per cell and objective [3].")
    ] = None,
    meta_seeds: Annotated[
        int | None, typer.Option("--meta-seeds", help="Objectives per training set [1].")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="First meta-seed; tests draw from seeds of their own [0]."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="Settings to start from: smoke, laptop or paper [laptop]."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Env steps of each fresh agent.")
    ] = None,
    train_steps: Annotated[
        int | None, typer.Option("--train-steps", help="Env steps per agent of a training.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="One setting of all runs, e.g. critic.hidden=32; repeatable."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="TOML file with [[train]] and [[test]]; options win."),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="Name of the matrix; given again, it continues.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Continue this matrix, as it was begun.")
    ] = None,
    runs_dir: RunsDirOption = Path("runs"),
    jobs: JobsOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train objectives, test each on each environment beside other rules, and tabulate.

    Every cell is an ordinary run below RUNS_DIR/NAME; what is finished is never computed again.
    Rows, tables and figures go beside them. Example: mgrl matrix --run first --train lunar,cheetah
    --train pendulum,cartpole --test hopper,reacher --objectives learned,ddpg
    """
    from mgrl_cli.studies.directory import opened
    from mgrl_cli.studies.execution import raise_failures
    from mgrl_cli.studies.matrix import check_copies, import_runs
    from mgrl_cli.studies.plan import plan_matrix

    options = {
        "train": train,
        "test": test and [{"env": env} for text in test for env in split_list(text, "--test")],
        "objectives": None if objectives is None else split_list(objectives, "--objectives"),
        "seeds": seeds,
        "meta_seeds": meta_seeds,
        "seed": seed,
        "preset": preset,
        "steps": steps,
        "train_steps": train_steps,
        "set": assignments,
    }
    study, made_of = _study(options, config, run, resume, runs_dir)
    plan = plan_matrix(made_of, study)

    def check() -> None:
        check_copies(made_of, study)
        check_plan(plan)

    with opened(study, made_of.document, lambda: import_runs(made_of, study, runs_dir), check):
        statuses = execute(study, plan, workers=jobs, quiet=quiet)
        rows, cells = write_rows_and_tables(study, plan)
        if cells:
            _draw_figures(study, plan, rows, cells)
    print_results(study, cells, statuses, json=json)
    raise_failures(study, statuses)


def _study(
    options: dict[str, Any],
    config: Path | None,
    run: str | None,
    resume: str | None,
    runs_dir: Path,
) -> "tuple[StudyDirectory, Matrix]":
    """Return the matrix that is meant, new or begun, and where it is."""
    from mgrl_cli.studies.directory import find_study, named_study, read_specification
    from mgrl_cli.studies.matrix import completed, parse_matrix, read_matrix, training_of

    settings = {key: value for key, value in options.items() if value is not None}

    def read_begun(study: "StudyDirectory") -> "Matrix":
        return parse_matrix(read_specification(study), source=f"'{study.specification}'")

    if resume is not None:
        if settings or config is not None or run is not None:
            raise UsageError(
                "--resume was given beside settings, expected none: a matrix that has begun has "
                "its own; leave them out, or begin another with --run"
            )
        study = find_study(resume, runs_dir, "matrix")
        return study, read_begun(study)
    if run is None:
        raise UsageError("the matrix has no name; give it one with --run, or --resume one")
    study = named_study(run, runs_dir, "matrix")
    begun = read_begun(study) if study.specification.is_file() else None
    if "train" in settings:
        settings["train"] = [training_of(text, runs_dir, begun) for text in settings["train"]]
    document = {} if config is None else read_matrix(config)
    source = "matrix" if config is None else f"'{config}'"
    made_of = parse_matrix({**document, **settings}, source=source)
    return study, completed(made_of, runs_dir, begun)


def _draw_figures(
    study: "StudyDirectory",
    plan: "Plan",
    rows: "Sequence[StudyRow]",
    cells: "Sequence[CellScore]",
) -> None:
    from mgrl_cli.plots.curves import plot_learning_curves
    from mgrl_cli.plots.heat_map import HeatCell, plot_heat_map
    from mgrl_cli.studies.table import labelled_rows, missing_cells, planned_cells

    heat = [
        HeatCell(
            *(cell.row, cell.environment, cell.mean, cell.deviation),
            *(len(cell.runs), cell.objectives, cell.has_lost_runs or cell.has_early_ends),
        )
        for cell in cells
    ]
    missing = missing_cells(cells, planned_cells(plan.cells))
    heat += [HeatCell(it.row, it.environment, nan, nan, 0) for it in missing]
    curves = labelled_rows(rows)
    objectives = {cell.planned.place: cell.objectives for cell in cells}
    title = f"matrix {study.path.name}"
    draw(lambda suffix: plot_heat_map(heat, study.figure("heat_map", suffix), title=title))
    draw(
        lambda suffix: plot_learning_curves(
            curves, study.figure("curves", suffix), title=title, objectives=objectives
        )
    )
