import json
import sys
from pathlib import Path

import pytest

from mgrl_cli.run_dir.checkpoints import checkpoint_paths
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.manifest import OBJECTIVE_NAME
from mgrl_cli.run_dir.settings import read_settings
from tests.commands.tiny_runs import Outcome, objective_file, tiny


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run a tiny `mgrl baseline` with these arguments."""
    return lambda *arguments: Outcome(
        capsys, tiny("baseline", *arguments, runs_dir=tmp_path / "runs")
    )


def test_a_run_of_baselines_is_an_ordinary_test_without_an_objective(
    run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run("ddpg,vpg,ddpg", "--env", "cartpole", "--seeds", "2", "--json")
    assert outcome.exit_code == 0, outcome.err
    directory = RunDirectory(tmp_path / "runs" / "baseline-ddpg-vpg-cartpole-001")
    assert [rule["rule"] for rule in json.loads(outcome.out)["rules"]] == ["ddpg", "vpg"]
    settings = read_settings(directory)
    assert (settings.kind, settings.rules, settings.agents) == ("meta-test", ["ddpg", "vpg"], 4)
    assert not directory.objective.exists()
    assert not any((path / OBJECTIVE_NAME).exists() for path in checkpoint_paths(directory))
    for command in ("verify", "inspect"):
        report = Outcome(capsys, [command, str(directory.path), "--json"])
        assert report.exit_code == 0, report.err
    assert Outcome(capsys, ["resume", str(directory.path), "--quiet"]).exit_code == 0


def test_three_seeds_are_the_default(run, tmp_path: Path) -> None:
    assert run("reinforce-is", "--env", "pendulum", "--quiet").exit_code == 0
    directory = RunDirectory(tmp_path / "runs" / "baseline-reinforce-is-pendulum-001")
    assert read_settings(directory).seeds == 3


REFUSED = {
    "unknown": ("td4", "NAME got 'td4'", "Did you mean 'td3'?"),
    "learned": ("learned", "needs an objective", "mgrl meta-test"),
    "empty": ("ddpg,", "NAME got 'ddpg,'", "expected names separated by commas"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_name_is_one_line_and_writes_nothing(run, tmp_path: Path, case: str) -> None:
    names, *parts = REFUSED[case]
    outcome = run(names, "--env", "pendulum")
    assert outcome.exit_code == 2
    assert all(part in outcome.refusal for part in parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["baseline", "meta-test"])
def test_a_missing_library_is_named_before_anything_is_written(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    objective = objective_file(tmp_path / "given.safetensors")
    arguments = {
        "baseline": ("baseline", "ppo"),
        "meta-test": ("meta-test", "--against", "ppo", "--objective", str(objective)),
    }[command]
    outcome = Outcome(capsys, tiny(*arguments, "--env", "pendulum", runs_dir=tmp_path / "runs"))
    assert outcome.exit_code == 2
    assert outcome.refusal.endswith("not installed: pip install 'mgrl[baselines]'")
    assert list(tmp_path.iterdir()) == [objective]
