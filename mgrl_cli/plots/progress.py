"""How good an objective is after how much meta-training: scores of its checkpoints on test tasks.

The form of the paper's figures 4 and 10. Knows nothing of checkpoints or runs.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mgrl_cli.plots.data import check_rows, write_table
from mgrl_cli.plots.drawing import (
    LegendEntry,
    add_caption,
    add_legend,
    plan_legend,
    short_label,
)
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

_OBJECTIVE = "learned"
_PANELS_PER_LINE = 3
_LINE_HEIGHT = 2.8
_LEGEND_HEIGHT = 0.31
"""Of a legend that `_LINE_HEIGHT` has room for: two lines."""


class ProgressPoint(NamedTuple):
    """The final score of one fresh agent under an objective that had so much meta-training."""

    environment: str
    """The test environment."""
    train_env_steps: int
    """Env steps each agent of the meta-training had made."""
    seed: int
    """Test seed."""
    score: float
    """NaN: the run was never evaluated."""


class ReferenceScores(NamedTuple):
    """Final scores of a rule that needs no meta-training, drawn as a level."""

    environment: str
    label: str
    """The rule, such as "ddpg"."""
    scores: Mapping[int, float]
    """Test seed → score; NaN as in a point."""


def plot_progress(
    points: Sequence[ProgressPoint],
    path: Path,
    *,
    title: str,
    references: Sequence[ReferenceScores] = (),
) -> tuple[Path, Path]:
    """Draw test scores over meta-training: mean, range and single seeds, baselines as levels.

    One panel per test environment.

    Args:
        points: at least one, in any order.
        path: .png or .svg; what is drawn goes beside it as .csv.
        title: above the figure.
        references: at most one of each label and environment.

    Returns:
        The paths of figure and CSV.

    Raises:
        UsageError: no points, another suffix, or matplotlib is not installed.
        StorageError: the system refuses to write.
    """
    check_figure_path(path)
    check_rows(points, path)
    environments = list(dict.fromkeys(point.environment for point in points))
    shown = [reference for reference in references if reference.environment in environments]
    looks = line_looks([_OBJECTIVE, *(reference.label for reference in shown)])
    entries = [LegendEntry(label, *look) for label, look in looks.items()]
    num_columns = min(len(environments), _PANELS_PER_LINE)
    num_lines = math.ceil(len(environments) / num_columns)
    width = COLUMN_WIDTH if num_columns == 1 else PAGE_WIDTH
    legend = plan_legend([entry.label for entry in entries], width, title)
    height = _LINE_HEIGHT * num_lines + max(0.0, legend.height - _LEGEND_HEIGHT)
    with new_figure(width, height) as figure:
        for index, environment in enumerate(environments):
            axes = figure.add_subplot(num_lines, num_columns, index + 1)
            for reference in reversed([one for one in shown if one.environment == environment]):
                _draw_reference(axes, reference, looks[reference.label])
            group = [point for point in points if point.environment == environment]
            _draw_points(axes, group, looks[_OBJECTIVE])
            y_label = "final score" if index % num_columns == 0 else ""
            style_axes(axes, title=short_label(environment), y_label=y_label)
            axes.set_xlabel("env steps of meta-training per agent")
        add_legend(figure, entries, title=title)
        add_caption(figure, _caption(points))
        save_figure(figure, path)
    csv_path = path.with_suffix(".csv")
    write_table(_HEADER, list(_data(points, shown)), csv_path)
    return path, csv_path


_HEADER = ("environment", "label", "train_env_steps", "seed", "score")


def _caption(points: Sequence[ProgressPoint]) -> str:
    is_single = len({point.seed for point in points}) == 1
    has_gaps = any(math.isnan(point.score) for point in points)
    crosses = " Crosses: no result." if has_gaps else ""
    if is_single:
        return f"One test seed. Bands: min–max over seeds.{crosses}"
    return f"Strong: mean over test seeds. Bands: min–max.\nThin: single seeds.{crosses}"


def _data(
    points: Sequence[ProgressPoint], references: Sequence[ReferenceScores]
) -> Iterator[tuple[str, str, float, int, float]]:
    for point in points:
        yield point.environment, _OBJECTIVE, point.train_env_steps, point.seed, point.score
    for reference in references:
        for seed, score in reference.scores.items():
            yield reference.environment, reference.label, math.nan, seed, score


def _draw_points(axes: Axes, points: Sequence[ProgressPoint], look: LineLook) -> None:
    scores: defaultdict[int, list[float]] = defaultdict(list)
    seeds: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    for point in points:
        if math.isfinite(point.score):
            scores[point.train_env_steps].append(point.score)
        seeds[point.seed].append((point.train_env_steps, point.score))
    x = sorted(scores)
    mean, low, high = (
        [figure(scores[step]) for step in x] for figure in (statistics.fmean, min, max)
    )
    if len(seeds) > 1:
        axes.fill_between(x, low, high, color=look.color, alpha=0.15, linewidth=0)
        for curve in seeds.values():
            # NaN breaks the line: a run without a score is not bridged.
            steps, values = zip(*sorted(curve), strict=True)
            axes.plot(steps, values, ".-", color=look.color, linewidth=0.6, alpha=0.4, markersize=2)
    axes.plot(x, mean, color=look.color, linestyle=look.dash, marker="o", markersize=3)
    without = [point.train_env_steps for point in points if not math.isfinite(point.score)]
    transform = axes.get_xaxis_transform()
    axes.plot(
        without, [0.05] * len(without), "x", color=look.color, markersize=4, transform=transform
    )


def _draw_reference(axes: Axes, reference: ReferenceScores, look: LineLook) -> None:
    scores = [score for score in reference.scores.values() if math.isfinite(score)]
    if scores:
        axes.axhspan(min(scores), max(scores), color=look.color, alpha=0.1, linewidth=0)
        level = statistics.fmean(scores)
        axes.axhline(level, color=look.color, linestyle=look.dash, linewidth=1.2)
