import io
import json
import math
import os
from dataclasses import replace

from mgrl_cli.telemetry import RunSnapshot
from mgrl_cli.ui.json_lines import JsonLinesProgress, round_record


def test_each_round_is_one_json_object(meta_train: RunSnapshot):
    stream = io.StringIO()
    progress = JsonLinesProgress(stream)
    for round_index in (0, 1, 1, 2):
        progress.update(replace(meta_train, round_index=round_index))
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [record["round_index"] for record in records] == [1, 2]


def test_rounds_that_end_again_are_written_again(meta_train: RunSnapshot):
    stream = io.StringIO()
    progress = JsonLinesProgress(stream)
    for round_index, restarts in ((1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (2, 1), (3, 1), (4, 1)):
        progress.update(replace(meta_train, round_index=round_index, restarts=restarts))
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(record["round_index"], record["restarts"]) for record in records] == [
        (1, 0),
        (2, 0),
        (3, 0),
        (2, 1),
        (3, 1),
        (4, 1),
    ]


def test_event_is_one_object_that_holds_the_whole_text():
    event = 'agent-003 left:\n"\x1b[2J" \u2028 日 ' + "x" * 5000
    stream = io.StringIO()
    JsonLinesProgress(stream).announce(event)
    (line,) = stream.getvalue().splitlines()
    assert line.isascii()
    assert "\x1b" not in line
    assert json.loads(line) == {"event": event}


def test_half_a_surrogate_pair_is_spelled_out():
    stream = io.StringIO()
    JsonLinesProgress(stream).announce("no file 'a\udc80'")
    assert json.loads(stream.getvalue()) == {"event": "no file 'a\\udc80'"}


def test_record_holds_the_snapshot(meta_train: RunSnapshot):
    record = json.loads(json.dumps(round_record(meta_train), allow_nan=False))
    assert record["kind"] == "meta-train"
    assert record["objective"] == {
        "version": 2450,
        "parameter_norm": 12.81,
        "gradient_norm": 0.123,
        "gain": 0.0013,
    }
    assert record["agents"][0]["mean_return"] == -171.6
    assert record["agents"][0]["state"] == "learning"
    assert "returns" not in record["agents"][0]


def test_figures_that_are_not_finite_are_null(meta_train: RunSnapshot):
    record = round_record(replace(meta_train, eta_s=math.inf))
    assert record["eta_s"] is None
    text = json.dumps(record, allow_nan=False)
    agent = json.loads(text)["agents"][1]
    assert agent["mean_return"] is None
    assert agent["critic_loss"] is None


def test_frozen_objective_is_null(meta_test: RunSnapshot):
    assert round_record(meta_test)["objective"] is None


def test_closed_pipe_does_not_raise(meta_train: RunSnapshot):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        progress = JsonLinesProgress(stream)
        for round_index in (1, 2, 3):
            progress.update(replace(meta_train, round_index=round_index))
            progress.announce("worker 1 hung")
