"""`mgrl meta-train` in this process: what it leaves, what it prints, and what it refuses."""

import sys
from pathlib import Path

import pytest

from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.run_dir.layout import RunDirectory, create_run_directory
from mgrl_cli.run_dir.settings import read_settings
from tests.commands.tiny_runs import Outcome, json_lines, snapshot, tiny


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run a tiny `mgrl meta-train` with these arguments."""
    return lambda *arguments: Outcome(
        capsys, tiny("meta-train", *arguments, runs_dir=tmp_path / "runs")
    )


def test_a_run_leaves_an_objective_and_prints_where(run, tmp_path: Path) -> None:
    outcome = run("--envs", "pendulum,cartpole", "--agents", "2", "--seed", "5", "--quiet")
    assert (outcome.exit_code, outcome.err) == (0, "")
    directory = RunDirectory(tmp_path / "runs" / "pendulum-cartpole-001")
    assert outcome.out == f"{directory.objective}\n"

    described = LearnedObjective.load(directory.objective).metadata
    assert described.environments == ("pendulum", "cartpole")
    assert (described.agents, described.seed, described.steps_per_agent) == (2, 5, 120)
    settings = read_settings(directory)
    assert (settings.agents, settings.seed, settings.policy.hidden) == (2, 5, 8)
    names = [path.name for path in directory.metrics.iterdir()]
    assert sorted(names) == ["agent-000.jsonl", "agent-001.jsonl", "population.jsonl"]


def test_json_gives_json_lines_alone_and_made_up_names_get_numbers(run, tmp_path: Path) -> None:
    for _ in range(2):
        outcome = run("--envs", "pendulum", "--agents", "1", "--json")
        assert outcome.exit_code == 0
        rounds = json_lines(outcome.out)
        assert [line["round_index"] for line in rounds] == [1, 2]  # 120 steps in rounds of 60
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["pendulum-001", "pendulum-002"]


def test_counts_in_the_list_make_the_population(run, tmp_path: Path) -> None:
    outcome = run("--envs", "cartpole:1,pendulum:2", "--run", "counted", "--steps", "60", "--quiet")
    assert outcome.exit_code == 0
    settings = read_settings(RunDirectory(tmp_path / "runs" / "counted"))
    assert settings.agents == 3
    assert "".join(settings.environment_of(i).id[0] for i in range(3)) == "cpp"


def test_environments_may_come_from_a_file(run, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[[envs]]\nid = "pendulum"\n[envs.randomise]\nmass_kg = [0.5, 2]\n')
    outcome = run(
        "--config", str(file), "--agents", "1", "--run", "filed", "--steps", "60", "--quiet"
    )
    assert outcome.exit_code == 0, outcome.err
    (env,) = read_settings(RunDirectory(tmp_path / "runs" / "filed")).envs
    assert env.randomise == {"mass_kg": (0.5, 2.0)}


REFUSED = {
    "no environments": ([], "'envs' is missing"),
    "unknown environment": (["--envs", "pendulm"], "Did you mean 'pendulum'? List them: mgrl envs"),
    "unknown second": (["--envs", "pendulum,lunr"], "'lunr'. Did you mean 'lunar'?"),
    "unknown module": (["--envs", "no_such_module:Thing-v0"], "No module named 'no_such_module'"),
    "discrete actions": (["--envs", "CartPole-v1"], "CartPole-v1: got action space Discrete(2)"),
    "empty list": (["--envs", ""], "--envs got ''"),
    "empty item": (["--envs", "pendulum,,cartpole"], "--envs got 'pendulum,,cartpole'"),
    "trailing comma": (["--envs", "pendulum,"], "--envs got 'pendulum,'"),
    "nobody": (["--envs", "lunar:0"], "--envs got 'lunar:0', expected at least one agent"),
    "negative count": (["--envs", "lunar:-1"], "'lunar:-1'"),
    "count without a name": (["--envs", ":3"], "Unknown environment ''"),
    "odd digit": (["--envs", "lunar:²"], "'lunar:²'"),
    "endless count": (["--envs", "lunar:" + "9" * 300], "'lunar:999"),
    "too many": (["--envs", "lunar:999999999"], "equal to 4096, got 999999999"),
    "some counts": (["--envs", "pendulum:1,cartpole"], "for every environment or for none"),
    "other total": (["--envs", "pendulum:2", "--agents", "3"], "--agents 3 contradicts"),
    "no agents": (["--envs", "pendulum", "--agents", "0"], "'agents': "),
    "too few": (["--envs", "pendulum,cartpole", "--agents", "1"], "agents=1 for 2 environments"),
    "a billion": (["--envs", "pendulum", "--agents", "1000000000"], "'agents': "),
    "no number": (["--envs", "pendulum", "--agents", "two"], "'two'"),
    "preset": (["--envs", "pendulum", "--preset", "papr"], "Did you mean 'paper'?"),
    "seed": (["--envs", "pendulum", "--seed", "-1"], "'seed': "),
    "steps": (["--envs", "pendulum", "--steps", "0"], "'steps': "),
    "workers": (["--envs", "pendulum", "--workers", "-1"], "'--workers'"),
    "cuda": (["--envs", "pendulum", "--device", "cuda"], "'cuda' is not supported yet"),
    "device": (["--envs", "pendulum", "--device", "tpu"], "unknown device 'tpu', expected cpu"),
    "set": (["--envs", "pendulum", "--set", "nonsense"], "--set got 'nonsense'"),
    "set key": (["--envs", "pendulum", "--set", "meta.aneal_steps=1"], "Did you mean 'anneal_st"),
    "set value": (["--envs", "pendulum", "--set", "critic.discount=nan"], "'critic.discount': "),
    "physics": (
        ["--set", "envs=[{id='pendulum', randomise={mas_kg=[1,2]}}]"],
        "Did you mean 'mass_kg'?",
    ),
    "traversal": (["--envs", "pendulum", "--run", "../x"], "run name '../x' is not usable"),
    "absolute": (["--envs", "pendulum", "--run", "/tmp/x"], "run name '/tmp/x' is not usable"),
    "empty name": (["--envs", "pendulum", "--run", ""], "run name '' is not usable"),
    "runs dir": (["--envs", "pendulum", "--runs-dir", "r\udcfcns"], "another --runs-dir"),
    "unknown to watch": (["--envs", "pendulum", "--watch", "reachr"], "Did you mean 'reacher'?"),
    "watch nothing": (["--envs", "pendulum", "--watch", ""], "--watch got ''"),
    "validate what": (["--envs", "pendulum", "--validate-every", "3"], "name them with --watch"),
    "validate never": (
        ["--envs", "pendulum", "--watch", "reacher", "--validate-every", "0"],
        "'validation.interval'",
    ),
    "NUL": (["--envs", "pendulum", "--run", "a\0b"], r"run name 'a\x00b' is not usable"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_usage_is_one_line_and_writes_nothing(run, tmp_path: Path, case: str) -> None:
    arguments, part = REFUSED[case]
    outcome = run(*arguments)
    assert part in outcome.refusal
    assert outcome.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_file_that_is_missing_is_a_bad_file(run, tmp_path: Path) -> None:
    outcome = run("--envs", "pendulum", "--config", str(tmp_path / "absent.toml"))
    assert outcome.exit_code == 4
    assert "does not exist" in outcome.refusal
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "Box2D", None)
    outcome = run("--envs", "pendulum,lunar")
    assert outcome.exit_code == 2
    assert outcome.refusal.endswith("not installed: pip install 'mgrl[box2d]'")
    assert list(tmp_path.iterdir()) == []


def test_a_taken_name_is_refused_and_the_old_run_left_alone(run, tmp_path: Path) -> None:
    create_run_directory(tmp_path / "runs", "x", "stem").config.write_text("old")
    before = snapshot(tmp_path)
    outcome = run("--envs", "pendulum", "--agents", "1", "--run", "x", "--quiet")
    assert outcome.exit_code == 2
    assert "exists and is never overwritten; choose another --run" in outcome.refusal
    assert snapshot(tmp_path) == before


def test_a_run_killed_before_it_had_settings_is_started_again_under_its_name(
    run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = create_run_directory(tmp_path / "runs", "x", "stem")
    unfinished = left.path / f".config.toml.{'0' * 32}.partial"
    unfinished.write_text("half of some settings")
    outcome = Outcome(capsys, ["resume", "x", "--runs-dir", str(tmp_path / "runs")])
    assert outcome.exit_code == 4
    assert outcome.refusal.endswith("start it again as before, with --run x")

    outcome = run("--envs", "pendulum", "--agents", "1", "--run", "x", "--quiet")
    assert outcome.exit_code == 0
    assert outcome.out == f"{left.objective}\n"
    assert not unfinished.exists()


def test_a_file_in_the_place_of_the_runs_is_a_storage_error(run, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("mine")
    outcome = run("--envs", "pendulum")
    assert outcome.exit_code == 7
    assert "cannot create a run" in outcome.refusal
    assert (tmp_path / "runs").read_text() == "mine"
