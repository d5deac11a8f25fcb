"""What the commands that make several runs share: options, execution, results on disk and stdout.

Knows nothing of how runs are planned or executed.
"""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mgrl_cli.commands.run_options import progress_line

if TYPE_CHECKING:
    from mgrl_cli.studies.directory import StudyDirectory
    from mgrl_cli.studies.plan import Plan
    from mgrl_cli.studies.queue import JobStatus
    from mgrl_cli.studies.rows import StudyRow
    from mgrl_cli.studies.table import CellScore

JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        help="Worker processes at the same time, over all runs [one per usable core].",
    ),
]
FIGURE_SUFFIXES = (".png", ".svg")


def check_plan(plan: "Plan") -> None:
    """Refuse what would else fail, or mean something else, after the first runs.

    Raises:
        UsageError: a package is missing, or a setting contradicts an objective.
        FileError: a copy of an objective is damaged.
    """
    from mgrl_cli.objective_file import LearnedObjective
    from mgrl_cli.runtime.launch import check_objective_fits, check_rules, settings_of_objective

    for cell in plan.cells:
        check_rules(cell.settings.resolved(cell.job.name))
        if cell.copy is not None:
            objective = LearnedObjective.load(cell.copy)
            brought = settings_of_objective(objective)
            check_objective_fits(cell.settings.resolved(cell.job.name, brought), objective)


def execute(
    study: "StudyDirectory", plan: "Plan", *, workers: int | None, quiet: bool
) -> "list[JobStatus]":
    """Run what is left to do of an opened study; return what became of each run."""
    import os

    from rich.console import Console

    from mgrl_cli.studies.execution import check_environments, run_jobs
    from mgrl_cli.studies.jobs import is_finished
    from mgrl_cli.ui.study import open_study_progress

    say = progress_line(quiet=quiet)
    if all(is_finished(job) for job in plan.jobs):
        say(f"{study.kind} '{study.path}' is finished: nothing is left to do")
    else:
        if os.getcwd() not in sys.path:  # noqa: PTH109 - as the runs themselves do, below
            sys.path.append(os.getcwd())  # noqa: PTH109 - `module:Name-v0` may name a module here
        check_environments(plan.environments, say)
    with open_study_progress(quiet=quiet, console=Console(stderr=True)) as progress:
        return run_jobs(study, plan.jobs, progress.update, workers=workers)


def write_rows_and_tables(
    study: "StudyDirectory", plan: "Plan"
) -> "tuple[list[StudyRow], list[CellScore]]":
    """Write `rows.csv` and, from it and the plan, the tables; return both."""
    from mgrl_cli.run_dir.atomic import write_atomically
    from mgrl_cli.studies.report import csv_table, markdown_table, text_table
    from mgrl_cli.studies.rows import read_rows, rows_of, write_rows
    from mgrl_cli.studies.table import cell_scores, missing_cells, planned_cells

    write_rows(rows_of(plan.cells), study.rows)
    rows = read_rows(study.rows)
    planned = planned_cells(plan.cells)
    cells = cell_scores(rows, planned)
    missing = missing_cells(cells, planned)
    write_atomically(study.table(".txt"), text_table(cells, missing).encode())
    write_atomically(study.table(".md"), markdown_table(cells, missing).encode())
    write_atomically(study.table(".csv"), csv_table(cells, missing).encode())
    return rows, cells


def draw(draw_to: "Callable[[str], object]") -> None:
    """Draw a figure as PNG and as SVG where matplotlib is installed; say so where it is not."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        typer.echo("no plot: pip install 'mgrl[plot]'", err=True)
        return
    for suffix in FIGURE_SUFFIXES:
        draw_to(suffix)


def print_results(
    study: "StudyDirectory",
    cells: "Sequence[CellScore]",
    statuses: "Sequence[JobStatus]",
    *,
    json: bool,
) -> None:
    """Print the table, or all there is to say as one JSON document; then one line per failure."""
    from json import dumps

    from mgrl_cli.studies.queue import failures
    from mgrl_cli.studies.report import cell_record

    lost = failures(statuses)
    if json:
        runs = [
            {"run": status.job.name, "state": status.state.value, "problem": status.problem}
            for status in statuses
        ]
        document = {study.kind: study.path.name, "cells": list(map(cell_record, cells))}
        typer.echo(dumps({**document, "runs": runs}, indent=2, allow_nan=False))
    else:
        _echo(study.table(".txt").read_text(encoding="utf-8"))
        typer.echo(f"{study.path}")
    for name, status in lost.items():
        typer.echo(f"mgrl: {name} {status.state}: {status.problem}", err=True)


def _echo(text: str) -> None:
    """Print text that any stdout can take."""
    encoding = sys.stdout.encoding or "ascii"
    typer.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=False)
