"""From rows to tables, by numbers worked out by hand."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest

from mgrl_cli.errors import FileError
from mgrl_cli.run_dir.evaluations import VERSIONS, Evaluation
from mgrl_cli.studies.report import cell_record, csv_table, markdown_table, text_table
from mgrl_cli.studies.rows import RunState, StudyRow, read_rows, write_rows
from mgrl_cli.studies.table import PlannedCell, cell_scores, labelled_rows, missing_cells


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
        planned_env_steps=400,
        state="finished",
        evaluation=evaluation,
    )


def curve(label: str, environment: str, seed: int, *values: float) -> list[StudyRow]:
    return [row(label, environment, seed, 100 * (i + 1), v) for i, v in enumerate(values)]


def planned(label: str, environment: str, runs: int, *meta_seeds: int) -> PlannedCell:
    training = label.partition(": ")[2]
    return PlannedCell(
        row=label,
        training=training,
        environment=environment,
        runs=runs,
        meta_seeds=meta_seeds or (None,),
    )


ROWS = [
    *curve("learned: a", "pendulum", 0, 0.0, 10.0, 20.0, 30.0),
    *curve("learned: a", "pendulum", 1, 0.0, 40.0, 40.0, 40.0),
    *curve("learned: a", "reacher", 0, -3.0),
    *curve("ddpg", "pendulum", 0, 5.0),
    *curve("ddpg", "pendulum", 1, 5.0),
]


PLANNED = [
    planned("learned: a", "pendulum", 2, 0),
    planned("learned: a", "reacher", 2, 0),
    planned("ddpg", "pendulum", 2),
    planned("ddpg", "reacher", 2),
    planned("ppo", "reacher", 2),
]


def test_a_cell_is_mean_and_deviation_of_the_last_three_evaluations() -> None:
    first, second, third = cell_scores(ROWS, PLANNED)
    assert first.scores == (20.0, 40.0)
    assert [(run.seed, run.env_steps) for run in first.runs] == [(0, 400), (1, 400)]
    assert (first.mean, first.deviation) == (30.0, pytest.approx(math.sqrt(200)))
    assert (first.middle.value, first.middle.low, first.middle.high) == (30.0, 20.0, 40.0)
    assert (first.objectives, first.has_early_ends, first.stuck) == (1, False, None)
    assert second.scores == (-3.0,)
    assert math.isnan(second.deviation)
    assert "from 1 seed: no interval" in second.remarks
    assert third.scores == (5.0, 5.0)
    assert third.objectives == 0


def test_runs_of_several_objectives_are_all_counted() -> None:
    other = [replace(it, meta_seed=1) for it in curve("learned: a", "pendulum", 0, 60.0)]
    rows = [*ROWS[:8], *other]
    (cell,) = cell_scores(rows, [planned("learned: a", "pendulum", 3, 0, 1)])
    assert cell.scores == (20.0, 40.0, 60.0)
    assert [(run.meta_seed, run.seed) for run in cell.runs] == [(0, 0), (0, 1), (1, 0)]
    assert cell.objectives == cell.middle.num_seeds == 2
    assert "over 2 objectives (meta-seeds)" in text_table([cell])
    # What limits the interval is said on stdout and in table.txt, not in table.md alone.
    assert "95 % interval from 2 objectives: wide, yet too narrow" in text_table([cell])
    assert {it.seed for it in labelled_rows(rows)} == {0, 1, 2}
    assert {it.rule for it in labelled_rows(rows)} == {"learned: a"}


def test_lost_objectives_are_told_apart_from_few_planned_ones() -> None:
    rows = ROWS[:8]  # two runs of meta-seed 0
    (whole,) = cell_scores(rows, [planned("learned: a", "pendulum", 2, 0)])
    assert not whole.has_lost_runs
    assert "n=" not in text_table([whole])
    (cell,) = cell_scores(rows, [planned("learned: a", "pendulum", 6, 0, 1, 2)])
    text = text_table([cell])
    assert "30.0 ± 14.1* (n=2 of 6)" in text
    assert "only 2 of 6 runs have a score, none of meta-seeds 1, 2." in text
    (record,) = csv.DictReader(io.StringIO(csv_table([cell])))
    counts = ("runs", "planned_runs", "objectives", "planned_objectives")
    assert [record[name] for name in counts] == ["2", "6", "1", "3"]


@pytest.mark.parametrize("state", ["quarantined", "unfinished"])
def test_runs_that_ended_early_are_marked_and_counted(state: RunState) -> None:
    early = curve("ddpg", "pendulum", 1, 5.0)
    early = [replace(it, state=state, planned_env_steps=101) for it in early]
    whole = [replace(it, planned_env_steps=101) for it in curve("ddpg", "pendulum", 0, 5.0)]
    (cell,) = cell_scores([*whole, *early], [planned("ddpg", "pendulum", 2)])
    assert cell.scores == (5.0, 5.0)
    lines = text_table([cell]).splitlines()
    assert lines[1].split() == ["ddpg", "5.0", "±", "0.0†"]
    expected = f"1 of 2 runs {state}, scored where they ended: at 100 of 101 env steps"
    assert f"ddpg on pendulum: {expected}." in lines
    assert cell_record(cell)[state] == 1


def test_stuck_runs_are_counted_where_there_is_a_threshold() -> None:
    (cell,) = cell_scores([replace(it, stuck_below=25.0) for it in ROWS[:8]], PLANNED)
    assert cell.stuck == 1
    assert "1 of 2 runs stuck" in text_table([cell])


def test_text_shows_every_planned_cell() -> None:
    cells = cell_scores(ROWS, PLANNED)
    missing = missing_cells(cells, PLANNED)
    assert [it.place for it in missing] == [("ddpg", "reacher"), ("ppo", "reacher")]
    lines = text_table(cells, missing).splitlines()
    assert lines[0].split() == ["pendulum", "reacher"]
    assert lines[1].split("  ")[0] == "learned: a"
    assert "30.0 ± 14.1*" in lines[1]
    assert "-3.0 (n=1 of 2)" in lines[1]
    assert lines[2].split() == ["ddpg", "5.0", "±", "0.0", "–"]
    assert lines[3].split() == ["ppo", "–", "–"]
    assert "ppo on reacher: no result." in lines


def test_a_remark_names_the_cells_that_it_is_true_of() -> None:
    rows = [
        *(it for seed in range(2) for it in curve("ddpg", "pendulum", seed, 1.0 + seed)),
        *(it for seed in range(2) for it in curve("ddpg", "reacher", seed, 1.0 + seed)),
        *(it for seed in range(2) for it in curve("ppo", "pendulum", seed, 1.0 + seed)),
        *curve("ppo", "reacher", 0, 1.0),
    ]
    places = [("ddpg", "pendulum"), ("ddpg", "reacher"), ("ppo", "pendulum"), ("ppo", "reacher")]
    cells = cell_scores(rows, [planned(*it, 1 if it == places[-1] else 2) for it in places])
    text = text_table(cells)
    assert "ddpg; ppo on pendulum: 95 % interval from 2 seeds: wide" in text
    assert "ppo on reacher: from 1 seed: no interval." in text
    assert "All cells: 95 % interval from 2 seeds: wide" in text_table(cells[:3])


def test_cells_are_compared_with_the_first_hand_written_rule() -> None:
    first, second, third = cell_scores(ROWS, PLANNED)
    assert (first.reference, third.reference, third.improvement) == ("ddpg", "", None)
    assert first.improvement is not None
    assert (first.improvement.value, first.improvement.low) == (1.0, 1.0)  # 20 and 40 beat 5 and 5
    assert second.improvement is None  # ddpg has nothing on reacher
    lines = markdown_table([first, second, third]).splitlines()
    assert any("| P(beats ddpg) | 95 % interval | note |" in line for line in lines)
    assert any("| 20.0 | 40.0 | 1.00 | 1.00 to 1.00 |" in line for line in lines)
    record = cell_record(first)
    assert (record["reference"], record["better"]) == ("ddpg", 1.0)


def test_markdown_has_the_form_of_a_papers_table() -> None:
    text = markdown_table(cell_scores(ROWS, PLANNED))
    lines = text.splitlines()
    assert lines[0] == "| objective | trained on | pendulum | reacher |"
    assert lines[2] == "| learned | a | 30.0 ± 14.1* | -3.0 (n=1 of 2) |"
    assert lines[3] == "| ddpg | – | 5.0 ± 0.0 | – |"
    assert any(
        line.startswith("| learned: a | pendulum | 2 | 30.0 | 20.0 to 40.0") for line in lines
    )
    assert "of fewer than four runs it is their plain mean" in text
    four = [it for seed in range(4) for it in curve("ddpg", "pendulum", seed, float(seed))]
    assert "plain mean" not in markdown_table(cell_scores(four, [planned("ddpg", "pendulum", 4)]))


def test_csv_gives_figures_exactly() -> None:
    cells = cell_scores(ROWS, PLANNED)
    text = csv_table(cells, missing_cells(cells, PLANNED))
    records = list(csv.DictReader(io.StringIO(text)))
    assert [(it["row"], it["environment"], it["seen"]) for it in records] == [
        ("learned: a", "pendulum", "yes"),
        ("learned: a", "reacher", "no"),
        ("ddpg", "pendulum", ""),
        ("ddpg", "reacher", ""),
        ("ppo", "reacher", ""),
    ]
    assert float(records[0]["std"]) == math.sqrt(200)
    assert records[1]["std"] == records[1]["iqm_low"] == ""
    assert (records[3]["mean"], records[3]["runs"], records[3]["planned_runs"]) == ("", "0", "2")


def test_rows_read_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [*ROWS, replace(ROWS[0], row='x, "y"\n', stuck_below=-0.1, meta_seed=None)]
    write_rows(rows, path)
    found = read_rows(path)
    # NaN is unlike itself: compare how it is written.
    assert repr(found) == repr(rows)
    assert text_table(cell_scores(found, PLANNED)) == text_table(cell_scores(rows, PLANNED))
    again = tmp_path / "again.csv"
    write_rows(found, again)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"row,", b"rows,"),
        (b",yes,", b",perhaps,"),
        (b",finished,", b",done,"),
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
