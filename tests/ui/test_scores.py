"""The table of final scores: every figure is in it, and it fits the console."""

import math

import pytest
from rich.console import Console

from mgrl_cli.run_dir.scores import ScoreReport, SeedScore, rule_scores
from mgrl_cli.ui.scores import score_lines, score_text

RULES = (
    *("learned", "ddpg", "td3", "reinforce", "reinforce-is", "reinforce-is-clipped", "vpg", "ppo"),
    "untrained",
)


def report_of(
    scores: dict[str, list[float]],
    *,
    stuck_below: float | None = None,
    remarks: tuple[str, ...] = (),
) -> ScoreReport:
    seeds = tuple(
        SeedScore(rule=rule, seed=seed, env_steps=100, score=score, training_return=score / 2)
        for rule, values in scores.items()
        for seed, score in enumerate(values)
    )
    rules = tuple(rule_scores(seeds, root_seed=0, stuck_below=stuck_below))
    return ScoreReport(
        run="tested", rules=rules, seeds=seeds, stuck_below=stuck_below, remarks=remarks
    )


def printed(report: ScoreReport, width: int) -> list[str]:
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        for line in score_lines(report, width):
            console.print(line)
    return capture.get().splitlines()


def test_a_rule_is_one_line_of_seeds_and_one_of_figures_on_a_wide_console() -> None:
    lines = printed(report_of({"learned": [1.0, 2.0, 6.0], "ddpg": [3.0, 3.0, 3.0]}), 120)
    seeds, figures = (line.split() for line in lines if line.startswith("ddpg"))
    assert seeds == ["ddpg", "3.0", "3.0", "3.0"]
    # Of the nine pairs the first rule wins three: those of its 6.0.
    assert figures[:7] == ["ddpg", "3.0", "±", "0.0", "3.0", "[3.0,", "3.0]"]
    assert figures[7] == "0.33"
    assert figures[-1] == "1.5"  # training return


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("seeds", [1, 3, 20])
def test_nine_rules_fit_whole(width: int, seeds: int) -> None:
    scores = {
        rule: [-12_345.6 * (number + 1) + 100 * seed for seed in range(seeds)]
        for number, rule in enumerate(RULES)
    }
    report = report_of(scores, stuck_below=-50_000.0, remarks=("of few seeds",))
    lines = printed(report, width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    assert "…" not in text
    assert "of few seeds" in text
    for rule in RULES:
        assert rule in text
    for seed in range(seeds):
        assert f"seed {seed}" in text
    for score in report.seeds:
        assert score_text(score.score) in text


def test_many_seeds_take_several_tables() -> None:
    lines = printed(report_of({"learned": [float(seed) for seed in range(20)]}), 80)
    assert sum(line.strip().startswith("rule") for line in lines) > 2


def test_seeds_are_counted_where_rules_differ() -> None:
    lines = printed(report_of({"learned": [1.0, 2.0], "ddpg": [3.0]}), 120)
    ddpg = [line.split() for line in lines if line.startswith("ddpg")]
    assert ddpg[0] == ["ddpg", "3.0", "–"]
    assert ddpg[1][:4] == ["ddpg", "1", "3.0", "3.0"]  # one seed: neither deviation nor interval


def test_stuck_runs_stand_beside_where_a_floor_was_given() -> None:
    report = report_of({"learned": [-5.0, 2.0], "ddpg": [3.0, 4.0]}, stuck_below=0.0)
    lines = printed(report, 120)
    assert any("below 0.0" in line for line in lines)
    assert any("learned" in line and line.rstrip().endswith("1 of 2") for line in lines)


def test_names_from_a_run_cannot_steer_the_terminal() -> None:
    text = "\n".join(printed(report_of({"a\x1b[2Jb": [1.0], "[bold]x": [2.0]}), 120))
    assert "\x1b" not in text
    assert "[bold]x" in text


@pytest.mark.parametrize(
    ("score", "text"),
    [
        *((0.0, "0.0"), (-12.34, "-12.3"), (99_999.94, "99999.9"), (123_456.0, "123.5k")),
        *((math.nan, "–"), (-4.56e6, "-4.6M")),
    ],
)
def test_scores_have_one_decimal_unless_huge(score: float, text: str) -> None:
    assert score_text(score) == text
