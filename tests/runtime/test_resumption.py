"""Runs that were stopped and continued: the same bits as if nothing had happened."""

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mgrl_cli.cli import main
from mgrl_cli.config import EnvConfig, RunConfig
from mgrl_cli.errors import FileError, Interrupted, RunLockedError
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.run_dir.checkpoints import checkpoint_paths
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.lock import locked
from mgrl_cli.run_dir.manifest import MANIFEST_NAME, read_manifest
from mgrl_cli.run_dir.settings import write_settings
from mgrl_cli.runtime.launch import claim_run, meta_test, meta_train
from mgrl_cli.runtime.resumption import resume, standing_of
from tests.runtime.conftest import Remembering, fingerprint, run_tiny, tiny_config
from tests.runtime.stopping import StopAfterRound, run_with_stops, signal_at_beat

LIVES = ("meta.lifetime=100", "meta.reset=agent", "checkpoints.interval_s=0")


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return tiny_config(agents=3, assignments=LIVES, steps=240)


@pytest.fixture(scope="module")
def whole(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a run that nothing stopped leaves."""
    return fingerprint(run_tiny(config, tmp_path_factory.mktemp("whole"), "run", workers=0))


@pytest.fixture(scope="module")
def stopped_template(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = claim_run(config, tmp_path_factory.mktemp("stopped"), "run")
    with pytest.raises(Interrupted):
        meta_train(config, run, StopAfterRound(2), workers=0)
    return run


@pytest.fixture
def stopped(stopped_template: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A run that was stopped after two of its rounds, with a checkpoint of each."""
    return RunDirectory(shutil.copytree(stopped_template.path, tmp_path / "run"))


@pytest.fixture(scope="module")
def finished_template(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return run_tiny(tiny_config(), tmp_path_factory.mktemp("finished"), "run", workers=0)


@pytest.fixture
def finished(finished_template: RunDirectory, tmp_path: Path) -> RunDirectory:
    return RunDirectory(shutil.copytree(finished_template.path, tmp_path / "run"))


def train(config: RunConfig, run: RunDirectory, workers: int = 0) -> None:
    """Begin a run, or continue it where it has begun."""
    if run.checkpoints.exists():
        resume(run, Remembering(), workers=workers, say=lambda _: None)
    else:
        meta_train(config, run, Remembering(), workers=workers)


def beats(seed: int, latest: int) -> Iterator[int]:
    """Random beats that come ever later, so that the run comes to an end though it loses some."""
    rng = np.random.default_rng(seed)
    return (int(rng.integers(1, latest * 1.2**i)) for i in itertools.count())


def test_a_run_stopped_again_and_again_ends_with_the_same_bits(
    config: RunConfig, whole: dict[str, object], tmp_path: Path
) -> None:
    run = claim_run(config, tmp_path, "run")
    stops = run_with_stops(lambda: train(config, run), beats(0, 400))
    assert stops >= 3
    assert fingerprint(run) == whole


def test_a_stop_in_the_middle_of_updates_loses_none_of_them(
    config: RunConfig, whole: dict[str, object], tmp_path: Path
) -> None:
    run = claim_run(config, tmp_path, "run")
    with pytest.raises(Interrupted), signal_at_beat(600):
        train(config, run)
    manifest = read_manifest(checkpoint_paths(run)[-1] / MANIFEST_NAME)
    assert 0 < manifest.updates < 60
    train(config, run)
    assert fingerprint(run) == whole


def test_a_run_is_continued_exactly_by_another_number_of_workers(
    config: RunConfig,
    whole: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # as by default: a relative path, which workers see from elsewhere
    run = claim_run(config, Path("runs"), "run")
    with pytest.raises(Interrupted), signal_at_beat(500):
        train(config, run)
    train(config, run, workers=1)
    assert fingerprint(run) == whole


def test_a_stopped_meta_test_is_continued_exactly(finished: RunDirectory, tmp_path: Path) -> None:
    objective = LearnedObjective.load(finished.objective)
    config = tiny_config(envs=("cartpole",), kind="meta-test", rules=["learned", "ddpg"], seeds=1)
    undisturbed, run = claim_run(config, tmp_path, "whole"), claim_run(config, tmp_path, "test")
    meta_test(config, undisturbed, objective, Remembering(), workers=0)

    def attempt() -> None:
        if run.checkpoints.exists():
            resume(run, Remembering(), workers=0, say=lambda _: None)
        else:
            meta_test(config, run, objective, Remembering(), workers=0)

    assert run_with_stops(attempt, beats(1, 300)) >= 2
    assert fingerprint(run) == fingerprint(undisturbed)


def test_a_finished_run_stays_as_it_is(finished: RunDirectory) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*") if path.is_file()}
    assert standing_of(finished).is_finished
    resume(finished, Remembering(), workers=0, say=lambda _: None)
    after = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*") if path.is_file()}
    before.pop(finished.lock), after.pop(finished.lock)
    assert after == before


LITTER = (
    *("checkpoints/.staging-0/agent-000.safetensors", "objectives/.round-000003.0.partial"),
    *(".objective.safetensors.0.partial", "buffer.zarr/agent-001/reward/c/0.0.partial"),
)


def test_what_a_crash_left_in_a_finished_run_is_swept_unless_somebody_is_at_work(
    finished: RunDirectory,
) -> None:
    whole = {path for path in finished.path.rglob("*") if path != finished.checkpoints}
    finished.objectives.mkdir(exist_ok=True)
    for name in LITTER:
        (finished.path / name).parent.mkdir(exist_ok=True)
        (finished.path / name).write_text("half of something")
    with locked(finished):
        assert main(["resume", str(finished.path), "--quiet"]) == 0
    assert all((finished.path / name).is_file() for name in LITTER)
    assert main(["resume", str(finished.path), "--quiet"]) == 0
    whole |= {finished.objectives, finished.checkpoints}
    assert set(finished.path.rglob("*")) == whole


def test_a_damaged_checkpoint_is_passed_over_and_said_so(
    stopped: RunDirectory, whole: dict[str, object]
) -> None:
    newest = checkpoint_paths(stopped)[-1]
    damage(newest / "agent-001.safetensors")
    said: list[str] = []
    resume(stopped, Remembering(), workers=0, say=said.append)
    assert any("damaged" in line and newest.name in line for line in said)
    assert fingerprint(stopped) == whole
    assert list(stopped.checkpoints.glob(f".damaged-{newest.name}*"))


def test_a_run_whose_checkpoints_are_all_damaged_never_starts_over(stopped: RunDirectory) -> None:
    for path in checkpoint_paths(stopped):
        damage(path / "objective.safetensors")
    with pytest.raises(FileError, match=r"no checkpoint of .* is whole"):
        resume(stopped, Remembering(), workers=0, say=lambda _: None)


def test_metrics_without_checkpoints_never_start_over(
    stopped: RunDirectory, tmp_path: Path
) -> None:
    stopped.checkpoints.rename(tmp_path / "elsewhere")
    with pytest.raises(FileError, match="no checkpoint"):
        resume(stopped, Remembering(), workers=0, say=lambda _: None)


def test_a_run_stopped_before_its_first_checkpoint_says_that_it_starts_at_its_beginning(
    config: RunConfig, whole: dict[str, object], tmp_path: Path
) -> None:
    run = claim_run(config, tmp_path, "run")
    (run.buffer / "agent-000").mkdir(parents=True)  # as a worker killed while starting leaves it
    said: list[str] = []
    resume(run, Remembering(), workers=0, say=said.append)
    assert any("beginning" in line for line in said)
    assert fingerprint(run) == whole


def test_changed_settings_are_refused_and_others_may_change(
    config: RunConfig, stopped: RunDirectory, whole: dict[str, object]
) -> None:
    changed = config.model_copy(
        update={"critic": config.critic.model_copy(update={"discount": 0.9})}
    )
    write_settings(stopped, changed)
    with pytest.raises(FileError, match=r"config\.toml"):
        resume(stopped, Remembering(), workers=0, say=lambda _: None)
    rarer = config.checkpoints.model_copy(update={"interval_s": 1000.0, "keep": 1})
    write_settings(stopped, config.model_copy(update={"checkpoints": rarer}))
    resume(stopped, Remembering(), workers=0, say=lambda _: None)
    assert fingerprint(stopped) == whole


def test_a_locked_run_is_refused_and_left_alone(stopped: RunDirectory) -> None:
    with locked(stopped), pytest.raises(RunLockedError, match=str(os.getpid())):
        resume(stopped, Remembering(), workers=0, say=lambda _: None)


def test_a_link_inside_a_run_is_refused(stopped: RunDirectory, tmp_path: Path) -> None:
    victim = tmp_path / "precious.txt"
    victim.write_text("keep me")
    stopped.agent_metrics(0).unlink()
    stopped.agent_metrics(0).symlink_to(victim)
    with pytest.raises(FileError, match="symbolic link"):
        resume(stopped, Remembering(), workers=0, say=lambda _: None)
    assert victim.read_text() == "keep me"


def damage(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_program_that_came_with_a_run_is_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_config().model_copy(update={"envs": [EnvConfig(id="evil:Evil-v0")]})
    run = claim_run(settings, tmp_path, "stranger")
    canary = tmp_path / "canary"
    (run.path / "evil.py").write_text(f"open({str(canary)!r}, 'w')")
    monkeypatch.chdir(run.path)
    assert main(["resume", "."]) == 4
    assert not canary.exists()
