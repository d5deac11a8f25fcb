"""`mgrl meta-test` in this process: its table and files, and what it refuses before it writes."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mgrl_cli.run_dir.evaluations import evaluations_of, read_evaluation_table
from mgrl_cli.run_dir.layout import RunDirectory, create_run_directory
from mgrl_cli.run_dir.scores import score_report, seed_scores
from mgrl_cli.run_dir.settings import read_settings
from tests.commands.tiny_runs import Outcome, objective_file, snapshot, tiny


@pytest.fixture
def objective(tmp_path: Path) -> Path:
    """An objective file outside the runs; its windows have 7 steps."""
    return objective_file(tmp_path / "given.safetensors")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run a tiny `mgrl meta-test` with these arguments."""
    return lambda *arguments: Outcome(
        capsys, tiny("meta-test", *arguments, runs_dir=tmp_path / "runs")
    )


def test_a_test_prints_a_table_and_leaves_scores_and_curves(
    run, objective: Path, tmp_path: Path
) -> None:
    outcome = run(
        *("--env", "cartpole", "--objective", str(objective)),
        *("--against", "ddpg,untrained,ddpg", "--seeds", "2", "--seed", "3"),
    )
    assert outcome.exit_code == 0, outcome.err
    directory = RunDirectory(tmp_path / "runs" / "test-cartpole-001")
    assert outcome.out.splitlines()[-1] == str(directory.path)

    results = json.loads(directory.results.read_text())
    assert [rule["rule"] for rule in results["rules"]] == ["learned", "ddpg", "untrained"]
    for rule in results["rules"]:
        lines = [line for line in outcome.out.splitlines() if line.split()[:1] == [rule["rule"]]]
        seeds_line, figures_line = lines
        scores = [seed["score"] for seed in results["seeds"] if seed["rule"] == rule["rule"]]
        assert len(scores) == 2
        assert rule["mean"] == pytest.approx(np.mean(scores))
        for shown in scores:
            assert f"{shown:.1f}" in seeds_line
        for shown in (rule["mean"], rule["std"], rule["iqm"]["low"], rule["training_return"]):
            assert f"{shown:.1f}" in figures_line

    table = read_evaluation_table(directory.evaluations)
    assert table == evaluations_of(directory)
    assert seed_scores(evaluation.row for evaluation in table) == list(
        score_report(directory).seeds
    )

    assert (directory.path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with (directory.path / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # 3 rules, 2 seeds, an evaluation at the first round end past 60 steps and past 120
    assert len(rows) == 12
    assert {(row["rule"], row["seed"]) for row in rows} == {
        (rule, seed) for rule in ("learned", "ddpg", "untrained") for seed in "01"
    }

    settings = read_settings(directory)
    assert (settings.seeds, settings.agents, settings.seed) == (2, 6, 3)
    assert settings.windows.steps == 7  # the objective's, not the preset's 10
    assert directory.objective.read_bytes() == objective.read_bytes()


def test_json_is_one_document_and_the_newest_objective_the_default(
    run, objective: Path, tmp_path: Path
) -> None:
    arguments = ("--env", "pendulum", "--seeds", "1", "--json")
    assert run(*arguments).exit_code == 4  # no run yet
    trained = create_run_directory(tmp_path / "runs", "trained", "stem")
    tested = RunDirectory(tmp_path / "runs" / "test-pendulum-001")
    trained.objective.write_bytes(objective.read_bytes())
    trained.config.write_text(
        'kind = "meta-train"\npreset = "smoke"\nsteps = 1\n[[envs]]\nid = "pendulum"\n'
    )
    for number in (1, 2):  # the second time the first test is the newest run, but no training
        outcome = run(*arguments)
        assert outcome.exit_code == 0, outcome.err
        document = json.loads(outcome.out)
        assert document["run"] == f"test-pendulum-{number:03d}"
        assert document["rules"][0]["std"] is None
    assert json.loads(tested.results.read_text())["seeds"][0]["rule"] == "learned"


def test_stuck_runs_are_counted_below_the_floor_given(
    run, objective: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run(
        *("--env", "pendulum", "--objective", str(objective), "--seeds", "2"),
        *("--stuck-below", "1e6", "--json"),
    )
    assert outcome.exit_code == 0, outcome.err
    document = json.loads(outcome.out)
    assert (document["stuck_below"], document["rules"][0]["stuck"]) == (1e6, 2)
    runs = ["--runs-dir", str(tmp_path / "runs"), "--json"]
    again = Outcome(capsys, ["resume", "test-pendulum-001", "--stuck-below", "-1e6", *runs])
    assert json.loads(again.out)["rules"][0]["stuck"] == 0
    plain = Outcome(capsys, ["resume", "test-pendulum-001", *runs])
    assert json.loads(plain.out)["rules"][0]["stuck"] is None


def test_a_test_without_an_evaluation_says_so(run, objective: Path, tmp_path: Path) -> None:
    outcome = run(
        *("--env", "pendulum", "--objective", str(objective), "--seeds", "1"),
        *("--set", "evaluation.interval=0", "--quiet"),
    )
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert outcome.out.startswith("no evaluation within these steps")
    assert not list((tmp_path / "runs").rglob("curves.*"))


REFUSED = {
    "no environment": ([], 2, "'envs' is missing; give it as an option"),
    "unknown environment": (["--env", "hoper"], 2, "Did you mean 'hopper'? List them: mgrl envs"),
    "two environments": (["--env", "pendulum,cartpole"], 2, "'pendulum,cartpole'"),
    "discrete actions": (["--env", "CartPole-v1"], 2, "got action space Discrete(2)"),
    "unknown rule": (
        ["--against", "dppg"],
        2,
        "reinforce-is-clipped, vpg, ppo, untrained. Did you mean 'ddpg'?",
    ),
    "empty rule": (["--against", "ddpg,"], 2, "--against got 'ddpg,'"),
    "no rule": (["--against", ""], 2, "--against got ''"),
    "no seeds": (["--seeds", "0"], 2, "'seeds': "),
    "negative seeds": (["--seeds", "-1"], 2, "'seeds': "),
    "a billion seeds": (["--seeds", "1000000000"], 2, "got 1000000000"),
    "a floor of nothing": (["--stuck-below", "nan"], 2, "expected a finite score"),
    "cuda": (["--device", "cuda"], 2, "'cuda' is not supported yet"),
    "another terminal value": (
        ["--set", "objective.terminal_value=mean"],
        2,
        "contradicts the objective, which was trained with 'zero'",
    ),
    "replay too small": (["--set", "replay.capacity=100"], 2, "expected at least 200"),
    "set": (["--set", "nonsense"], 2, "--set got 'nonsense'"),
    "preset": (["--preset", "smok"], 2, "Did you mean 'smoke'?"),
    "traversal": (["--run", "../x"], 2, "run name '../x' is not usable"),
    "absent file": (["--objective", "absent.safetensors"], 4, "'absent.safetensors' does not"),
    "absent run": (["--objective", "nobody"], 4, "no run 'nobody'"),
    "long name": (["--objective", "x" * 5000], 4, "look for objective 'xxx"),
    "foreign file": (["--objective", __file__], 4, "is no objective file"),
    "directory": (["--objective", str(Path(__file__).parent)], 4, "no run '"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_usage_is_one_line_and_writes_nothing(
    run, objective: Path, tmp_path: Path, case: str
) -> None:
    arguments, exit_code, part = REFUSED[case]
    given = [] if case == "no environment" else ["--env", "pendulum"]
    outcome = run(*given, "--objective", str(objective), *arguments)
    assert part in outcome.refusal
    assert outcome.exit_code == exit_code
    assert list(tmp_path.iterdir()) == [objective]


@pytest.mark.parametrize("size", [0, 100, 40_000])
def test_a_damaged_objective_is_a_bad_file(run, objective: Path, tmp_path: Path, size: int) -> None:
    objective.write_bytes(objective.read_bytes()[:size])
    outcome = run("--env", "pendulum", "--objective", str(objective))
    assert outcome.exit_code == 4
    assert str(objective) in outcome.refusal
    assert list(tmp_path.iterdir()) == [objective]


def test_without_any_run_it_says_how_to_get_an_objective(run, tmp_path: Path) -> None:
    outcome = run("--env", "pendulum")
    assert outcome.exit_code == 4
    assert "make one with mgrl meta-train" in outcome.refusal
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named(
    run, objective: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "Box2D", None)
    outcome = run("--env", "lunar", "--objective", str(objective))
    assert outcome.exit_code == 2
    assert outcome.refusal.endswith("not installed: pip install 'mgrl[box2d]'")
    assert list(tmp_path.iterdir()) == [objective]


def test_a_taken_name_is_refused_and_the_old_run_left_alone(
    run, objective: Path, tmp_path: Path
) -> None:
    create_run_directory(tmp_path / "runs", "x", "stem").config.write_text("old")
    before = snapshot(tmp_path)
    outcome = run("--env", "pendulum", "--objective", str(objective), "--run", "x")
    assert outcome.exit_code == 2
    assert "exists and is never overwritten; choose another --run" in outcome.refusal
    assert snapshot(tmp_path) == before
