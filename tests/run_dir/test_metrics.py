"""Metrics: one JSON line per agent and round, read back row by row."""

import json
import math
from pathlib import Path

import pytest

from mgrl_cli.errors import FileError
from mgrl_cli.run_dir.metrics import (
    EvaluationRow,
    Record,
    evaluation_rows,
    population_rows,
    read_agent_metrics,
)


@pytest.fixture
def record() -> Record:
    """One line of a metrics file."""
    return {
        "agent_id": 3,
        "environment": "hopper",
        "rule": "ddpg",
        "seed": 1,
        "round": 7,
        "life": 0,
        "env_steps": 7_021,
        "updates": 5_021,
        "episodes": 80,
        "mean_return": 231.5,
        "critic_loss": 0.7,
        "policy_loss": -3.0,
        "gain": None,
        "cosine": None,
        "inner_gradient_norm": 2.5,
        "meta_gradient_norm": None,
        "action_slack": 0.4,
        "annealing": 1.0,
        "evaluation": 250,
        "elapsed_s": 12.5,
    }


def write_lines(path: Path, *lines: str) -> None:
    path.write_text("".join(lines), encoding="utf-8")


def test_files_are_read_by_agent_in_order(tmp_path: Path):
    write_lines(tmp_path / "agent-001.jsonl", '{"agent_id": 1, "round": 1}\n')
    write_lines(tmp_path / "agent-000.jsonl", '{"agent_id": 0}\n', '{"agent_id": 0, "round": 2}\n')
    write_lines(tmp_path / "population.jsonl", '{"round": 1}\n')
    assert read_agent_metrics(tmp_path) == [
        {"agent_id": 0},
        {"agent_id": 0, "round": 2},
        {"agent_id": 1, "round": 1},
    ]


@pytest.mark.parametrize("torn", ['{"agent_id": 0, "rou', '{"agent_id": 0}', "\xff"])
def test_last_line_without_newline_is_ignored(tmp_path: Path, torn: str):
    path = tmp_path / "agent-000.jsonl"
    path.write_bytes(b'{"agent_id": 0}\n' + torn.encode("latin-1"))
    assert read_agent_metrics(tmp_path) == [{"agent_id": 0}]


def test_empty_file_has_no_records(tmp_path: Path):
    write_lines(tmp_path / "agent-000.jsonl")
    assert read_agent_metrics(tmp_path) == []


@pytest.mark.parametrize("bad", [b'{"agent_id": 0', b"", b"[1, 2]", b"\xff\xfe", b"[" * 100_000])
def test_bad_line_is_named(tmp_path: Path, bad: bytes):
    path = tmp_path / "agent-002.jsonl"
    path.write_bytes(b'{"agent_id": 2}\n' + bad + b'\n{"agent_id": 2}\n')
    with pytest.raises(FileError, match=r"agent-002\.jsonl, line 2: ") as caught:
        read_agent_metrics(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


def test_directory_without_metrics_is_refused(tmp_path: Path):
    with pytest.raises(FileError, match=r"got no agent-NNN\.jsonl"):
        read_agent_metrics(tmp_path)
    with pytest.raises(FileError, match=r"got no agent-NNN\.jsonl"):
        read_agent_metrics(tmp_path / "absent")


def test_evaluation_rows_are_the_rounds_with_an_evaluation(record: Record):
    rows = evaluation_rows([{**record, "evaluation": None}, record])
    assert rows == [
        EvaluationRow(
            rule="ddpg",
            environment="hopper",
            seed=1,
            env_steps=7_021,
            evaluation_return=250.0,
            training_return=231.5,
        )
    ]


def test_population_rows_keep_every_round_and_turn_null_into_nan(record: Record):
    (row, other) = population_rows([record, {**record, "mean_return": None, "gain": 0.25}])
    assert row.agent_id == 3
    assert row.evaluation_return == 250.0
    assert row.inner_gradient_norm == 2.5
    assert math.isnan(row.gain)
    assert math.isnan(other.mean_return)
    assert other.gain == 0.25


def test_missing_key_is_named(record: Record):
    del record["action_slack"]
    with pytest.raises(FileError, match="agent 3, round 7 lack 'action_slack'"):
        population_rows([record])


@pytest.mark.parametrize(
    ("key", "value"),
    [("gain", "high"), ("gain", True), ("env_steps", 1.5), ("seed", None), ("rule", 3)],
)
def test_value_of_the_wrong_kind_is_named(record: Record, key: str, value: object):
    rows_of = population_rows if key in {"gain", "env_steps"} else evaluation_rows
    with pytest.raises(FileError, match=f"agent 3, round 7: got .* as '{key}'"):
        rows_of([{**record, key: value}])


def test_rows_of_a_metrics_file_from_end_to_end(tmp_path: Path, record: Record):
    write_lines(tmp_path / "agent-003.jsonl", json.dumps(record) + "\n", '{"torn')
    assert [row.env_steps for row in evaluation_rows(read_agent_metrics(tmp_path))] == [7_021]
