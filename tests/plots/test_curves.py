import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from mgrl_cli.errors import StorageError, UsageError
from mgrl_cli.plots.curves import plot_learning_curves, plot_meta_training
from mgrl_cli.plots.data import EvaluationRow, PopulationRow, write_csv


def png_size(path: Path) -> tuple[int, int]:
    """Return width and height of a PNG after checking every chunk and decoding its pixels."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    position, pixels, size = 8, b"", (0, 0)
    while position < len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        body = data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack(">I", data[position + 8 + length : position + 12 + length])
        assert zlib.crc32(kind + body) == checksum
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        elif kind == b"IDAT":
            pixels += body
        position += 12 + length
    assert len(zlib.decompress(pixels)) >= size[0] * size[1]
    return size


def test_one_environment_fits_a_column_at_print_resolution(
    tmp_path: Path, evaluations: list[EvaluationRow]
):
    figure, _ = plot_learning_curves(evaluations, tmp_path / "curve.png", title="hopper")
    assert png_size(figure) == (990, 840)  # 3.3 x 2.8 inches at 300 dots


def test_several_environments_take_the_page(tmp_path: Path, evaluations: list[EvaluationRow]):
    rows = [replace(row, environment=name) for name in ("a", "b") for row in evaluations]
    figure, _ = plot_learning_curves(rows, tmp_path / "curve.png", title="both")
    assert png_size(figure)[0] == 2070  # 6.9 inches at 300 dots


def test_learning_curves_come_with_their_data(tmp_path: Path, evaluations: list[EvaluationRow]):
    paths = plot_learning_curves(evaluations, tmp_path / "new" / "curve.svg", title="hopper")
    assert paths == (tmp_path / "new" / "curve.svg", tmp_path / "new" / "curve.csv")
    write_csv(evaluations, tmp_path / "expected.csv")
    assert paths[1].read_bytes() == (tmp_path / "expected.csv").read_bytes()


def test_svg_names_rules_seeds_and_band(tmp_path: Path, evaluations: list[EvaluationRow]):
    rows = [row for row in evaluations if row.rule == "learned" or row.seed == 0]
    figure, _ = plot_learning_curves(rows, tmp_path / "curve.svg", title="Never seen: a & b")
    text = figure.read_text(encoding="utf-8")
    for expected in (
        "Never seen: a &amp; b",
        "learned (2 seeds)",
        "ddpg (1 seed)",
        "Bands: min–max. Thin: single seeds.",
        "evaluation return",
        "env steps",
        "#0072b2",
        "#d55e00",
    ):
        assert expected in text


def test_axis_reaches_to_the_last_evaluation(tmp_path: Path, evaluations: list[EvaluationRow]):
    figure, _ = plot_learning_curves(evaluations, tmp_path / "curve.svg", title="hopper")
    text = figure.read_text(encoding="utf-8")
    assert ">30k<" in text
    assert ">40k<" not in text


def test_single_evaluation_is_drawn_as_a_dot(tmp_path: Path, evaluations: list[EvaluationRow]):
    one, _ = plot_learning_curves(evaluations[:1], tmp_path / "one.svg", title="x")
    two, _ = plot_learning_curves(evaluations[:2], tmp_path / "two.svg", title="x")
    # matplotlib defines markers once and places them by <use>, inside a group with a clip path.
    marker = '<g clip-path="url(#'
    assert marker in one.read_text(encoding="utf-8")
    assert marker not in two.read_text(encoding="utf-8")


def test_same_rows_give_the_same_bytes(tmp_path: Path, evaluations: list[EvaluationRow]):
    for suffix in (".png", ".svg"):
        first, _ = plot_learning_curves(evaluations, tmp_path / f"a{suffix}", title="x")
        second, _ = plot_learning_curves(evaluations[::-1], tmp_path / f"b{suffix}", title="x")
        assert first.read_bytes() == second.read_bytes()


def test_nothing_to_plot_is_a_usage_error(tmp_path: Path):
    with pytest.raises(UsageError, match="Nothing to plot"):
        plot_learning_curves([], tmp_path / "curve.png", title="x")
    with pytest.raises(UsageError, match="Nothing to plot"):
        plot_meta_training([], tmp_path / "curve.png")


def test_other_suffix_is_refused_before_anything_is_written(
    tmp_path: Path, evaluations: list[EvaluationRow]
):
    with pytest.raises(UsageError, match=r"got '\.pdf'"):
        plot_learning_curves(evaluations, tmp_path / "curve.pdf", title="x")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place_is_a_storage_error(tmp_path: Path, evaluations: list[EvaluationRow]):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="Cannot write"):
        plot_learning_curves(evaluations, tmp_path / "file" / "curve.png", title="x")


def test_meta_training_comes_with_its_data(tmp_path: Path, population: list[PopulationRow]):
    figure, data = plot_meta_training(population, tmp_path / "run.png")
    assert png_size(figure) == (2070, 1800)
    write_csv(population, tmp_path / "expected.csv")
    assert data.read_bytes() == (tmp_path / "expected.csv").read_bytes()


def test_training_returns_can_be_drawn_instead(tmp_path: Path, evaluations: list[EvaluationRow]):
    shifted = [replace(row, evaluation_return=row.evaluation_return + 1e6) for row in evaluations]
    drawn = []
    for name, rows in (("a", evaluations), ("b", shifted)):
        path = tmp_path / f"{name}.svg"
        figure, _ = plot_learning_curves(rows, path, title="x", metric="training")
        drawn.append(figure.read_bytes())
    assert drawn[0] == drawn[1]
    assert b"training return" in drawn[0]


@pytest.mark.parametrize(
    ("num_rules", "caption"),
    [
        (5, "Bands: min–max. Thin: single seeds."),
        (8, "Bands: min–max."),
        (20, "Lines: mean over seeds."),
    ],
)
def test_of_many_rules_less_is_drawn_and_the_caption_says_what(
    tmp_path: Path, evaluations: list[EvaluationRow], num_rules: int, caption: str
):
    rows = [
        replace(row, rule=f"run-{number}:{row.rule}")
        for number in range(num_rules)
        for row in evaluations
        if row.rule == "learned"
    ]
    figure, _ = plot_learning_curves(rows, tmp_path / "curve.svg", title="x")
    text = figure.read_text(encoding="utf-8")
    assert f"{caption}</text>" in text
    for number in range(num_rules):
        assert f"run-{number}:learned (2 seeds)" in text


def test_a_long_legend_makes_the_figure_higher_and_not_the_panels_smaller(
    tmp_path: Path, evaluations: list[EvaluationRow]
):
    rows = [
        replace(row, rule=f"a run with quite a long name {number}")
        for number in range(20)
        for row in evaluations
    ]
    figure, _ = plot_learning_curves(rows, tmp_path / "curve.png", title="x")
    width, height = png_size(figure)
    assert width == 2070
    assert height > 840 + 200


def test_seeds_are_counted_within_an_environment(tmp_path: Path, evaluations: list[EvaluationRow]):
    rows = [
        *evaluations,
        *(replace(row, environment="lunar") for row in evaluations if row.seed == 0),
    ]
    figure, _ = plot_learning_curves(rows, tmp_path / "curve.svg", title="x")
    assert "ddpg (1–2 seeds)" in figure.read_text(encoding="utf-8")


def test_runs_that_share_objectives_are_not_called_seeds(
    tmp_path: Path, evaluations: list[EvaluationRow]
):
    objectives = {("learned", "hopper"): 2, ("ddpg", "hopper"): 0}
    figure, _ = plot_learning_curves(
        evaluations, tmp_path / "curve.svg", title="x", objectives=objectives
    )
    text = figure.read_text(encoding="utf-8")
    assert "learned (2 runs of 2 objectives)" in text
    assert "ddpg (2 seeds)" in text
    assert "Lines: mean over runs." in text
    assert "Thin: single runs." in text
