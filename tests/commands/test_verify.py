"""`mgrl verify` in this process: what it prints, how it exits, and that a live run is no damage."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mgrl_cli.cli import build_app, main
from mgrl_cli.cli import run as run_app
from mgrl_cli.commands.envs import envs
from mgrl_cli.commands.verify import verify
from mgrl_cli.inspection.verification import verify as prove
from mgrl_cli.run_dir.checkpoints import checkpoint_paths
from mgrl_cli.run_dir.layout import RunDirectory
from tests.commands.tiny_runs import snapshot, tiny

LOOKS = 15
CHECKPOINTS = 3
"""Seen as the newest in between: the run did go on meanwhile."""
OPTIONS = ("--envs", "pendulum,cartpole", "--agents", "2", "--run", "a", "--quiet")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs_dir = tmp_path_factory.mktemp("verify")
    assert main(tiny("meta-train", *OPTIONS, runs_dir=runs_dir)) == 0
    return runs_dir / "a"


@pytest.fixture
def mgrl(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `mgrl verify` and return exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        # A second command, or the application would take no command's name.
        app = build_app({"verify": verify, "envs": envs})
        capsys.readouterr()
        exit_code = run_app(app, ["verify", *map(str, arguments)])
        captured = capsys.readouterr()
        return exit_code, captured.out, captured.err

    return call


Mgrl = Callable[..., tuple[int, str, str]]


def test_a_whole_run_is_told_part_by_part(template: Path, mgrl: Mgrl) -> None:
    before = snapshot(template)
    exit_code, out, err = mgrl(template)
    lines = out.splitlines()
    assert (exit_code, err) == (0, "")
    assert lines[0] == "directory: whole"
    assert lines[2].startswith("checkpoint round-000002: 5 files, ")
    assert lines[2].endswith(" KiB, whole")
    assert lines[-1].startswith("whole: ")
    assert " 2 agents with " in lines[-1]
    assert lines[-1].endswith(" read")
    assert snapshot(template) == before


def test_json_is_one_document(template: Path, mgrl: Mgrl) -> None:
    exit_code, out, err = mgrl(template, "--json")
    document = json.loads(out)
    assert (exit_code, err) == (0, "")
    assert list(document) == ["path", "kind", "whole", "parts", "problems", "notes"]
    assert (document["path"], document["kind"], document["whole"]) == (str(template), "run", True)
    assert {part["finding"] for part in document["parts"]} == {"whole"}
    checkpoint = next(part for part in document["parts"] if part["part"].startswith("checkpoint"))
    files = checkpoint_paths(RunDirectory(template))[-1].iterdir()
    assert checkpoint["bytes"] == sum(file.stat().st_size for file in files)


@pytest.fixture
def damaged(template: Path) -> Iterator[list[Path]]:
    """Two files of the run with one bit changed, as long as a test lasts."""
    files = [RunDirectory(template).objective, RunDirectory(template).agent_metrics(0)]
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    yield files
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)


def test_damage_is_told_after_the_report_and_exits_4(
    template: Path, mgrl: Mgrl, damaged: list[Path]
) -> None:
    exit_code, out, err = mgrl(template)
    *_, first, second, summary = out.splitlines()
    assert exit_code == 4
    assert first.startswith(f"problem: '{damaged[1]}'")
    assert second.startswith("problem: objective file ")
    assert summary.startswith("damaged, 2 problems: ")
    assert err.count("\n") == 1
    assert err.startswith(f"mgrl: error: '{template}' is damaged: '{damaged[1]}'")
    assert "(and 1 more problem)" in err


@pytest.mark.usefixtures("damaged")
def test_damage_is_in_the_document_too(template: Path, mgrl: Mgrl) -> None:
    exit_code, out, _ = mgrl(template, "--json")
    document = json.loads(out)
    assert exit_code == 4
    assert not document["whole"]
    assert len(document["problems"]) == 2
    found = {part["part"]: part["finding"] for part in document["parts"]}
    assert (found["metrics"], found["objectives"], found["settings"]) == (
        "damaged",
        "damaged",
        "whole",
    )


def test_what_is_not_ours_is_one_line(tmp_path: Path, mgrl: Mgrl) -> None:
    exit_code, out, err = mgrl(tmp_path)
    assert (exit_code, out, err.count("\n")) == (4, "", 1)


def test_names_from_elsewhere_cannot_steer_the_terminal(tmp_path: Path, mgrl: Mgrl) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "agent-\x1b[31m\n.jsonl").write_text("nonsense\n")
    exit_code, out, err = mgrl(tmp_path)
    assert exit_code == 4
    assert "\x1b" not in out + err
    assert r"agent-\x1b[31m\n.jsonl" in out


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_run_that_goes_on_gives_no_false_alarm(tmp_path: Path) -> None:
    """Looked at from its first file on, then for as long as it makes checkpoints and drops them."""
    run = RunDirectory(tmp_path / "a")
    often = ("--steps", "1000000", "--set", "checkpoints.interval_s=0.0")
    few = ("--set", "checkpoints.keep=1", "--set", "schedule.round_steps=20")
    command = tiny("meta-train", *OPTIONS, *often, *few, runs_dir=tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "mgrl_cli", *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(run.config.exists, process)
        problems = list(prove(run.path).problems)
        wait_for(lambda: len(checkpoint_paths(run)) > 0, process)
        seen: set[str] = set()
        looks, end = 0, time.monotonic() + 60
        while looks < LOOKS or len(seen) < CHECKPOINTS:
            assert time.monotonic() < end
            assert process.poll() is None
            problems += prove(run.path).problems
            seen.add(checkpoint_paths(run)[-1].name)
            looks += 1
        assert problems == []
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert prove(run.path).problems == ()
