"""The table of evaluations: what a run writes, that it reads back exactly, what is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.config import RunConfig
from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.objective_file import LearnedObjective, ObjectiveMetadata
from mgrl_cli.run_dir.evaluations import (
    COLUMNS,
    VERSIONS,
    Evaluation,
    evaluations_of,
    read_evaluation_table,
    write_evaluations,
)
from mgrl_cli.run_dir.layout import RunDirectory, create_run_directory
from mgrl_cli.run_dir.metrics import read_evaluations
from mgrl_cli.run_dir.scores import rule_scores, seed_scores
from mgrl_cli.run_dir.settings import package_versions, write_settings

RETURNS = {"learned": (0.1 + 0.2, 1e-300, -123456.789), "ddpg": (-1e99, 2.0 / 3.0, 5.0)}
"""Numbers that a careless format would round."""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A meta-test of two rules with one seed each, three rounds, an evaluation in each."""
    run = create_run_directory(tmp_path, "tested", "stem")
    config = {
        "kind": "meta-test",
        "preset": "smoke",
        "steps": 300,
        "envs": [{"id": "pendulum"}],
        "rules": list(RETURNS),
        "evaluation": {"episodes": 7},
    }
    write_settings(run, RunConfig.model_validate(config))
    metadata = ObjectiveMetadata(
        window_steps=7,
        window_batch=4,
        inner_step="unit",
        inner_step_size=0.03,
        environments=("lunar", "my\nmodule:Task-v0"),
        steps_per_agent=0,
        agents=0,
        meta_steps=0,
        seed=0,
        packages={},
    )
    params = ObjectiveNetwork(metadata.shape).initialise(np.random.default_rng(0))
    LearnedObjective(params, metadata).save(run.objective)
    for agent_id, (rule, returns) in enumerate(RETURNS.items()):
        records = [
            {
                "rule": rule,
                "environment": "pendulum",
                "seed": 0,
                "env_steps": 100 * number,
                "evaluation": value,
                "mean_return": None if number == 2 else value / 3,
            }
            for number, value in enumerate(returns, start=1)
        ]
        records.insert(1, {**records[0], "evaluation": None})  # a round without an evaluation
        run.agent_metrics(agent_id).write_text("".join(f"{json.dumps(r)}\n" for r in records))
    return run


def as_text(evaluations: list[Evaluation]) -> list[str]:
    """For comparison: NaN is not equal to itself, its text is."""
    return [repr(evaluation) for evaluation in evaluations]


def test_the_table_reads_back_exactly(run: RunDirectory) -> None:
    evaluations = evaluations_of(run)
    write_evaluations(evaluations, run.evaluations)
    read = read_evaluation_table(run.evaluations)
    assert as_text(read) == as_text(evaluations)
    first = run.evaluations.read_bytes()
    write_evaluations(read, run.evaluations)
    assert run.evaluations.read_bytes() == first


def test_scores_can_be_rebuilt_from_the_table_alone(run: RunDirectory) -> None:
    write_evaluations(evaluations_of(run), run.evaluations)
    rebuilt = seed_scores(evaluation.row for evaluation in read_evaluation_table(run.evaluations))
    assert rebuilt == seed_scores(read_evaluations(run))
    assert [rule.rule for rule in rule_scores(rebuilt, root_seed=0)] == ["learned", "ddpg"]


def test_a_line_says_where_it_comes_from(run: RunDirectory) -> None:
    learned, *_, ddpg = evaluations_of(run)
    assert learned.run == "tested"
    assert learned.objective == LearnedObjective.load(run.objective).metadata.sha256
    assert learned.objective_environments == r"lunar my\nmodule:Task-v0"
    assert (ddpg.objective, ddpg.objective_environments) == ("", "")
    assert (learned.environment, learned.environment_id) == ("pendulum", "mgrl/Pendulum-v0")
    assert learned.evaluation_episodes == 7
    installed = package_versions()
    assert learned.versions["torch"] == installed["torch"]
    assert learned.versions["stable-baselines3"] == installed.get("stable-baselines3", "")
    assert learned.versions["python"].startswith("3.")
    assert set(learned.versions) == set(VERSIONS)


def test_unknown_training_returns_are_empty_cells(run: RunDirectory) -> None:
    evaluations = evaluations_of(run)
    assert math.isnan(evaluations[1].training_return)
    write_evaluations(evaluations, run.evaluations)
    line = run.evaluations.read_text().splitlines()[2]
    assert line.split(",")[COLUMNS.index("training_return")] == ""


def test_baselines_need_no_objective_file(run: RunDirectory) -> None:
    path = run.config
    path.write_text(path.read_text().replace('"learned",', ""))
    run.objective.unlink()
    assert {evaluation.objective for evaluation in evaluations_of(run)} == {""}


def test_an_objective_that_is_gone_is_missed(run: RunDirectory) -> None:
    run.objective.unlink()
    with pytest.raises(FileError):
        evaluations_of(run)


@pytest.mark.parametrize("name", ["a,b", 'say "x"', "a\x1b[2Jb", "x\r\ny", "=1+1", "ä\ud800", ""])
def test_any_name_reads_back(run: RunDirectory, name: str) -> None:
    path = run.agent_metrics(1)
    path.write_text(path.read_text().replace('"ddpg"', json.dumps(name)))
    evaluations = evaluations_of(run)
    write_evaluations(evaluations, run.evaluations)
    assert as_text(read_evaluation_table(run.evaluations)) == as_text(evaluations)
    assert all(line.isprintable() for line in run.evaluations.read_text().splitlines())


def damaged(text: str, column: str, value: str) -> str:
    """The table with another value in a column of its second line."""
    lines = text.splitlines()
    cells = lines[1].split(",")
    cells[COLUMNS.index(column)] = value
    return "\n".join([lines[0], ",".join(cells), *lines[2:], ""])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("evaluation_return", bad) for bad in ("", "nan", "inf", "1e101", "x", "1,5")),
        *(("env_steps", bad) for bad in ("", "-1", "1.0", "1_000", " 7", "٣", "9" * 30)),
        *(("training_return", bad) for bad in ("nan", "-inf", "none")),
        ("seed", "zero"),
        ("evaluation_episodes", "1e3"),
        ("run", '"open'),
    ],
)
def test_a_damaged_cell_is_a_bad_file(run: RunDirectory, column: str, value: str) -> None:
    write_evaluations(evaluations_of(run), run.evaluations)
    run.evaluations.write_text(damaged(run.evaluations.read_text(), column, value))
    with pytest.raises(FileError, match=r"evaluations\.csv', line 2|unexpected end"):
        read_evaluation_table(run.evaluations)


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n", b"\xff\xfe", b"\x00", b"PK\x03\x04", b"x" * 200_000]
)
def test_what_is_no_such_table_is_a_bad_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.csv"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"foreign\.csv") as caught:
        read_evaluation_table(path)
    assert len(str(caught.value)) < 400


def test_a_line_that_ends_early_is_a_bad_file(run: RunDirectory) -> None:
    write_evaluations(evaluations_of(run), run.evaluations)
    text = run.evaluations.read_text()
    run.evaluations.write_text(text[: text.rindex(",", 0, -20)])
    with pytest.raises(FileError, match="line 7: got "):
        read_evaluation_table(run.evaluations)


def test_no_file_is_a_bad_file(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(FileError, match="cannot read"):
            read_evaluation_table(path)


def test_an_unwritable_place_is_a_storage_error(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        write_evaluations(evaluations_of(run), tmp_path / "file" / "evaluations.csv")


def test_tables_of_several_runs_join_under_one_header(run: RunDirectory, tmp_path: Path) -> None:
    evaluations = evaluations_of(run)
    joined = [*evaluations, *(replace(evaluation, run="other") for evaluation in evaluations)]
    write_evaluations(joined, tmp_path / "all.csv")
    assert as_text(read_evaluation_table(tmp_path / "all.csv")) == as_text(joined)
