import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from mgrl_cli.telemetry import AgentState, RunSnapshot, ValidationSnapshot
from mgrl_cli.ui.columns import STATE_STYLES, choose_columns
from mgrl_cli.ui.panels import render_run


def render(snapshot: RunSnapshot, width: int, height: int | None = None) -> list[str]:
    console = Console(file=io.StringIO(), record=True, width=width, height=height or 200)
    console.print(render_run(snapshot, width=width, height=height))
    return console.export_text().splitlines()


def row(lines: list[str], first_cell: str) -> str:
    """Return the one line that starts with `first_cell`, runs of spaces closed up."""
    (line,) = [line for line in lines if line.split()[:1] == [first_cell]]
    return " ".join(line.split())


def test_wide_view_shows_every_figure_of_an_agent(meta_train: RunSnapshot):
    lines = render(meta_train, 120)
    assert row(lines, "#") == (
        "# environment env steps % episodes last mean eval returns critic loss meta-grad state"
    )
    assert row(lines, "0") == "0 lunar 12.3k 41% 68 -136 -172 -90.2 ▁▅█ 1.23 0.438 learning"


def test_very_wide_view_adds_bar_and_gain(meta_train: RunSnapshot):
    lines = render(meta_train, 160)
    assert "━━━┄┄┄┄┄" in row(lines, "0")
    assert "+0.00526" in row(lines, "0")


def test_unknown_figures_are_dashes(meta_train: RunSnapshot):
    lines = render(meta_train, 120)
    assert row(lines, "1") == "1 cheetah 1500 5% 0 – – – – – exploring"
    assert "nan" not in "\n".join(lines)


def test_objective_and_progress_are_shown(meta_train: RunSnapshot):
    text = "\n".join(render(meta_train, 120))
    assert "version 2,450   parameter norm 12.8   gradient norm 0.123   Q gain +0.00130" in text
    assert "23%  ETA 1:02:03" in text
    assert "round 12/30   env steps 13.8k/60.0k   agent-steps/s 812   elapsed 2:32" in text
    assert "saved round 10" in text
    assert "meta-train demo-1  lunar, cheetah" in text


def test_nothing_saved_yet_is_said(meta_train: RunSnapshot):
    assert "saved nothing yet" in "\n".join(render(replace(meta_train, saved_rounds=0), 120))


def test_eighty_columns_drop_the_least_important(meta_train: RunSnapshot):
    header = row(render(meta_train, 80), "#")
    assert header == "# environment % last mean eval returns meta-grad state"


def test_forty_columns_keep_what_matters(meta_train: RunSnapshot):
    lines = render(meta_train, 40)
    assert row(lines, "#") == "# environ… % mean state"
    assert row(lines, "0") == "0 lunar 41% -172 learning"
    assert "gradient norm 0.123" in "\n".join(lines)
    assert "ETA 1:02:03" in "\n".join(lines)


@pytest.mark.parametrize("width", [200, 120, 80, 60, 40, 20, 8])
def test_no_line_exceeds_the_width(crowd: RunSnapshot, meta_test: RunSnapshot, width: int):
    for snapshot in (crowd, meta_test):
        assert max(map(len, render(snapshot, width))) <= width


@pytest.mark.parametrize("height", [40, 24, 15, 12])
def test_crowd_stays_below_the_terminal_height(crowd: RunSnapshot, height: int):
    lines = render(crowd, 80, height)
    assert len(lines) < height
    assert "ETA 1:02:03" in "\n".join(lines)


def test_agents_beyond_the_height_are_summed_up(crowd: RunSnapshot):
    lines = render(crowd, 80, 24)
    num_shown = sum("lunar" in line for line in lines[1:])
    (rest,) = [line for line in lines if "more" in line]
    hidden = 24 - num_shown
    assert rest == f"… and {hidden} more: {hidden - 1} learning, 1 quarantined"


def test_all_agents_are_shown_where_they_just_fit(crowd: RunSnapshot):
    num_lines = len(render(crowd, 80))
    lines = render(crowd, 80, num_lines + 1)
    assert len(lines) == num_lines
    assert not any("more" in line for line in lines)


def test_meta_test_shows_rule_and_seed_but_no_meta_figures(meta_test: RunSnapshot):
    lines = render(meta_test, 140)
    text = "\n".join(lines)
    assert row(lines, "3").startswith("3 hopper reinforce 1 ")
    for absent in ("meta-grad", "Q gain", "objective", "version"):
        assert absent not in text


def test_narrow_meta_test_keeps_rule_seed_mean_and_state(meta_test: RunSnapshot):
    lines = render(meta_test, 40)
    assert row(lines, "3") == "3 reinforce 1 41% 201 learning"


def test_long_environment_names_are_cut(meta_train: RunSnapshot):
    named = replace(meta_train.agents[0], environment="InvertedDoublePendulum-v5")
    lines = render(replace(meta_train, agents=(named,)), 80)
    assert row(lines, "0").startswith("0 InvertedDo… ")


def test_columns_stay_in_place_while_figures_grow(meta_train: RunSnapshot):
    small, large = (
        replace(meta_train, agents=(replace(meta_train.agents[0], mean_return=mean),))
        for mean in (1.0, -999.0)
    )
    assert choose_columns(small, 100).widths == choose_columns(large, 100).widths


def test_every_state_has_its_own_colour(meta_train: RunSnapshot):
    assert set(STATE_STYLES) == set(AgentState)
    assert len(set(STATE_STYLES.values())) == len(AgentState)
    lost = replace(meta_train.agents[0], state=AgentState.QUARANTINED)
    chosen = choose_columns(meta_train, 80)
    assert chosen.cells(lost, meta_train)[-1].plain == "quarantined"
    assert "red" in str(chosen.cells(lost, meta_train)[-1].style)


def test_quarantined_agents_are_counted(crowd: RunSnapshot):
    assert "quarantined 1" in "\n".join(render(crowd, 120))


def test_restarts_are_shown_once_there_are_any(meta_train: RunSnapshot):
    assert "restarts" not in "\n".join(render(meta_train, 120))
    assert "restarts 2" in "\n".join(render(replace(meta_train, restarts=2), 120))


def test_figures_of_a_quarantined_agent_are_dimmed(crowd: RunSnapshot):
    chosen = choose_columns(crowd, 160)
    *figures, state = chosen.cells(crowd.agents[-1], crowd)
    assert {str(figure.style) for figure in figures} == {"dim"}
    assert state.style == STATE_STYLES[AgentState.QUARANTINED]
    assert state.plain == "quarantined"
    styles = {str(cell.style) for cell in chosen.cells(crowd.agents[0], crowd)}
    assert {"bold", "cyan", "green"} <= styles


def test_frame_with_restarts_and_quarantine_stays_below_a_low_terminal(crowd: RunSnapshot):
    for width in (40, 80):
        assert len(render(replace(crowd, restarts=12), width, 20)) < 20


def test_run_without_agents_renders(meta_train: RunSnapshot):
    assert "0%" in "\n".join(render(replace(meta_train, agents=()), 80, 24))


def test_markup_in_names_is_not_interpreted(meta_train: RunSnapshot):
    text = "\n".join(render(replace(meta_train, name="[red]run[/red]"), 120))
    assert "[red]run[/red]" in text


def test_validations_show_the_newest_the_best_and_the_one_in_progress(meta_train: RunSnapshot):
    validation = ValidationSnapshot(
        round_index=20,
        scores={"hopper": 12.34, "reacher": math.nan},
        best_round=10,
        best_scores={"hopper": 56.78, "reacher": -1.0},
        testing_round=30,
        fraction=0.25,
    )
    text = " ".join(" ".join(render(replace(meta_train, validation=validation), 100)).split())
    assert "testing round 30 (25%)" in text
    assert "newest round 20 hopper 12.3 reacher – best round 10 hopper 56.8 reacher -1.0" in text
    same = replace(validation, best_round=20, testing_round=0)
    text = " ".join(" ".join(render(replace(meta_train, validation=same), 100)).split())
    assert "best the same" in text
    assert "testing" not in text
