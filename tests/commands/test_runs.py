"""`mgrl runs`: what it says of runs in every state, and that it changes none of them."""

import json
import shutil
from pathlib import Path

import pytest

from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.lock import locked
from mgrl_cli.run_dir.settings import read_settings, write_settings
from tests.commands.tiny_runs import Outcome, snapshot, tiny


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, one that is to go on, one whose settings are gone."""
    runs_dir = tmp_path_factory.mktemp("runs")
    from mgrl_cli.cli import main

    argv = ["meta-train", "--envs", "pendulum,cartpole", "--run", "finished", "--quiet"]
    assert main(tiny(*argv, runs_dir=runs_dir)) == 0
    for name in ("longer", "damaged"):
        shutil.copytree(runs_dir / "finished", runs_dir / name)
    longer = RunDirectory(runs_dir / "longer")
    write_settings(longer, read_settings(longer).model_copy(update={"steps": 600}))
    (runs_dir / "damaged" / "config.toml").write_text("steps = [")
    (runs_dir / "no run").mkdir()
    return runs_dir


def test_runs_are_listed_with_their_states(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(RunDirectory(runs_dir / "finished")):
        during = Outcome(capsys, ["runs", "--runs-dir", str(runs_dir), "--json"])
    before = snapshot(runs_dir)
    outcome = Outcome(capsys, ["runs", "--runs-dir", str(runs_dir), "--json"])
    assert snapshot(runs_dir) == before
    states = {run["name"]: run["state"] for run in json.loads(outcome.out)["runs"]}
    assert states == {"damaged": "damaged", "finished": "finished", "longer": "interrupted"}
    states = {run["name"]: run["state"] for run in json.loads(during.out)["runs"]}
    assert states["finished"] == "running"


def test_the_table_shows_how_far_each_run_is(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = Outcome(capsys, ["runs", "--runs-dir", str(runs_dir)])
    assert outcome.exit_code == 0
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("longer")]
    assert "pendulum,cartpole" in line
    assert "2/10" in line
    assert "interrupted" in line


def test_a_directory_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = Outcome(capsys, ["runs", "--runs-dir", str(tmp_path / "absent")])
    assert outcome.exit_code == 4
    assert "absent" in outcome.refusal
