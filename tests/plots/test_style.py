import itertools
import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mgrl_cli.config import RULES
from mgrl_cli.errors import UsageError
from mgrl_cli.plots.drawing import LegendEntry, add_legend
from mgrl_cli.plots.style import (
    RULE_LOOKS,
    check_figure_path,
    environment_colors,
    line_looks,
    new_figure,
    save_figure,
    style_axes,
)


def test_known_looks_never_change():
    assert {
        rule: look.color for rule, look in line_looks(["untrained", "learned", "x"]).items()
    } == {
        "learned": "#0072B2",
        "untrained": "#7A7A7A",
        "x": "#D55E00",
    }
    assert environment_colors(["hopper", "lunar", "cheetah"]) == {
        "lunar": "#4477AA",
        "cheetah": "#EE6677",
        "hopper": "#228833",
    }


def test_every_rule_has_a_look_of_its_own():
    assert tuple(RULE_LOOKS) == RULES
    looks = line_looks(RULES)
    assert looks == RULE_LOOKS
    assert len({look.color for look in looks.values()}) == len(RULES)
    assert len({look.dash for look in looks.values()}) == len(RULES)
    assert looks["learned"].dash == "-"


def as_seen(color: str, matrix: list[list[float]]) -> np.ndarray:
    """L*a*b* of a colour as an eye of this kind sees it (Machado et al. 2009, severity 1)."""
    srgb = np.array(to_rgb(color))
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(matrix) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    relative = np.array(to_xyz) @ seen / [0.9505, 1.0, 1.089]
    f = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


EYES = {
    "usual": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


@pytest.mark.parametrize("eye", EYES)
def test_rules_are_told_apart_by_colour_blind_readers(eye: str):
    seen = {rule: as_seen(look.color, EYES[eye]) for rule, look in RULE_LOOKS.items()}
    for first, second in itertools.combinations(seen, 2):
        # A difference of 2 is just noticed side by side; lines lie apart.
        assert np.linalg.norm(seen[first] - seen[second]) > 10, (first, second)


def test_other_labels_are_in_natural_order():
    names = [f"run-s{number}:learned" for number in range(12)]
    assert list(line_looks(reversed(names))) == names


def test_labels_are_told_apart_by_colour_and_dashes_together():
    names = [f"run {index}:learned" for index in range(40)]
    assert len(set(line_looks(names).values())) == 40
    assert len(set(line_looks([*RULES[:5], *names[:15]]).values())) == 20


def test_looks_do_not_depend_on_order_or_repetition():
    names = ["b", "ddpg", "a", "learned"]
    assert list(line_looks(names).items()) == list(line_looks([*reversed(names), "a"]).items())
    assert list(line_looks(names)) == ["learned", "ddpg", "a", "b"]


def test_colours_do_not_depend_on_order_or_repetition():
    names = ["b", "lunar", "a", "c"]
    assert environment_colors(names) == environment_colors([*reversed(names), "a"])


def test_unknown_name_keeps_its_colour_beside_known_ones():
    alone = environment_colors(["Pendulum-v1"])["Pendulum-v1"]
    assert environment_colors(["Pendulum-v1", "lunar", "hopper"])["Pendulum-v1"] == alone


def test_colours_are_distinct_within_a_figure():
    environments = ["lunar", "cheetah", "hopper", *(f"mgrl/Task{index}-v0" for index in range(10))]
    assert len(set(environment_colors(environments).values())) == 13


def test_more_names_than_colours_still_get_one():
    names = [f"task-{index}" for index in range(40)]
    assert set(environment_colors(names)) == set(names)


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
        add_legend(figure, [LegendEntry(f"label {name}", "#000000")], title=name)
        save_figure(figure, path)
    drawn = re.findall(r"<text [^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))
    assert drawn.count(name) == 2
    assert f"label {name}" in drawn
