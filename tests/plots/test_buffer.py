import csv
import math
from pathlib import Path

import pytest

from mgrl_cli.errors import UsageError
from mgrl_cli.plots.buffer import Bars, ObsRange, ReplayColumns, plot_buffer

AGENT = ReplayColumns(
    agent="agent-000",
    environment="hopper",
    env_steps=[10.0, 30.0, 40.0],
    returns=[1.5, math.nan, 2.5],
    reward=Bars(0.0, 1.0, (3, 1)),
    action=Bars(-1.0, 1.0, (0, 4)),
    obs=[ObsRange(0.5, 0.25, 0.0, 1.0), ObsRange(-2.0, 0.0, -2.0, -2.0)],
)
EMPTY = ReplayColumns(
    agent="agent-001",
    environment="cheetah",
    env_steps=[],
    returns=[],
    reward=Bars(math.nan, math.nan, ()),
    action=Bars(-1.0, 1.0, ()),
    obs=[ObsRange(math.nan, math.nan, math.nan, math.nan)],
)


def test_every_environment_has_a_line_of_panels(tmp_path: Path) -> None:
    figure, _ = plot_buffer([AGENT, AGENT._replace(environment="x")], tmp_path / "b.svg")
    text = figure.read_text(encoding="utf-8")
    for expected in (">hopper<", ">x<", "env steps", ">reward<", ">action<",
                     "observation dimension", "#228833"):  # fmt: skip
        assert expected in text


def test_a_name_that_would_be_a_broken_formula_is_drawn(tmp_path: Path) -> None:
    figure, _ = plot_buffer([AGENT._replace(environment="$x_$")], tmp_path / "b.svg")
    assert ">$x_$<" in figure.read_text(encoding="utf-8")


def test_what_is_drawn_lies_beside_the_figure(tmp_path: Path) -> None:
    paths = plot_buffer([AGENT], tmp_path / "new" / "b.png")
    assert paths == (tmp_path / "new" / "b.png", tmp_path / "new" / "b.csv")
    assert paths[0].read_bytes()[:4] == b"\x89PNG"
    with paths[1].open(encoding="utf-8") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    who = ("agent-000", "hopper")
    assert rows == [
        ("return", *who, "10.0", "1.5", "", ""),
        ("return", *who, "40.0", "2.5", "", ""),
        ("reward", *who, "0.25", "0.75", "0.0", "0.5"),
        ("reward", *who, "0.75", "0.25", "0.5", "1.0"),
        ("action", *who, "-0.5", "0.0", "-1.0", "0.0"),
        ("action", *who, "0.5", "1.0", "0.0", "1.0"),
        ("observation", *who, "0", "0.5", "0.0", "1.0"),
        ("observation", *who, "1", "-2.0", "-2.0", "-2.0"),
    ]


def test_an_agent_without_episodes_leaves_its_panels_empty(tmp_path: Path) -> None:
    _, data = plot_buffer([AGENT, EMPTY], tmp_path / "b.svg")
    assert [line for line in data.read_text().splitlines() if "agent-001" in line] == [
        "observation,agent-001,cheetah,0,,,"
    ]


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        plot_buffer([AGENT], tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_nothing_to_plot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no episodes"):
        plot_buffer([EMPTY], tmp_path / "b.png")
    assert list(tmp_path.iterdir()) == []


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected \.png or \.svg"):
        plot_buffer([AGENT], tmp_path / "b.pdf")
