import io
import math
import os
from dataclasses import replace

from mgrl_cli.telemetry import (
    AgentState,
    ObjectiveSnapshot,
    RunSnapshot,
    ValidationSnapshot,
)
from mgrl_cli.ui.plain import PlainProgress, round_line


def test_line_tells_the_round_in_ascii(meta_train: RunSnapshot):
    assert round_line(meta_train) == (
        "round 12/30 (23%)  env steps 13,800  lunar -172  cheetah -  gain +0.00130  "
        "812 agent-steps/s  ETA 1:02:03"
    )
    assert round_line(meta_train).isascii()


def test_one_line_per_round(meta_train: RunSnapshot):
    stream = io.StringIO()
    progress = PlainProgress(stream)
    for round_index in (0, 0, 1, 1, 1, 3, 2):
        progress.update(replace(meta_train, round_index=round_index))
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["1/30", "3/30"]


def test_rounds_that_end_again_are_told_again(meta_train: RunSnapshot):
    stream = io.StringIO()
    progress = PlainProgress(stream)
    for round_index in (1, 2, 3, 3, 1, 1, 2, 3, 4):
        progress.update(replace(meta_train, round_index=round_index))
    told = [int(line.split()[1].removesuffix("/30")) for line in stream.getvalue().splitlines()]
    assert told == [1, 2, 3, 2, 3, 4]


def test_no_escape_codes(meta_train: RunSnapshot):
    stream = io.StringIO()
    PlainProgress(stream).update(meta_train)
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


def test_meta_test_line_compares_rules_and_has_no_gain(meta_test: RunSnapshot):
    line = round_line(meta_test)
    assert "hopper/learned 150  hopper/reinforce 151" in line
    assert "gain" not in line


def test_unknown_gain_and_time_are_dashes(meta_train: RunSnapshot):
    objective = ObjectiveSnapshot(
        version=0, parameter_norm=1.0, gradient_norm=math.nan, gain=math.nan
    )
    line = round_line(replace(meta_train, objective=objective, eta_s=math.nan))
    assert "gain -  " in line
    assert line.endswith("ETA -")


def test_quarantined_agents_are_told(meta_train: RunSnapshot):
    lost = replace(meta_train.agents[1], state=AgentState.QUARANTINED)
    line = round_line(replace(meta_train, agents=(meta_train.agents[0], lost)))
    assert line.endswith("1 quarantined")


def test_restarts_are_told_once_there_are_any(meta_train: RunSnapshot):
    assert "restart" not in round_line(meta_train)
    assert round_line(replace(meta_train, restarts=1)).endswith("  1 restart")
    lost = replace(meta_train.agents[1], state=AgentState.QUARANTINED)
    agents = (meta_train.agents[0], lost)
    line = round_line(replace(meta_train, restarts=4, agents=agents))
    assert line.endswith("  4 restarts  1 quarantined")


def test_event_is_one_line_of_ascii():
    stream = io.StringIO()
    PlainProgress(stream).announce("agent-003 left:\r\n\x1b[2J 5 °C\udc80 日")
    assert stream.getvalue() == "mgrl: agent-003 left: \\x1b[2J 5 \\xb0C\\udc80 \\u65e5\n"


def test_event_is_told_before_any_round():
    stream = io.StringIO()
    PlainProgress(stream).announce("worker 1 hung")
    assert stream.getvalue() == "mgrl: worker 1 hung\n"


def test_closed_pipe_does_not_raise(meta_train: RunSnapshot):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        progress = PlainProgress(stream)
        for round_index in (1, 2, 3):
            progress.update(replace(meta_train, round_index=round_index))
            progress.announce("worker 1 hung")


def test_rounds_that_had_ended_before_a_run_was_continued_are_not_written_again(
    meta_train: RunSnapshot,
) -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, rounds_before=4)
    for round_index in (4, 4, 5):
        progress.update(replace(meta_train, round_index=round_index))
    assert [line.split("/")[0] for line in stream.getvalue().splitlines()] == ["round 5"]


def test_a_line_names_the_newest_validation_and_the_best(meta_train: RunSnapshot):
    validation = ValidationSnapshot(
        round_index=10,
        scores={"hopper": 12.34},
        best_round=5,
        best_scores={"hopper": 56.78},
        testing_round=0,
        fraction=1.0,
    )
    line = round_line(replace(meta_train, validation=validation))
    assert "  validation 10: hopper 12.3 (best 5)  " in line
    none_yet = replace(validation, round_index=0, scores={}, best_round=0, best_scores={})
    assert "validation" not in round_line(replace(meta_train, validation=none_yet))
