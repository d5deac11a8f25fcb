"""Runs that were stopped and continued: the same bits as if nothing had happened."""

import itertools
import os
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
from tests.runtime.stopping import run_with_stops, signal_after

LIVES = ("meta.lifetime=100", "meta.reset=agent", "checkpoints.interval_s=0.2")


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return tiny_config(agents=3, assignments=LIVES, steps=240)


@pytest.fixture(scope="module")
def whole(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a run that nothing stopped leaves."""
    return fingerprint(run_tiny(config, tmp_path_factory.mktemp("whole"), "run", workers=0))


def train(config: RunConfig, run: RunDirectory, workers: int = 0) -> None:
    """Begin a run, or continue it where it has begun."""
    if run.checkpoints.exists():
        resume(run, Remembering(), workers=workers, say=lambda _: None)
    else:
        meta_train(config, run, Remembering(), workers=workers)


def waits_s(seed: int, longest_s: float) -> Iterator[float]:
    """Random waits that grow, so that a slow machine comes to an end too."""
    rng = np.random.default_rng(seed)
    return (float(rng.uniform(0.02, longest_s * 1.2**i)) for i in itertools.count())


def test_a_run_stopped_again_and_again_ends_with_the_same_bits(
    config: RunConfig, whole: dict[str, object], tmp_path: Path
) -> None:
    run = claim_run(config, tmp_path, "run")
    stops = run_with_stops(lambda: train(config, run), waits_s(0, 0.4))
    assert stops >= 3
    assert fingerprint(run) == whole


def test_a_stop_in_the_middle_of_updates_loses_none_of_them(
    config: RunConfig, whole: dict[str, object], tmp_path: Path
) -> None:
    run = claim_run(config, tmp_path, "run")
    manifest = None
    for attempt in itertools.count(1):  # until a stop does not fall into play
        with pytest.raises(Interrupted), signal_after(0.15 * attempt):
            train(config, run)
        manifest = read_manifest(checkpoint_paths(run)[-1] / MANIFEST_NAME)
        if manifest.updates:
            break
    assert manifest is not None
    assert run.path.name not in manifest.name
    train(config, run)
    assert fingerprint(run) == whole


@pytest.mark.parametrize("workers", [2, 3])
def test_a_run_is_continued_exactly_by_any_number_of_workers(
    config: RunConfig,
    whole: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    monkeypatch.chdir(tmp_path)  # as by default: a relative path, which workers see from elsewhere
    run = claim_run(config, Path("runs"), "run")
    with pytest.raises(Interrupted), signal_after(0.5):
        train(config, run)
    train(config, run, workers)
    assert fingerprint(run) == whole


def test_a_stopped_meta_test_is_continued_exactly(tmp_path: Path) -> None:
    objective = LearnedObjective.load(
        run_tiny(tiny_config(), tmp_path, "trained", workers=0).objective
    )
    config = tiny_config(
        envs=("cartpole",), kind="meta-test", rules=["learned", "ddpg", "untrained"], seeds=2
    )
    undisturbed, run = claim_run(config, tmp_path, "whole"), claim_run(config, tmp_path, "run")
    meta_test(config, undisturbed, objective, Remembering(), workers=0)

    def attempt() -> None:
        if run.checkpoints.exists():
            resume(run, Remembering(), workers=0, say=lambda _: None)
        else:
            meta_test(config, run, objective, Remembering(), workers=0)

    assert run_with_stops(attempt, waits_s(1, 1.0)) >= 2
    assert fingerprint(run) == fingerprint(undisturbed)


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    run = run_tiny(tiny_config(), tmp_path, "run", workers=0)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    assert standing_of(run).is_finished
    resume(run, Remembering(), workers=0, say=lambda _: None)
    after = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    before.pop(run.lock), after.pop(run.lock)
    assert after == before


def test_a_damaged_checkpoint_is_passed_over_and_said_so(
    config: RunConfig, whole: dict[str, object], tmp_path: Path
) -> None:
    run = stopped_run(config, tmp_path)
    newest = checkpoint_paths(run)[-1]
    damage(newest / "agent-001.safetensors")
    said: list[str] = []
    resume(run, Remembering(), workers=0, say=said.append)
    assert any("damaged" in line and newest.name in line for line in said)
    assert fingerprint(run) == whole
    assert list(run.checkpoints.glob(f".damaged-{newest.name}*"))


def test_a_run_whose_checkpoints_are_all_damaged_never_starts_over(
    config: RunConfig, tmp_path: Path
) -> None:
    run = stopped_run(config, tmp_path)
    for path in checkpoint_paths(run):
        damage(path / "objective.safetensors")
    with pytest.raises(FileError, match=r"no checkpoint of .* is whole"):
        resume(run, Remembering(), workers=0, say=lambda _: None)


def test_metrics_without_checkpoints_never_start_over(config: RunConfig, tmp_path: Path) -> None:
    run = stopped_run(config, tmp_path)
    run.checkpoints.rename(tmp_path / "elsewhere")
    with pytest.raises(FileError, match="no checkpoint"):
        resume(run, Remembering(), workers=0, say=lambda _: None)


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
    config: RunConfig, whole: dict[str, object], tmp_path: Path
) -> None:
    run = stopped_run(config, tmp_path)
    changed = config.model_copy(
        update={"critic": config.critic.model_copy(update={"discount": 0.9})}
    )
    write_settings(run, changed)
    with pytest.raises(FileError, match=r"config\.toml"):
        resume(run, Remembering(), workers=0, say=lambda _: None)
    rarer = config.checkpoints.model_copy(update={"interval_s": 1000.0, "keep": 1})
    write_settings(run, config.model_copy(update={"checkpoints": rarer}))
    resume(run, Remembering(), workers=0, say=lambda _: None)
    assert fingerprint(run) == whole


def test_a_locked_run_is_refused_and_left_alone(config: RunConfig, tmp_path: Path) -> None:
    run = stopped_run(config, tmp_path)
    with locked(run), pytest.raises(RunLockedError, match=str(os.getpid())):
        resume(run, Remembering(), workers=0, say=lambda _: None)


def test_a_link_inside_a_run_is_refused(config: RunConfig, tmp_path: Path) -> None:
    run = stopped_run(config, tmp_path)
    victim = tmp_path / "precious.txt"
    victim.write_text("keep me")
    run.agent_metrics(0).unlink()
    run.agent_metrics(0).symlink_to(victim)
    with pytest.raises(FileError, match="symbolic link"):
        resume(run, Remembering(), workers=0, say=lambda _: None)
    assert victim.read_text() == "keep me"


def stopped_run(config: RunConfig, runs_dir: Path) -> RunDirectory:
    """Return a run that was stopped on its way and has several checkpoints."""
    run = claim_run(config, runs_dir, "run")
    for wait_s in itertools.count(1):
        with pytest.raises(Interrupted), signal_after(0.25 * wait_s):
            train(config, run)
        if len(checkpoint_paths(run)) > 1 and run.population_metrics.stat().st_size:
            return run
    raise AssertionError


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
