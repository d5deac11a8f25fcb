"""The two figures of a run: learning curves of a meta-test, and the course of a meta-training.

Each is written together with its data as CSV. Knows records and figures; knows nothing of run
directories.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mgrl_cli.errors import UsageError
from mgrl_cli.plots.aggregate import band_of, curve_of
from mgrl_cli.plots.data import EvaluationRow, PopulationRow, write_csv
from mgrl_cli.plots.drawing import LegendEntry, add_caption, add_legend, draw_strong, draw_thin
from mgrl_cli.plots.population import draw_population, population_height
from mgrl_cli.plots.style import (
    COLUMN_WIDTH,
    PAGE_WIDTH,
    RULE_COLORS,
    check_figure_path,
    new_figure,
    rule_colors,
    rule_dash,
    save_figure,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS_PER_LINE = 3
_LINE_HEIGHT = 2.8


def plot_learning_curves(
    rows: Sequence[EvaluationRow], path: Path, *, title: str
) -> tuple[Path, Path]:
    """Draw noise-free return over env steps: per rule the mean over seeds, their range, each seed.

    One panel per environment. Between evaluations curves are interpolated linearly.

    Args:
        rows: all evaluations, in any order.
        path: .png or .svg; the rows go beside it as .csv.
        title: above the figure.

    Returns:
        The paths of figure and CSV.

    Raises:
        UsageError: no rows, another suffix, or matplotlib is not installed.
        StorageError: the system refuses to write.
    """
    _check(rows, path)
    environments = sorted({row.environment for row in rows})
    colors = rule_colors(row.rule for row in rows)
    num_columns = min(len(environments), _PANELS_PER_LINE)
    num_lines = math.ceil(len(environments) / num_columns)
    width = COLUMN_WIDTH if num_columns == 1 else PAGE_WIDTH
    with new_figure(width, _LINE_HEIGHT * num_lines) as figure:
        for index, environment in enumerate(environments):
            axes = figure.add_subplot(num_lines, num_columns, index + 1)
            _draw_rules(axes, [row for row in rows if row.environment == environment], colors)
            is_first = index % num_columns == 0
            style_axes(axes, title=environment, y_label="evaluation return" if is_first else "")
            axes.set_xlabel("env steps")
        line_break = "\n" if num_columns == 1 else " "
        _add_rule_legend(figure, rows, colors, title)
        add_caption(
            figure, f"Lines: mean over seeds.{line_break}Bands: min–max. Thin: single seeds."
        )
        save_figure(figure, path)
    return path, _write_data(rows, path)


def plot_meta_training(rows: Sequence[PopulationRow], path: Path) -> tuple[Path, Path]:
    """Draw a meta-training over env steps: returns by environment, and what the objective did.

    Above, one panel per environment: each agent's training and evaluation return. Below: gain of
    the virtual step, cosine with the critic's policy gradient, action slack and raw meta-gradient
    norm (there the geometric mean), each agent thin, an environment's smoothed mean strong.

    Args:
        rows: all rounds of all agents, in any order.
        path: .png or .svg; the rows go beside it as .csv.

    Returns:
        The paths of figure and CSV.

    Raises:
        UsageError: no rows, another suffix, or matplotlib is not installed.
        StorageError: the system refuses to write.
    """
    _check(rows, path)
    with new_figure(PAGE_WIDTH, population_height(rows)) as figure:
        draw_population(figure, rows)
        save_figure(figure, path)
    return path, _write_data(rows, path)


def _check(rows: Sequence[object], path: Path) -> None:
    check_figure_path(path)
    if not rows:
        message = (
            f"Nothing to plot to {path}: got no measurements, expected at least one round with "
            "some. Let the run go on first"
        )
        raise UsageError(message)


def _write_data(rows: Sequence[EvaluationRow] | Sequence[PopulationRow], path: Path) -> Path:
    csv_path = path.with_suffix(".csv")
    write_csv(rows, csv_path)
    return csv_path


def _draw_rules(axes: Axes, rows: Sequence[EvaluationRow], colors: Mapping[str, str]) -> None:
    # The learned objective is drawn last, above the others.
    for rule in reversed(_in_order(row.rule for row in rows)):
        points: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
        for row in rows:
            if row.rule == rule:
                points[row.seed].append((row.env_steps, row.evaluation_return))
        curves = [curve_of(seed_points) for _, seed_points in sorted(points.items())]
        band = band_of(curves)
        if len(curves) > 1:
            axes.fill_between(
                band.x, band.low, band.high, color=colors[rule], alpha=0.15, linewidth=0
            )
            draw_thin(axes, curves, colors[rule])
        draw_strong(axes, band.x, band.mean, colors[rule], rule_dash(rule))


def _add_rule_legend(
    figure: Figure, rows: Sequence[EvaluationRow], colors: Mapping[str, str], title: str
) -> None:
    seeds: defaultdict[str, set[int]] = defaultdict(set)
    for row in rows:
        seeds[row.rule].add(row.seed)
    entries = [
        LegendEntry(
            label=f"{rule} ({len(seeds[rule])} seed{'s' if len(seeds[rule]) > 1 else ''})",
            color=colors[rule],
            line_style=rule_dash(rule),
        )
        for rule in _in_order(seeds)
    ]
    num_columns = 2 if figure.get_figwidth() < PAGE_WIDTH else 4
    add_legend(figure, entries, num_columns=num_columns, title=title)


def _in_order(rules: Iterable[str]) -> list[str]:
    """Return the known rules in their usual order, then the others by name."""
    names = set(rules)
    return [*(rule for rule in RULE_COLORS if rule in names), *sorted(names - set(RULE_COLORS))]
