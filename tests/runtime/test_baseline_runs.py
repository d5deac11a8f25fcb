"""Runs without an objective: as exact as all others, with agents of every kind."""

from pathlib import Path

import pytest

pytest.importorskip("stable_baselines3", reason="the rule ppo needs the extra 'baselines'")

from mgrl_cli.agents.ppo_agent import PpoAgent
from mgrl_cli.config import RunConfig
from mgrl_cli.errors import Interrupted
from mgrl_cli.run_dir.checkpoints import checkpoint_paths, load_checkpoint
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.runtime.launch import claim_run, meta_test
from mgrl_cli.runtime.resumption import resume
from tests.runtime.conftest import Remembering, fingerprint, tiny_config
from tests.runtime.stopping import StopAfterRound, run_with_stops
from tests.runtime.test_resumption import beats


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return tiny_config(
        envs=("cartpole",),
        kind="meta-test",
        rules=["td3", "reinforce-is", "vpg", "ppo"],
        seeds=1,
        assignments=(
            *("td3.hidden=8", "td3.batch=16", "vpg.epoch_steps=70", "vpg.value_steps=3"),
            *("ppo.rollout_steps=64", "checkpoints.interval_s=0"),
        ),
    )


@pytest.fixture(scope="module")
def whole(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a run that nothing stopped leaves."""
    run = claim_run(config, tmp_path_factory.mktemp("whole"), "run")
    meta_test(config, run, None, Remembering(), workers=0)
    return bits(run)


def bits(run: RunDirectory) -> dict[str, object]:
    run.objective.touch()  # there is none, which the fingerprint does not know
    try:
        return fingerprint(run)
    finally:
        run.objective.unlink()


def attempt(config: RunConfig, run: RunDirectory) -> None:
    if run.checkpoints.exists():
        resume(run, Remembering(), workers=0, say=lambda _: None)
    else:
        meta_test(config, run, None, Remembering(), workers=0)


def test_processes_give_what_the_serial_twin_gives(
    config: RunConfig, whole: dict[str, object], tmp_path: Path
) -> None:
    run = claim_run(config, tmp_path, "run")
    meta_test(config, run, None, Remembering(), workers=2)
    assert bits(run) == whole


def test_a_run_stopped_again_and_again_ends_with_the_same_bits(
    config: RunConfig, whole: dict[str, object], tmp_path: Path
) -> None:
    run = claim_run(config, tmp_path, "run")
    assert run_with_stops(lambda: attempt(config, run), beats(0, 500)) >= 2
    assert bits(run) == whole


def test_a_run_stopped_before_its_first_checkpoint_needs_no_objective_to_begin(
    config: RunConfig, whole: dict[str, object], tmp_path: Path
) -> None:
    run = claim_run(config, tmp_path, "run")
    resume(run, Remembering(), workers=0, say=lambda _: None)
    assert bits(run) == whole


def test_a_ppo_that_cannot_be_played_again_is_out_and_the_others_go_on(
    config: RunConfig, whole: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with another release of the library: it would go on from somewhere else."""
    run = claim_run(config, tmp_path, "run")
    with pytest.raises(Interrupted):
        meta_test(config, run, None, StopAfterRound(2), workers=0)
    real = PpoAgent._collect

    def otherwise(agent: PpoAgent, objective_version: int) -> None:
        real(agent, objective_version)
        agent._model.policy.log_std.data += 0.01

    monkeypatch.setattr(PpoAgent, "_collect", otherwise)
    progress = Remembering()
    resume(run, progress, workers=0, say=lambda _: None)
    (event,) = [event for event in progress.events if "left the population" in event]
    assert event.startswith("agent-003 left")
    assert "ppo can be resumed only where" in event
    manifest = load_checkpoint(checkpoint_paths(run)[-1]).manifest
    assert set(manifest.quarantined) == {"agent-003"}
    assert manifest.rounds == config.num_rounds
    left = bits(run)["metrics"]
    agents = {name for name in whole["metrics"] if name.startswith("agent")}
    same = {name for name in agents if left[name] == whole["metrics"][name]}
    assert agents - same == {"agent-003.jsonl"}
