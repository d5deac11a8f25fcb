import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest

from mgrl_cli.errors import UsageError
from mgrl_cli.plots.drawing import LegendEntry, add_legend
from mgrl_cli.plots.style import (
    check_figure_path,
    environment_colors,
    new_figure,
    rule_colors,
    rule_dash,
    save_figure,
    style_axes,
)


def test_known_colours_never_change():
    assert rule_colors(["untrained", "learned", "reinforce", "ddpg"]) == {
        "learned": "#0072B2",
        "ddpg": "#D55E00",
        "reinforce": "#009E73",
        "untrained": "#7A7A7A",
    }
    assert environment_colors(["hopper", "lunar", "cheetah"]) == {
        "lunar": "#4477AA",
        "cheetah": "#EE6677",
        "hopper": "#228833",
    }


def test_colours_do_not_depend_on_order_or_repetition():
    names = ["b", "lunar", "a", "c"]
    assert environment_colors(names) == environment_colors([*reversed(names), "a"])


def test_unknown_name_keeps_its_colour_beside_known_ones():
    alone = environment_colors(["Pendulum-v1"])["Pendulum-v1"]
    assert environment_colors(["Pendulum-v1", "lunar", "hopper"])["Pendulum-v1"] == alone


def test_colours_are_distinct_within_a_figure():
    environments = ["lunar", "cheetah", "hopper", *(f"mgrl/Task{index}-v0" for index in range(10))]
    assert len(set(environment_colors(environments).values())) == 13
    assert len(set(rule_colors(["learned", "ddpg", "td3", "ppo", "rl2", "epg"]).values())) == 6


def test_more_names_than_colours_still_get_one():
    names = [f"task-{index}" for index in range(40)]
    assert set(environment_colors(names)) == set(names)


def test_rules_differ_by_dashes_too():
    dashes = [rule_dash(rule) for rule in ("learned", "ddpg", "reinforce", "untrained")]
    assert len(set(dashes)) == 4
    assert rule_dash("learned") == "-"


@pytest.mark.parametrize("name", ["curve.pdf", "curve", "curve.png.gz"])
def test_other_formats_are_refused(name: str):
    with pytest.raises(UsageError, match=r"expected \.png or \.svg"):
        check_figure_path(Path(name))


def test_look_does_not_leak_out():
    before = dict(mpl.rcParams)
    with new_figure(3.0, 2.0):
        pass
    assert dict(mpl.rcParams) == before


def test_missing_matplotlib_is_a_usage_error():
    code = (
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "from mgrl_cli.errors import UsageError\n"
        "from mgrl_cli.plots.curves import plot_learning_curves\n"
        "from mgrl_cli.plots.style import new_figure\n"
        "try:\n"
        "    new_figure(1.0, 1.0).__enter__()\n"
        "except UsageError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "pip install 'mgrl[plot]'" in result.stdout


def test_pyplot_is_never_loaded(tmp_path: Path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mgrl_cli.plots.curves import plot_learning_curves\n"
        "from mgrl_cli.plots.data import EvaluationRow\n"
        "row = EvaluationRow(rule='learned', environment='hopper', seed=0, env_steps=10,\n"
        "                    evaluation_return=1.0, training_return=1.0)\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"plot_learning_curves([row], Path({str(tmp_path / 'one.svg')!r}), title='one')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", ["$x_$", r"$\x$", r"\$x_\$", "a$b", "$$", "_$^$"])
def test_names_are_drawn_as_they_are_and_never_read_as_formulas(tmp_path: Path, name: str) -> None:
    path = tmp_path / "figure.svg"
    with new_figure(3, 2) as figure:
        style_axes(figure.add_subplot(), title=name)
        add_legend(figure, [LegendEntry(f"label {name}", "#000000")], num_columns=1, title=name)
        save_figure(figure, path)
    drawn = re.findall(r"<text [^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))
    assert drawn.count(name) == 2
    assert f"label {name}" in drawn
