import csv
import math
from pathlib import Path

import pytest

from mgrl_cli.errors import UsageError
from mgrl_cli.plots.progress import ProgressPoint, ReferenceScores, plot_progress
from tests.plots.test_curves import png_size

POINTS = [
    ProgressPoint("hopper", 10_000 * checkpoint, seed, 40.0 * checkpoint + 10 * seed)
    for checkpoint in range(4)
    for seed in range(3)
]
LEVELS = [ReferenceScores("hopper", "ddpg", {0: 271.0, 1: 276.0, 4: 290.0})]


def test_one_test_environment_fits_a_column(tmp_path: Path) -> None:
    figure, _ = plot_progress(POINTS, tmp_path / "progress.png", title="x", references=LEVELS)
    assert png_size(figure) == (990, 840)


def test_figure_names_what_it_shows(tmp_path: Path) -> None:
    figure, _ = plot_progress(POINTS, tmp_path / "progress.svg", title="a & b", references=LEVELS)
    text = figure.read_text(encoding="utf-8")
    for expected in (
        *("a &amp; b", "hopper", "learned", "ddpg", "final score", "#0072b2", "#d55e00"),
        "env steps of meta-training per agent",
        "Bands: min–max.",
    ):
        assert expected in text
    assert "Crosses" not in text


def test_failed_runs_are_marked_and_not_made_up(tmp_path: Path) -> None:
    failed = [point._replace(score=math.nan) if point.seed == 1 else point for point in POINTS]
    figure, data = plot_progress(failed, tmp_path / "progress.svg", title="x")
    assert "Crosses: no result." in figure.read_text(encoding="utf-8")
    with data.open(newline="", encoding="utf-8") as file:
        scores = [row["score"] for row in csv.DictReader(file)]
    assert scores.count("") == 4


def test_nothing_but_failures_is_a_figure_too(tmp_path: Path) -> None:
    failed = [point._replace(score=math.nan) for point in POINTS]
    level = ReferenceScores("hopper", "ddpg", {0: math.nan})
    figure, _ = plot_progress(failed, tmp_path / "a.svg", title="x", references=[level])
    assert "Crosses: no result." in figure.read_text(encoding="utf-8")


def test_data_holds_points_and_levels(tmp_path: Path) -> None:
    _, data = plot_progress(POINTS, tmp_path / "progress.png", title="x", references=LEVELS)
    with data.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["environment", "label", "train_env_steps", "seed", "score"]
    assert rows[1] == ["hopper", "learned", "0", "0", "0.0"]
    assert rows[-1] == ["hopper", "ddpg", "", "4", "290.0"]
    assert len(rows) == 1 + 12 + 3


def test_several_environments_take_the_page(tmp_path: Path) -> None:
    points = [*POINTS, *(point._replace(environment="lunar") for point in POINTS)]
    figure, _ = plot_progress(points, tmp_path / "progress.png", title="x", references=LEVELS)
    assert png_size(figure)[0] == 2070


def test_same_points_give_the_same_bytes(tmp_path: Path) -> None:
    for suffix in (".png", ".svg"):
        first, _ = plot_progress(POINTS, tmp_path / f"a{suffix}", title="x", references=LEVELS)
        second, _ = plot_progress(POINTS, tmp_path / f"b{suffix}", title="x", references=LEVELS)
        assert first.read_bytes() == second.read_bytes()


def test_no_points_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Nothing to plot"):
        plot_progress([], tmp_path / "progress.png", title="x", references=LEVELS)
    assert list(tmp_path.iterdir()) == []
