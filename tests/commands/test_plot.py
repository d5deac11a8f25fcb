"""`mgrl plot` in this process: which runs go into one figure, what lines are called, refusals."""

import csv
import shutil
from pathlib import Path

import pytest

from mgrl_cli.cli import main
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.metrics import read_agent_metrics
from tests.commands.tiny_runs import Outcome, objective_file, snapshot, tiny


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A meta-training and three meta-tests: two on one environment with a rule in common."""
    runs_dir = tmp_path_factory.mktemp("runs")
    given = ["--objective", str(objective_file(runs_dir / "given.safetensors")), "--seeds", "1"]
    for argv in (
        ["meta-train", "--envs", "pendulum", "--agents", "1", "--run", "trained"],
        ["meta-test", "--env", "pendulum", "--run", "one", "--against", "ddpg", *given],
        ["meta-test", "--env", "pendulum", "--run", "two", *given],
        ["meta-test", "--env", "cartpole", "--run", "three", *given],
    ):
        assert main(tiny(*argv, "--quiet", runs_dir=runs_dir)) == 0
    return runs_dir


@pytest.fixture
def plot(runs_dir: Path, capsys: pytest.CaptureFixture[str]):
    return lambda *arguments: Outcome(
        capsys, ["plot", *map(str, arguments), "--runs-dir", str(runs_dir)]
    )


def lines_of(data: Path) -> set[tuple[str, str]]:
    with data.open(newline="", encoding="utf-8") as file:
        return {(row["environment"], row["rule"]) for row in csv.DictReader(file)}


def test_one_run_gives_the_figure_it_left_itself(plot, runs_dir: Path) -> None:
    figure = runs_dir / "one" / "curves.png"
    before = figure.read_bytes()
    figure.unlink()
    outcome = plot("one")
    assert outcome.exit_code == 0, outcome.err
    assert outcome.out.splitlines() == [str(figure), str(figure.with_suffix(".csv"))]
    assert figure.read_bytes() == before


def test_lines_are_rules_until_two_runs_share_one(plot, tmp_path: Path) -> None:
    assert plot("one", "three", "--out", tmp_path / "a.png").exit_code == 0
    assert lines_of(tmp_path / "a.csv") == {
        ("pendulum", "learned"), ("pendulum", "ddpg"), ("cartpole", "learned"),
    }  # fmt: skip
    assert plot("one", "two", "--out", tmp_path / "b.png").exit_code == 0
    assert lines_of(tmp_path / "b.csv") == {
        ("pendulum", "one:learned"), ("pendulum", "two:learned"), ("pendulum", "ddpg"),
    }  # fmt: skip


def test_lines_are_called_as_the_user_says(plot, tmp_path: Path) -> None:
    outcome = plot("one", "two", "--labels", "with ddpg, alone", "--out", tmp_path / "a.png")
    assert outcome.exit_code == 0, outcome.err
    assert {rule for _, rule in lines_of(tmp_path / "a.csv")} == {
        "with ddpg:learned", "with ddpg:ddpg", "alone",
    }  # fmt: skip


def test_out_may_be_repeated_and_nothing_else_is_written(
    plot, tmp_path: Path, runs_dir: Path
) -> None:
    before = snapshot(runs_dir)
    outcome = plot("one", "two", "--out", tmp_path / "a.png", "--out", tmp_path / "b.svg")
    assert outcome.exit_code == 0, outcome.err
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.csv", "b.svg", "b.csv"}
    assert snapshot(runs_dir) == before


def test_several_runs_leave_the_first_ones_own_figure_alone(plot, runs_dir: Path) -> None:
    own = (runs_dir / "one" / "curves.csv").read_bytes()
    outcome = plot("one", "two")
    assert outcome.out.splitlines()[0] == str(runs_dir / "one" / "compared.png")
    assert (runs_dir / "one" / "curves.csv").read_bytes() == own


def test_training_returns_are_those_of_every_round(plot, runs_dir: Path, tmp_path: Path) -> None:
    outcome = plot("one", "--metric", "training", "--out", tmp_path / "a.svg")
    assert outcome.exit_code == 0, outcome.err
    assert "training return" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    records = read_agent_metrics(RunDirectory(runs_dir / "one").metrics)
    assert [row["training_return"] or None for row in rows] == [
        None if record["mean_return"] is None else str(record["mean_return"]) for record in records
    ]


def test_a_meta_training_gives_its_population(plot, runs_dir: Path) -> None:
    outcome = plot("trained")
    assert outcome.exit_code == 0, outcome.err
    assert (runs_dir / "trained" / "population.png").read_bytes().startswith(b"\x89PNG")
    assert outcome.out.splitlines()[1] == str(runs_dir / "trained" / "population.csv")


REFUSED = {
    "no run": ([], 2, "Missing argument 'RUN...'"),
    "unknown run": (["oen"], 4, "no run 'oen'"),
    "foreign directory": (["."], 4, "no run '.'"),
    "both kinds": (["one", "trained"], 2, "expected runs of one kind"),
    "another format": (["one", "--out", "x.pdf"], 2, "expected .png or .svg"),
    "another metric": (["one", "--metric", "loss"], 2, "--metric got 'loss'"),
    "metric of a training": (["trained", "--metric", "training"], 2, "got a meta-training"),
    "metric that is the default": (["trained", "--metric", "evaluation"], 2, "leave them out"),
    "labels of a training": (["trained", "--labels", "a"], 2, "got a meta-training"),
    "too few labels": (["one", "two", "--labels", "a"], 2, "got 1 names, expected 2"),
    "empty label": (["one", "two", "--labels", "a,"], 2, "--labels got 'a,'"),
    "labels alike": (["one", "two", "--labels", "a,a"], 2, "two runs are called alike"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_usage_is_one_line_and_writes_nothing(plot, runs_dir: Path, case: str) -> None:
    arguments, exit_code, part = REFUSED[case]
    before = snapshot(runs_dir)
    outcome = plot(*arguments)
    assert part in outcome.refusal
    assert outcome.exit_code == exit_code
    assert snapshot(runs_dir) == before


def test_damaged_metrics_are_a_bad_file(plot, runs_dir: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(runs_dir / "one", broken)
    (broken / "metrics" / "agent-000.jsonl").write_text('{"rule": 3}\n')
    assert plot(broken).exit_code == 4
    (broken / "metrics" / "agent-000.jsonl").write_text("")
    (broken / "metrics" / "agent-001.jsonl").write_text("")
    outcome = plot(broken)
    assert (outcome.exit_code, "Nothing to plot" in outcome.refusal) == (2, True)
