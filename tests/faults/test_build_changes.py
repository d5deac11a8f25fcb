"""Stopped and continued: the same bits on real environments, and a warning where that is in doubt.

`tests/runtime/test_resumption.py` stops at random moments; here it is the end of every round.
"""

import shutil
from pathlib import Path

import pytest
import torch

from mgrl_cli.config import RunConfig
from mgrl_cli.errors import Interrupted
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.run_dir.build import Build, this_build
from mgrl_cli.run_dir.checkpoints import checkpoint_paths
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.manifest import MANIFEST_NAME, read_manifest
from mgrl_cli.runtime.launch import claim_run, meta_train
from mgrl_cli.runtime.resumption import resume
from tests.commands.tiny_runs import Outcome
from tests.faults.tally import trial
from tests.runtime.conftest import Remembering, fingerprint, run_tiny, tiny_config
from tests.runtime.stopping import StopAfterRound

EVERY_CHECKPOINT = ("checkpoints.interval_s=0", "checkpoints.keep=10000")

REAL = {
    "hopper": {"steps": 180},
    "lunar": {"steps": 360},
    # Episodes of 1000 steps: one in round 1, none in round 2, another in round 3.
    "cheetah": {"steps": 1500, "assignments": ("schedule.round_steps=500",)},
}


# ---- row 34: real environments, stopped at every round's end


@pytest.mark.parametrize(
    "env",
    [
        "hopper",
        pytest.param("lunar", marks=pytest.mark.slow),
        pytest.param("cheetah", marks=pytest.mark.slow),
    ],
)
def test_a_run_stopped_at_every_rounds_end_gives_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: str
) -> None:
    pytest.importorskip("Box2D" if env == "lunar" else "mujoco")
    monkeypatch.chdir(tmp_path)  # MuJoCo drops its log file into the working directory
    options = dict(REAL[env])
    options["assignments"] = (*EVERY_CHECKPOINT, *options.pop("assignments", ()))
    config = tiny_config(envs=(env,), agents=1, **options)
    with trial("34 stopped at every round's end", config.num_rounds - 1):
        whole = run_tiny(config, tmp_path, "whole", workers=0)
        run = claim_run(config, tmp_path, "run")
        with pytest.raises(Interrupted):
            meta_train(config, run, StopAfterRound(1), workers=0)
        for finished in range(2, config.num_rounds):
            with pytest.raises(Interrupted, match=f"after round {finished} of"):
                resume(run, StopAfterRound(finished), workers=0, say=lambda _: None)
        resume(run, Remembering(), workers=0, say=lambda _: None)
        assert fingerprint(run) == fingerprint(whole)


# ---- row 35: continued by another build


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return tiny_config(assignments=EVERY_CHECKPOINT)


@pytest.fixture(scope="module")
def whole(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return fingerprint(run_tiny(config, tmp_path_factory.mktemp("whole"), "run", workers=0))


@pytest.fixture(scope="module")
def stopped(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after its second round; copy it."""
    run = claim_run(config, tmp_path_factory.mktemp("stopped"), "run")
    with pytest.raises(Interrupted):
        meta_train(config, run, StopAfterRound(2), workers=0)
    return run.path


def doctored(**changes: object) -> Build:
    return this_build().model_copy(update=changes)


BUILDS = {
    "torch": (
        doctored(packages={**this_build().packages, "torch": "1.0.0"}),
        f"torch 1.0.0 → {torch.__version__}",
    ),
    "threads": (doctored(threads=2), "threads 2 → 1"),
    "device": (doctored(device="cuda"), "device cuda → cpu"),
}


@pytest.mark.parametrize("what", BUILDS)
def test_another_build_is_named_in_one_line_and_the_run_goes_on(
    whole: dict[str, object],
    stopped: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    what: str,
) -> None:
    build, difference = BUILDS[what]
    run = RunDirectory(shutil.copytree(stopped, tmp_path / "run"))
    path = checkpoint_paths(run)[-1] / MANIFEST_NAME
    path.write_bytes(read_manifest(path).model_copy(update={"build": build}).to_bytes())
    with trial("35 continued by another build"):
        outcome = Outcome(capsys, ["resume", str(run.path), "--workers", "0"])
        assert outcome.exit_code == 0, outcome.err
        (line,) = [line for line in outcome.err.splitlines() if "bit-identical" in line]
        assert line.endswith(f"not be bit-identical to an uninterrupted run: {difference}")
        assert read_manifest(checkpoint_paths(run)[-1] / MANIFEST_NAME).build == this_build()
        assert torch.isfinite(LearnedObjective.load(run.objective).params).all()
        assert fingerprint(run) == whole  # in truth it was this build all the time


def test_the_same_build_is_not_mentioned(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    outcome = Outcome(capsys, ["resume", str(run), "--workers", "0"])
    assert outcome.exit_code == 0
    assert "bit-identical" not in outcome.err
