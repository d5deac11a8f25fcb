"""The two figures of a run: learning curves of a meta-test, and the course of a meta-training.

Each is written together with its data as CSV. Knows records and figures; knows nothing of run
directories.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from mgrl_cli.plots.aggregate import band_of, curve_of
from mgrl_cli.plots.data import EvaluationRow, PopulationRow, check_rows, write_csv
from mgrl_cli.plots.drawing import (
    LegendEntry,
    add_caption,
    add_legend,
    draw_strong,
    draw_thin,
    plan_legend,
    range_text,
    short_label,
)
from mgrl_cli.plots.population import draw_population, population_height
from mgrl_cli.plots.style import (
    COLUMN_WIDTH,
    PAGE_WIDTH,
    LineLook,
    check_figure_path,
    line_looks,
    new_figure,
    save_figure,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Metric = Literal["evaluation", "training"]
"""Return without exploration noise at each evaluation, or with it in each round's training."""

_PANELS_PER_LINE = 3
_LINE_HEIGHT = 2.8
_WIDE_HEIGHT = 3.6
"""Of one panel as wide as the page."""
_LEGEND_HEIGHT = 0.31
"""Of a legend that `_LINE_HEIGHT` has room for: two lines."""
_MOST_THIN_RULES = 5
"""With more rules single seeds are not drawn, since they would hide the means."""
_MOST_BANDS = 10
_NO_OBJECTIVES: Mapping[tuple[str, str], int] = MappingProxyType({})
_MOST_COLUMN_RULES = 8
"""With more rules one panel takes the width of the page."""


def plot_learning_curves(
    rows: Sequence[EvaluationRow],
    path: Path,
    *,
    title: str,
    metric: Metric = "evaluation",
    objectives: Mapping[tuple[str, str], int] = _NO_OBJECTIVES,
) -> tuple[Path, Path]:
    """Draw return over env steps: per rule the mean over seeds, their range, each seed.

    One panel per environment. Between measurements curves are interpolated linearly. Of many rules
    the ranges, and of yet more the single seeds, are left out; the caption says what is drawn.

    Args:
        rows: all measurements, in any order; `rule` may be any label.
        path: .png or .svg; the rows go beside it as .csv.
        title: above the figure.
        metric: which of the rows' two returns.
        objectives: rule and environment → learned objectives that its runs share among them, where
            there are several; each seed of `rows` is then one run.

    Returns:
        The paths of figure and CSV.

    Raises:
        UsageError: no rows, another suffix, or matplotlib is not installed.
        StorageError: the system refuses to write.
    """
    check_figure_path(path)
    check_rows(rows, path)
    environments = sorted({row.environment for row in rows})
    looks = line_looks(row.rule for row in rows)
    num_columns = min(len(environments), _PANELS_PER_LINE)
    num_lines = math.ceil(len(environments) / num_columns)
    entries = _legend_entries(rows, looks, objectives)
    unit = "runs" if any(count > 1 for count in objectives.values()) else "seeds"
    is_narrow = num_columns == 1 and len(looks) <= _MOST_COLUMN_RULES
    width = COLUMN_WIDTH if is_narrow else PAGE_WIDTH
    legend = plan_legend([entry.label for entry in entries], width, title)
    is_wide = num_columns == 1 and not is_narrow
    line_height = _WIDE_HEIGHT if is_wide else _LINE_HEIGHT
    height = line_height * num_lines + max(0.0, legend.height - _LEGEND_HEIGHT)
    with new_figure(width, height) as figure:
        for index, environment in enumerate(environments):
            axes = figure.add_subplot(num_lines, num_columns, index + 1)
            group = [row for row in rows if row.environment == environment]
            _draw_rules(axes, group, looks, metric)
            y_label = f"{metric} return" if index % num_columns == 0 else ""
            style_axes(axes, title=short_label(environment), y_label=y_label)
            axes.set_xlabel("env steps")
        add_legend(figure, entries, title=title)
        add_caption(figure, _caption(rows, "\n" if is_narrow else " ", unit))
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
    check_figure_path(path)
    check_rows(rows, path)
    with new_figure(PAGE_WIDTH, population_height(rows)) as figure:
        draw_population(figure, rows)
        save_figure(figure, path)
    return path, _write_data(rows, path)


def _write_data(rows: Sequence[EvaluationRow] | Sequence[PopulationRow], path: Path) -> Path:
    csv_path = path.with_suffix(".csv")
    write_csv(rows, csv_path)
    return csv_path


def _draw_rules(
    axes: Axes, rows: Sequence[EvaluationRow], looks: Mapping[str, LineLook], metric: Metric
) -> None:
    curves: defaultdict[str, defaultdict[int, list[tuple[float, float]]]]
    curves = defaultdict(lambda: defaultdict(list))
    for row in rows:
        figure = row.evaluation_return if metric == "evaluation" else row.training_return
        curves[row.rule][row.seed].append((row.env_steps, figure))
    # The first rule, in most figures the learned objective, is drawn last, above the others.
    for rule in reversed([rule for rule in looks if rule in curves]):
        seeds = [curve_of(points) for _, points in sorted(curves[rule].items())]
        band, look = band_of(seeds), looks[rule]
        if len(seeds) > 1 and len(looks) <= _MOST_BANDS:
            axes.fill_between(
                band.x, band.low, band.high, color=look.color, alpha=0.15, linewidth=0
            )
        if len(seeds) > 1 and len(looks) <= _MOST_THIN_RULES:
            draw_thin(axes, seeds, look.color)
        draw_strong(axes, band.x, band.mean, look.color, look.dash)


def _caption(rows: Sequence[EvaluationRow], line_break: str, unit: str) -> str:
    num_rules = len({row.rule for row in rows})
    num_lines = len({(row.rule, row.environment) for row in rows})
    if num_lines == len({(row.rule, row.environment, row.seed) for row in rows}):
        return f"Lines: single {unit}."
    if num_rules > _MOST_BANDS:
        return f"Lines: mean over {unit}."
    thin = f" Thin: single {unit}." if num_rules <= _MOST_THIN_RULES else ""
    return f"Lines: mean over {unit}.{line_break}Bands: min–max.{thin}"


def _legend_entries(
    rows: Sequence[EvaluationRow],
    looks: Mapping[str, LineLook],
    objectives: Mapping[tuple[str, str], int],
) -> list[LegendEntry]:
    seeds: defaultdict[str, defaultdict[str, set[int]]]
    seeds = defaultdict(lambda: defaultdict(set))
    for row in rows:
        seeds[row.rule][row.environment].add(row.seed)
    return [
        LegendEntry(f"{rule} ({_runs_text(rule, seeds[rule], objectives)})", *look)
        for rule, look in looks.items()
    ]


def _runs_text(
    rule: str,
    seeds: Mapping[str, Collection[int]],
    objectives: Mapping[tuple[str, str], int],
) -> str:
    """Return "3 seeds", "2–3 seeds" where environments differ, or "9 runs of 3 objectives"."""
    counts = [len(own) for own in seeds.values()]
    shared = [objectives.get((rule, environment), 0) for environment in seeds]
    if max(shared) > 1:
        return f"{range_text(counts)} runs of {range_text(shared)} objectives"
    return f"{range_text(counts)} seed{'s' if max(counts) > 1 else ''}"
