import csv
import math
import re
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb

from mgrl_cli.errors import UsageError
from mgrl_cli.plots.heat_map import HeatCell, plot_heat_map
from tests.plots.test_curves import png_size

CELLS = [
    HeatCell("lunar & cheetah", "hopper", 283.4, 119.0, 3),
    HeatCell("lunar & cheetah", "lunar", -120.0, 12.0, 3),
    HeatCell("ppo", "hopper", 1024.0, math.nan, 1),
    HeatCell("ppo", "lunar", math.nan, math.nan, 3),
    HeatCell("ddpg", "hopper", 17.0, 0.5, 3),
]


def drawn_texts(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [word.replace("−", "-") for word in re.findall(r"<text [^>]*>([^<]*)</text>", text)]


def contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """WCAG 2.1's ratio of two sRGB colours."""

    def luminance(color: tuple[float, ...]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted([luminance(first), luminance(second)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_every_cell_shows_its_numbers(tmp_path: Path) -> None:
    figure, _ = plot_heat_map(CELLS, tmp_path / "map.svg", title="Table 1")
    texts = drawn_texts(figure)
    for expected in ("283 ± 119", "-120 ± 12.0", "1,024", "no result", "17.0 ± 0.5", "Table 1"):
        assert expected in texts
    assert {"lunar &amp; cheetah", "ppo", "ddpg", "hopper", "lunar"} <= set(texts)


def test_columns_are_shaded_each_on_its_own_scale(tmp_path: Path) -> None:
    scaled = [
        cell._replace(mean=cell.mean * 1000 + 5) if cell.column == "lunar" else cell
        for cell in [*CELLS, HeatCell("ddpg", "lunar", 40.0, 1.0, 3)]
    ]
    plain = [*CELLS, HeatCell("ddpg", "lunar", 40.0, 1.0, 3)]
    colors = []
    for name, cells in (("a", plain), ("b", scaled)):
        figure, _ = plot_heat_map(cells, tmp_path / f"{name}.svg", title="x")
        colors.append(re.findall(r"fill: (#[0-9a-f]{6})", figure.read_text(encoding="utf-8")))
    assert colors[0] == colors[1]


def test_text_can_be_read_on_every_shade(tmp_path: Path) -> None:
    cells = [HeatCell(f"row {shade}", "hopper", float(shade), 1.0, 3) for shade in range(32)]
    figure, _ = plot_heat_map(cells, tmp_path / "map.svg", title="x")
    svg = figure.read_text(encoding="utf-8")
    patches = re.findall(r'<g id="patch_\d+">\s*<path [^>]*style="fill: (#[0-9a-f]{6})"', svg)[-32:]
    texts = re.findall(r"<text style=\"([^\"]*)\"[^>]*>[\d.]+ ± 1.0</text>", svg)
    assert len(patches) == len(texts) == 32
    for patch, style in zip(patches, texts, strict=True):
        ink = "#ffffff" if "fill: #ffffff" in style else "#000000"
        assert contrast(to_rgb(patch), to_rgb(ink)) > 4.5


def test_cells_come_as_data_too(tmp_path: Path) -> None:
    _, data = plot_heat_map(CELLS, tmp_path / "map.png", title="x")
    with data.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["mean"] for row in rows] == ["283.4", "-120.0", "1024.0", "", "17.0"]
    assert list(rows[0]) == [
        "row",
        "column",
        "mean",
        "deviation",
        "runs",
        "objectives",
        "is_incomplete",
    ]


def test_a_small_map_fits_a_column_and_a_wide_one_the_page(tmp_path: Path) -> None:
    small, _ = plot_heat_map(CELLS[2:3], tmp_path / "small.png", title="x")
    wide = [HeatCell("r", f"environment {index}", float(index), 1.0, 3) for index in range(12)]
    page, _ = plot_heat_map(wide, tmp_path / "wide.png", title="x")
    assert (png_size(small)[0], png_size(page)[0]) == (990, 2070)


def test_awkward_cells_are_drawn(tmp_path: Path) -> None:
    cells = [
        HeatCell("$x_1$ " + "very " * 30, "only", -1e99, 1e99, 2),
        HeatCell("huge", "only", 1e99, math.nan, 1),
        HeatCell("nothing", "failed everywhere", math.nan, math.nan, 3),
    ]
    figure, _ = plot_heat_map(cells, tmp_path / "map.svg", title="long " * 60)
    texts = drawn_texts(figure)
    assert any(text.startswith("$x_1$ very") for text in texts)
    assert "no result" in texts


def test_caption_counts_the_runs_of_what_was_scored(tmp_path: Path) -> None:
    failed = HeatCell("td3", "lunar", math.nan, math.nan, 0)
    figure, _ = plot_heat_map([*CELLS, failed], tmp_path / "a.svg", title="x")
    assert "1–3 runs." in figure.read_text(encoding="utf-8")
    figure, _ = plot_heat_map([failed], tmp_path / "b.svg", title="x")
    assert "Nothing was scored." in figure.read_text(encoding="utf-8")


def test_runs_of_shared_objectives_are_told_and_incomplete_cells_marked(tmp_path: Path) -> None:
    cells = [
        HeatCell("learned: a", "hopper", 12.0, 1.0, 9, 3),
        HeatCell("learned: b", "hopper", 14.0, 1.0, 5, 2, is_incomplete=True),
        HeatCell("ddpg", "hopper", 13.0, 1.0, 3),
    ]
    figure, _ = plot_heat_map(cells, tmp_path / "map.svg", title="x")
    text = figure.read_text(encoding="utf-8")
    assert "3–9 runs, learned ones of 2–3 objectives." in text
    assert "† Some runs are missing or ended early." in text
    assert [word for word in drawn_texts(figure) if word.endswith("†")] == ["14.0 ± 1.0†"]
    figure, _ = plot_heat_map(cells[:1], tmp_path / "whole.svg", title="x")
    assert "†" not in figure.read_text(encoding="utf-8")


def test_same_cells_give_the_same_bytes(tmp_path: Path) -> None:
    first, _ = plot_heat_map(CELLS, tmp_path / "a.svg", title="x")
    second, _ = plot_heat_map(CELLS, tmp_path / "b.svg", title="x")
    assert first.read_bytes() == second.read_bytes()


def test_no_cells_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Nothing to plot"):
        plot_heat_map([], tmp_path / "map.png", title="x")
    with pytest.raises(UsageError, match=r"expected \.png or \.svg"):
        plot_heat_map(CELLS, tmp_path / "map.pdf", title="x")
    assert list(tmp_path.iterdir()) == []
