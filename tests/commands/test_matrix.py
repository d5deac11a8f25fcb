"""`mgrl matrix` and `mgrl progress`: real, tiny studies, whole, interrupted and refused."""

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mgrl_cli.cli import main
from mgrl_cli.run_dir.layout import RunDirectory
from tests.commands.tiny_runs import TINY, Outcome, snapshot
from tests.faults.processes import assert_soon_gone, rounds_in_metrics, running, wait_until

SETTINGS = tuple(
    word for setting in (*TINY, "checkpoints.interval_s=0") for word in ("--set", setting)
)
STUDY = (
    *("matrix", "--run", "m", "--preset", "smoke", "--train", "pendulum,cartpole"),
    *("--test", "pendulum", "--objectives", "learned,ddpg", "--seeds", "1"),
    *("--steps", "120", "--train-steps", "180"),
    *SETTINGS,
)


class Made(NamedTuple):
    runs: Path
    rows: bytes
    table: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A matrix that nothing disturbed."""
    runs = tmp_path_factory.mktemp("matrix")
    assert main([*STUDY, "--runs-dir", str(runs), "--quiet"]) == 0
    study = runs / "m"
    return Made(runs, (study / "rows.csv").read_bytes(), (study / "table.txt").read_text())


@pytest.fixture
def leaves_the_study_alone(made: Made) -> Iterator[None]:
    before = snapshot(made.runs / "m" / "test")
    yield
    assert snapshot(made.runs / "m" / "test") == before


def test_a_matrix_leaves_runs_rows_tables_and_figures(made: Made) -> None:
    study = made.runs / "m"
    names = {path.name for path in study.iterdir() if not path.name.startswith(".")}
    assert names == {
        *("matrix.toml", "train", "test", "log", "rows.csv", "table.txt", "table.csv", "table.md"),
        *("heat_map.png", "heat_map.svg", "heat_map.csv", "curves.png", "curves.svg", "curves.csv"),
    }
    assert [path.name for path in (study / "train").iterdir()] == ["pendulum-cartpole.seed-0"]
    assert len(list((study / "test").iterdir())) == 2
    head, learned, ddpg, *_ = made.table.splitlines()
    assert head.split() == ["pendulum"]
    assert learned.startswith("learned: pendulum,cartpole")
    assert learned.endswith("*")  # pendulum is seen
    assert ddpg.startswith("ddpg")
    assert "*" not in ddpg


@pytest.mark.usefixtures("leaves_the_study_alone")
def test_a_finished_matrix_is_rebuilt_and_not_computed_again(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    table = made.runs / "m" / "table.txt"
    table.unlink()
    outcome = Outcome(capsys, ["matrix", "--resume", "m", "--runs-dir", str(made.runs)])
    assert outcome.exit_code == 0, outcome.err
    assert "nothing is left to do" in outcome.err
    assert outcome.out == f"{made.table}{made.runs / 'm'}\n"
    assert table.read_text() == made.table


@pytest.mark.usefixtures("leaves_the_study_alone")
def test_the_same_command_continues_and_another_is_refused(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*STUDY, "--runs-dir", str(made.runs)]
    outcome = Outcome(capsys, [*words, "--json"])
    assert outcome.exit_code == 0, outcome.err
    document = json.loads(outcome.out)
    assert [(it["row"], it["environment"], it["runs"]) for it in document["cells"]] == [
        ("learned: pendulum,cartpole", "pendulum", 1),
        ("ddpg", "pendulum", 1),
    ]
    assert {it["state"] for it in document["runs"]} == {"finished"}
    outcome = Outcome(capsys, [*words, "--seeds", "2"])
    assert outcome.exit_code == 2
    assert "is a matrix with seeds = 1, got 2" in outcome.refusal


def test_interrupted_and_continued_is_the_same_as_undisturbed(made: Made, tmp_path: Path) -> None:
    study = tmp_path / "m"
    training = RunDirectory(study / "train" / "pendulum-cartpole.seed-0")
    with running([*STUDY, "--runs-dir", str(tmp_path)]) as process:
        wait_until(lambda: rounds_in_metrics(training) >= 1, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        assert process.returncode == 130, err
        assert out == ""
        assert f"continue with: mgrl matrix --resume {study}" in err.splitlines()[-1]
        assert_soon_gone(process.pid)
    assert not (study / "rows.csv").exists()
    assert main(["matrix", "--resume", str(study), "--quiet"]) == 0
    assert (study / "rows.csv").read_bytes() == made.rows
    assert (study / "table.txt").read_text() == made.table


@pytest.mark.slow
def test_a_finished_run_is_a_row(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    run = made.runs / "m" / "train" / "pendulum-cartpole.seed-0"
    words = ["matrix", "--run", "of-run", "--preset", "smoke", "--train", str(run)]
    words += ["--test", "pendulum", "--seeds", "1", "--steps", "120", *SETTINGS]
    outcome = Outcome(capsys, [*words, "--runs-dir", str(made.runs), "--json"])
    assert outcome.exit_code == 0, outcome.err
    (cell,) = json.loads(outcome.out)["cells"]
    # The same objective, seed and settings: the same score as in the matrix that trained it.
    assert cell["row"] == "learned: pendulum-cartpole.seed-0"
    assert f" {cell['mean']:.1f}*" in made.table
    assert (cell["train_env_steps"], cell["seen"]) == (180, "yes")


def test_progress_tests_what_a_training_has_kept(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made.runs / "m" / "train" / "pendulum-cartpole.seed-0"
    words = ["progress", str(run), "--env", "reacher", "--seeds", "1", "--steps", "120"]
    words += ["--against", "ddpg", *SETTINGS, "--runs-dir", str(made.runs)]
    outcome = Outcome(capsys, words)
    assert outcome.exit_code == 0, outcome.err
    study = made.runs / "progress-pendulum-cartpole.seed-0-reacher"
    assert outcome.out.splitlines()[-1] == str(study)
    _, learned, ddpg, *_ = outcome.out.splitlines()
    assert learned.startswith("learned: round 3")
    assert ddpg.startswith("ddpg")
    assert (study / "progress.png").read_bytes().startswith(b"\x89PNG")
    before = snapshot(study / "test")
    assert Outcome(capsys, words).exit_code == 0
    assert snapshot(study / "test") == before


def test_a_setting_that_contradicts_the_objective_of_a_row_is_refused_first(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made.runs / "m" / "train" / "pendulum-cartpole.seed-0"
    config = tmp_path / "matrix.toml"
    config.write_text(
        f"preset = 'smoke'\ntest = [{{env = 'reacher'}}]\n"
        f"[[train]]\nrun = '{run}'\ntest_set = ['objective.bound=3']\n"
    )
    words = ["matrix", "--run", "x", "--config", str(config), "--runs-dir", str(tmp_path)]
    outcome = Outcome(capsys, words)
    assert (outcome.exit_code, "objective.bound=3.0 contradicts" in outcome.refusal) == (2, True)
    assert not (tmp_path / "x" / "matrix.toml").exists()


def test_a_missing_package_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    words = ["matrix", "--run", "x", "--train", "pendulum", "--test", "reacher"]
    words += ["--objectives", "learned,ppo", "--runs-dir", str(tmp_path)]
    outcome = Outcome(capsys, words)
    assert (outcome.exit_code, "pip install 'mgrl[baselines]'" in outcome.refusal) == (2, True)
    assert not list(tmp_path.rglob("train"))


REFUSED = {
    "no name": (["matrix", "--train", "pendulum", "--test", "reacher"], 2, "with --run"),
    "no test": (["matrix", "--run", "x", "--train", "pendulum"], 2, "'test'"),
    "no training": (["matrix", "--run", "x", "--test", "reacher"], 2, "need a --train"),
    "unknown environment": (
        ["matrix", "--run", "x", "--train", "pendulum", "--test", "raecher"],
        2,
        "Did you mean 'reacher'?",
    ),
    "unknown rule": (
        ["matrix", "--run", "x", "--test", "reacher", "--objectives", "dpg"],
        2,
        "Did you mean 'ddpg'?",
    ),
    "setting that the study decides": (
        ["matrix", "--run", "x", "--test", "reacher", "--objectives", "td3", "--set", "seeds=9"],
        2,
        "give it as --seeds",
    ),
    "name": (["matrix", "--run", "../x", "--train", "a", "--test", "b"], 2, "is not usable"),
    "no matrix": (["matrix", "--resume", "nobody"], 4, "no matrix 'nobody'"),
    "resume with settings": (["matrix", "--resume", "x", "--seeds", "2"], 2, "beside settings"),
    "no config": (["matrix", "--run", "x", "--config", "absent.toml"], 4, "absent.toml"),
    "no run to test": (["progress"], 2, "no run or no environment"),
    "no such run": (["progress", "nobody", "--env", "reacher"], 4, "no run 'nobody'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_usage_is_one_line_and_runs_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, case: str
) -> None:
    words, exit_code, part = REFUSED[case]
    outcome = Outcome(capsys, [*words, "--runs-dir", str(tmp_path / "runs")])
    assert part in outcome.refusal
    assert outcome.exit_code == exit_code
    assert not list(tmp_path.rglob("train")) + list(tmp_path.rglob("test"))
