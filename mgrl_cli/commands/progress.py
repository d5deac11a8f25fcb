"""`mgrl progress`: how good a training's objective was when, by testing those kept on the way."""

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
    from collections.abc import Callable, Mapping, Sequence

    from mgrl_cli.plots.progress import ProgressPoint
    from mgrl_cli.studies.along import Along
    from mgrl_cli.studies.directory import StudyDirectory
    from mgrl_cli.studies.plan import Plan
    from mgrl_cli.studies.table import CellScore


def progress(
    training: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Name or path of a meta-training.")
    ] = None,
    *,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", help="Test environments, comma-separated; repeatable."),
    ] = None,
    points: Annotated[
        int | None, typer.Option("--points", help="Objectives to test, the last one included [5].")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Fresh agents per objective [3].")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Rules drawn as levels, e.g. ddpg,reinforce.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Env steps of each fresh agent.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Root of the tests' randomness [0].")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Settings of the tests [the training's].")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="One setting of all tests; repeatable."),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", help="Name of the study; given again, it continues [made up]."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Continue this study, as it was begun.")
    ] = None,
    runs_dir: RunsDirOption = Path("runs"),
    jobs: JobsOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Test objectives kept along a meta-training on fresh agents, also while it goes on.

    Scores over the training's env steps, with tables and a figure, go to
    RUNS_DIR/progress-RUN-ENV. Example: mgrl progress first --env hopper --against ddpg
    """
    from mgrl_cli.studies.along import check_copies, import_objectives, plan_along
    from mgrl_cli.studies.directory import opened
    from mgrl_cli.studies.execution import raise_failures

    options = {
        "envs": env and [name for text in env for name in split_list(text, "--env")],
        "points": points,
        "seeds": seeds,
        "against": None if against is None else split_list(against, "--against"),
        "steps": steps,
        "seed": seed,
        "preset": preset,
        "set": assignments,
    }
    study, made_of = _study(training, options, run, resume, runs_dir)

    def check() -> None:
        check_copies(made_of, study)
        check_plan(plan_along(made_of, study))

    with opened(study, made_of.document, lambda: import_objectives(made_of, study), check):
        plan = plan_along(made_of, study)
        statuses = execute(study, plan, workers=jobs, quiet=quiet)
        _, cells = write_rows_and_tables(study, plan)
        if any(cell.planned.training for cell in cells):
            draw(_figure(study, plan, cells))
    print_results(study, cells, statuses, json=json)
    raise_failures(study, statuses)


def _study(
    training: str | None,
    options: dict[str, Any],
    run: str | None,
    resume: str | None,
    runs_dir: Path,
) -> "tuple[StudyDirectory, Along]":
    """Return the study that is meant, new or begun, and where it is."""
    from mgrl_cli.studies.along import along_of, parse_along, with_rounds_of
    from mgrl_cli.studies.directory import find_study, named_study, read_specification, slug

    settings = {key: value for key, value in options.items() if value is not None}
    if resume is not None:
        if settings or run is not None or training is not None:
            raise UsageError(
                "--resume was given beside a run or settings, expected none: a study that has "
                "begun has its own; leave them out, or begin another with --run"
            )
        study = find_study(resume, runs_dir, "progress")
        return study, parse_along(read_specification(study))
    if training is None or "envs" not in settings:
        raise UsageError(
            "no run or no environment to test on; give both: mgrl progress RUN --env hopper"
        )
    made_of = along_of(training, settings, runs_dir)
    name = run or slug("-".join(["progress", Path(made_of.run).name, *made_of.envs]), set())
    study = named_study(name, runs_dir, "progress")
    if study.specification.is_file():
        begun = parse_along(read_specification(study))
        if made_of.rounds[-1] > begun.rounds[-1]:
            typer.echo(
                f"mgrl: this study began when the training had kept round {begun.rounds[-1]}; to "
                f"test up to round {made_of.rounds[-1]}, name another --run",
                err=True,
            )
        made_of = with_rounds_of(made_of, begun)
    return study, made_of


def _figure(
    study: "StudyDirectory", plan: "Plan", cells: "Sequence[CellScore]"
) -> "Callable[[str], object]":
    from mgrl_cli.plots.progress import ReferenceScores, plot_progress

    scores = {cell.planned.place: {run.seed: run.score for run in cell.runs} for cell in cells}
    references = [
        ReferenceScores(cell.environment, cell.row, scores[cell.planned.place])
        for cell in cells
        if not cell.planned.training
    ]
    points = progress_points(plan, scores)
    return lambda suffix: plot_progress(
        points, study.figure("progress", suffix), title=study.path.name, references=references
    )


def progress_points(
    plan: "Plan", scores: "Mapping[tuple[str, str], Mapping[int, float]]"
) -> "list[ProgressPoint]":
    """Return a point per planned test, NaN where it has no score.

    Args:
        plan: of the study.
        scores: row and environment of a cell → test seed → final score.
    """
    from mgrl_cli.plots.progress import ProgressPoint

    return [
        ProgressPoint(
            environment=cell.environment,
            train_env_steps=cell.train_env_steps,
            seed=seed,
            score=scores.get((cell.row, cell.environment), {}).get(seed, nan),
        )
        for cell in plan.cells
        if cell.training
        for seed in range(cell.job.agents)
    ]
