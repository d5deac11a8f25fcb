"""The figure of a replay: returns, rewards, actions and observations, a line of panels per task.

Knows figures and the columns it is given; knows nothing of how replay is stored or read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mgrl_cli.errors import UsageError
from mgrl_cli.plots.aggregate import Curve, curve_of, running_mean
from mgrl_cli.plots.data import write_table
from mgrl_cli.plots.drawing import add_caption, draw_strong, draw_thin
from mgrl_cli.plots.style import (
    PAGE_WIDTH,
    check_figure_path,
    environment_colors,
    new_figure,
    save_figure,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = ("return of episodes", "reward", "action", "observation dimension")
_LINE_HEIGHT = 1.75
_FRAME_HEIGHT = 0.45
_SMOOTHING_PARTS = 15
"""The strong line of returns is a running mean over this part of the episodes."""
_AGENTS_WIDTH = 0.7
"""Part of the room of an observation dimension that the agents' bars share."""


class Bars(NamedTuple):
    """A histogram over equal parts of [low, high]; no counts where there is no number."""

    low: float
    high: float
    counts: Sequence[int]


class ObsRange(NamedTuple):
    """Where one dimension of the observations lies."""

    mean: float
    std: float
    low: float
    high: float


class ReplayColumns(NamedTuple):
    """What is drawn of one agent."""

    agent: str
    environment: str
    env_steps: Sequence[float]
    """Steps stored up to the end of each episode."""
    returns: Sequence[float]
    """One per episode; NaN where not known."""
    reward: Bars
    action: Bars
    """All dimensions together."""
    obs: Sequence[ObsRange]


class DataRow(NamedTuple):
    """One mark of the figure, as written to the CSV beside it."""

    panel: str
    agent: str
    environment: str
    x: float
    """Env steps; middle of the histogram's part; number of the observation's dimension."""
    y: float
    """Return; share of the numbers in this part; mean."""
    low: float
    """Start of the histogram's part; lowest observation. NaN for returns."""
    high: float
    """End of the histogram's part; highest observation. NaN for returns."""


def plot_buffer(agents: Sequence[ReplayColumns], path: Path) -> tuple[Path, Path]:
    """Draw what the replay of several agents holds.

    Args:
        agents: at least one with an episode; agents of one environment share panels.
        path: .png or .svg; what is drawn goes beside it as .csv.

    Returns:
        The paths of figure and CSV.

    Raises:
        UsageError: no episodes, another suffix, or matplotlib is not installed.
        StorageError: the system refuses to write.
    """
    check_figure_path(path)
    if not any(agent.returns for agent in agents):
        raise UsageError(
            f"Nothing to plot to {path}: got no episodes, expected at least one. "
            "Let the run go on first"
        )
    colors = environment_colors(agent.environment for agent in agents)
    with new_figure(PAGE_WIDTH, _LINE_HEIGHT * len(colors) + _FRAME_HEIGHT) as figure:
        for line, (environment, color) in enumerate(colors.items()):
            group = [agent for agent in agents if agent.environment == environment]
            _draw_line(figure, group, color, line, len(colors))
        add_caption(
            figure,
            "Returns: thin for single agents, strong for their running mean over "
            f"1/{_SMOOTHING_PARTS} of the episodes. Histograms: share of steps, one outline per "
            "agent.\nObservations by dimension and agent: thin from lowest to highest, strong "
            "one standard deviation around the mean.",
        )
        save_figure(figure, path)
    csv_path = path.with_suffix(".csv")
    rows = [row for agent in agents for row in _data_rows(agent)]
    write_table(DataRow._fields, rows, csv_path)
    return path, csv_path


def _draw_line(
    figure: Figure, group: Sequence[ReplayColumns], color: str, line: int, num_lines: int
) -> None:
    returns, reward, action, obs = (
        figure.add_subplot(num_lines, len(_PANELS), line * len(_PANELS) + column + 1)
        for column in range(len(_PANELS))
    )
    curves = [curve_of(zip(agent.env_steps, agent.returns, strict=True)) for agent in group]
    draw_thin(returns, curves, color)
    for curve in curves:
        window = max(1, curve.y.size // _SMOOTHING_PARTS)
        draw_strong(returns, curve.x, running_mean(curve.y, window), color)
    style_axes(returns, title=group[0].environment, y_label=_PANELS[0])
    for axes, bars in ((reward, [a.reward for a in group]), (action, [a.action for a in group])):
        _draw_bars(axes, bars, color)
    action.set_xlim(-1.05, 1.05)
    _draw_obs(obs, group, color)
    if line == num_lines - 1:
        for axes, name in zip((returns, reward, action, obs), ("env steps", *_PANELS[1:]),
                              strict=True):  # fmt: skip
            axes.set_xlabel(name)


def _draw_bars(axes: Axes, histograms: Sequence[Bars], color: str) -> None:
    for bars in histograms:
        if bars.counts:
            axes.stairs(_shares(bars), _edges(bars), color=color, linewidth=0.8, alpha=0.8)
    axes.set_ylim(bottom=0)
    axes.tick_params(length=2.5, color="#444444")


def _draw_obs(axes: Axes, group: Sequence[ReplayColumns], color: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for number, agent in enumerate(group):
        offset = _AGENTS_WIDTH * ((number + 0.5) / len(group) - 0.5)
        x = np.arange(len(agent.obs)) + offset
        mean, std, low, high = (np.array(column) for column in zip(*agent.obs, strict=True))
        axes.vlines(x, low, high, color=color, linewidth=0.6, alpha=0.6)
        axes.vlines(x, mean - std, mean + std, color=color, linewidth=1.8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.tick_params(length=2.5, color="#444444")


def _edges(bars: Bars) -> np.ndarray:
    return np.linspace(bars.low, bars.high, len(bars.counts) + 1)


def _shares(bars: Bars) -> np.ndarray:
    return np.array(bars.counts) / max(1, sum(bars.counts))


def _data_rows(agent: ReplayColumns) -> Iterator[DataRow]:
    curve: Curve = curve_of(zip(agent.env_steps, agent.returns, strict=True))
    for x, y in zip(curve.x.tolist(), curve.y.tolist(), strict=True):
        yield DataRow("return", agent.agent, agent.environment, x, y, math.nan, math.nan)
    for panel, bars in (("reward", agent.reward), ("action", agent.action)):
        edges = _edges(bars).tolist()
        for low, high, share in zip(edges, edges[1:], _shares(bars).tolist(), strict=False):
            middle = (low + high) / 2
            yield DataRow(panel, agent.agent, agent.environment, middle, share, low, high)
    for dimension, obs in enumerate(agent.obs):
        yield DataRow(
            "observation", agent.agent, agent.environment, dimension, obs.mean, obs.low, obs.high
        )
