"""From rows to tables, by numbers worked out by hand."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest

from mgrl_cli.errors import FileError
from mgrl_cli.run_dir.evaluations import VERSIONS, Evaluation
from mgrl_cli.studies.report import csv_table, markdown_table, text_table
from mgrl_cli.studies.rows import StudyRow, read_rows, write_rows
from mgrl_cli.studies.table import cell_scores, labelled_rows, missing_places


def row(label: str, environment: str, seed: int, env_steps: int, value: float) -> StudyRow:
    is_learned = label.startswith("learned")
    evaluation = Evaluation(
        run="run",
        rule="learned" if is_learned else label,
        objective="ab" * 32 if is_learned else "",
        objective_environments="pendulum" if is_learned else "",
        environment=environment,
        environment_id=f"mgrl/{environment}-v0",
        seed=seed,
        env_steps=env_steps,
        evaluation_return=value,
        evaluation_episodes=10,
        training_return=math.nan,
        versions=dict.fromkeys(VERSIONS, "1.0"),
    )
    return StudyRow(
        row=label,
        training=label.partition(": ")[2],
        meta_seed=0 if is_learned else None,
        train_env_steps=300 if is_learned else 0,
        is_seen=is_learned and environment == "pendulum",
        stuck_below=None,
        evaluation=evaluation,
    )


def curve(label: str, environment: str, seed: int, *values: float) -> list[StudyRow]:
    return [row(label, environment, seed, 100 * (i + 1), v) for i, v in enumerate(values)]


ROWS = [
    *curve("learned: a", "pendulum", 0, 0.0, 10.0, 20.0, 30.0),
    *curve("learned: a", "pendulum", 1, 0.0, 40.0, 40.0, 40.0),
    *curve("learned: a", "reacher", 0, -3.0),
    *curve("ddpg", "pendulum", 0, 5.0),
    *curve("ddpg", "pendulum", 1, 5.0),
]


def test_a_cell_is_mean_and_deviation_of_the_last_three_evaluations() -> None:
    first, second, third = cell_scores(ROWS)
    assert first.scores == (20.0, 40.0)
    assert (first.mean, first.deviation) == (30.0, pytest.approx(math.sqrt(200)))
    assert (first.middle.value, first.middle.low, first.middle.high) == (30.0, 20.0, 40.0)
    assert (first.objectives, first.cut_short, first.stuck) == (1, 0, None)
    assert second.scores == (-3.0,)
    assert math.isnan(second.deviation)
    assert "1 seed" in second.remark
    assert third.scores == (5.0, 5.0)
    assert (third.objectives, third.cut_short) == (0, 2)  # at 100 of 400 env steps
    assert "2 of 2 runs ended early" in third.remark


def test_runs_of_several_objectives_are_all_counted() -> None:
    other = [replace(it, meta_seed=1) for it in curve("learned: a", "pendulum", 0, 60.0)]
    rows = [*ROWS[:8], *other]
    (cell,) = cell_scores(rows)
    assert cell.scores == (20.0, 40.0, 60.0)
    assert cell.objectives == 2
    assert "2 objectives" in cell.remark
    assert "over 2 objectives (meta-seeds)" in text_table([cell])
    assert {it.seed for it in labelled_rows(rows)} == {0, 1, 2}
    assert {it.rule for it in labelled_rows(rows)} == {"learned: a"}


def test_stuck_runs_are_counted_where_there_is_a_threshold() -> None:
    (cell,) = cell_scores([replace(it, stuck_below=25.0) for it in ROWS[:8]])
    assert cell.stuck == 1
    assert "1 of 2 runs stuck" in text_table([cell])


def test_text_shows_every_planned_cell() -> None:
    cells = cell_scores(ROWS)
    missing = missing_places(cells, [("ddpg", "pendulum"), ("ddpg", "reacher"), ("ppo", "reacher")])
    assert missing == [("ddpg", "reacher"), ("ppo", "reacher")]
    lines = text_table(cells, missing).splitlines()
    assert lines[0].split() == ["pendulum", "reacher"]
    assert lines[1].split("  ")[0] == "learned: a"
    assert "30.0 ± 14.1*" in lines[1]
    assert "-3.0 (n=1)" in lines[1]
    assert lines[2].split() == ["ddpg", "5.0", "±", "0.0", "–"]
    assert lines[3].split() == ["ppo", "–", "–"]
    assert "ppo on reacher: no result." in lines


def test_markdown_has_the_form_of_a_papers_table() -> None:
    lines = markdown_table(cell_scores(ROWS)).splitlines()
    assert lines[0] == "| objective | trained on | pendulum | reacher |"
    assert lines[2] == "| learned | a | 30.0 ± 14.1* | -3.0 (n=1) |"
    assert lines[3] == "| ddpg | – | 5.0 ± 0.0 | – |"
    assert any(
        line.startswith("| learned: a | pendulum | 2 | 30.0 | 20.0 to 40.0") for line in lines
    )


def test_csv_gives_figures_exactly() -> None:
    records = list(csv.DictReader(io.StringIO(csv_table(cell_scores(ROWS)))))
    assert [(it["row"], it["environment"], it["seen"]) for it in records] == [
        ("learned: a", "pendulum", "yes"),
        ("learned: a", "reacher", "no"),
        ("ddpg", "pendulum", ""),
    ]
    assert float(records[0]["std"]) == math.sqrt(200)
    assert records[1]["std"] == records[1]["iqm_low"] == ""


def test_rows_read_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [*ROWS, replace(ROWS[0], row='x, "y"\n', stuck_below=-0.1, meta_seed=None)]
    write_rows(rows, path)
    found = read_rows(path)
    # NaN is unlike itself: compare how it is written.
    assert repr(found) == repr(rows)
    assert text_table(cell_scores(found)) == text_table(cell_scores(rows))
    again = tmp_path / "again.csv"
    write_rows(found, again)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"row,", b"rows,"),
        (b",yes,", b",perhaps,"),
        (b",300,", b",3e2,"),
        (b",10.0,10,", b",nan,10,"),
        (b"ddpg,", b"ddpg,,"),
        (b"ddpg", b"\xff"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "rows.csv"
    write_rows(ROWS, path)
    damaged = path.read_bytes().replace(old, new, 1)
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    with pytest.raises(FileError, match=r"rows\.csv"):
        read_rows(path)
