"""Small real replays, objectives and runs, written by the code that writes them in earnest."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mgrl_cli import cli
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork, ObjectiveShape
from mgrl_cli.config import RunConfig
from mgrl_cli.objective_file import LearnedObjective, ObjectiveMetadata
from mgrl_cli.presets import resolve_config
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.replay.schema import BehaviourKind, Episode
from mgrl_cli.run_dir.file_record import record_of_file
from mgrl_cli.run_dir.layout import RunDirectory, create_run_directory
from mgrl_cli.run_dir.metrics_file import MetricsFile
from mgrl_cli.run_dir.settings import write_settings
from tests.commands.tiny_runs import tiny

ATTRIBUTES = {"environment": "mgrl/Pendulum-v0", "rule": "learned", "environment_kwargs": {"g": 9}}


def build_episode(
    rewards: list[float],
    *,
    obs: list[list[float]] | None = None,
    actions: list[list[float]] | None = None,
    is_random: bool = False,
    is_truncated: bool = False,
    life: int = 0,
    version: int = 0,
) -> Episode:
    """An episode with these rewards; observation t is (t, 1), every action (0.5, -0.25)."""
    length = len(rewards)
    action = np.array(actions or [[0.5, -0.25]] * length, np.float32)
    at_end = np.arange(length) == length - 1
    return Episode(
        obs=np.array(obs or [[t, 1.0] for t in range(length + 1)], np.float32),
        action=action,
        raw_action=action,
        behaviour_mean=action,
        behaviour_kind=np.full(
            length, BehaviourKind.RANDOM if is_random else BehaviourKind.POLICY, np.uint8
        ),
        reward=np.array(rewards, np.float32),
        terminated=at_end & (not is_truncated),
        truncated=at_end & is_truncated,
        objective_version=np.full(length, version, np.int64),
        seed=1,
        life=life,
    )


def write_replay(path: Path, episodes: list[Episode]) -> Path:
    """Commit the episodes to a new group of two observations and two actions."""
    log = ReplayLog.create(path, obs_size=2, act_size=2, attributes=ATTRIBUTES)
    for episode in episodes:
        log.append(episode)
    log.commit()
    return path


def build_objective(*, last_layer: str = "plain", meta_steps: int = 5) -> LearnedObjective:
    metadata = ObjectiveMetadata(
        width=4,
        signal_features=2,
        window_steps=6,
        window_batch=2,
        inner_step="unit",
        inner_step_size=0.03,
        environments=("pendulum",),
        steps_per_agent=100,
        agents=2,
        meta_steps=meta_steps,
        seed=0,
        packages={"torch": "2"},
    )
    network = ObjectiveNetwork(ObjectiveShape(width=4, signal_features=2))
    params = network.initialise(np.random.default_rng(0), last_layer=last_layer)
    return LearnedObjective(params, metadata)


def metrics_row(agent_id: int, round_index: int, **figures: object) -> dict[str, object]:
    """A row as agents write it; only what inspection reads."""
    return {
        "agent_id": agent_id,
        "environment": "pendulum",
        "rule": "learned",
        "seed": agent_id,
        "round": round_index,
        "life": 0,
        "env_steps": 250 * round_index,
        "episodes": 2 * round_index,
        "mean_return": 10.0 * round_index + agent_id,
        "evaluation": None,
        "gain": None,
        "cosine": 0.25,
        "inner_gradient_norm": 1.0,
        "meta_gradient_norm": 2.0,
        "action_slack": 0.5,
        "critic_loss": 1.5,
        "skipped_updates": 0,
        **figures,
    }


def append_row(path: Path, row: dict[str, object]) -> None:
    """Append to a metrics file, which need not be there yet."""
    file = MetricsFile.cut_back(path, record_of_file(path)) if path.exists() else MetricsFile(path)
    file.append(row)


def settings(kind: str, **options: object) -> RunConfig:
    chosen = {"envs": [{"id": "pendulum"}, {"id": "cartpole"}], "agents": 2, **options}
    return resolve_config(kind=kind, preset="smoke", options=chosen)


def write_run(run: RunDirectory) -> None:
    """Fill a meta-training of two agents after two of its six rounds."""
    write_settings(run, settings("meta-train"))
    build_objective().save(run.objective)
    for agent_id in range(2):
        append_row(run.agent_metrics(agent_id), metrics_row(agent_id, 1))
        second = metrics_row(agent_id, 2, evaluation=10.0 + agent_id, gain=0.125)
        append_row(run.agent_metrics(agent_id), second)
        write_replay(run.agent_buffer(agent_id), [build_episode([1.0, 2.0])])
    for index in (1, 2):
        append_row(run.population_metrics, {"round": index})


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)


@pytest.fixture(scope="session")
def episode() -> Callable[..., Episode]:
    return build_episode


@pytest.fixture(scope="session")
def replay_at() -> Callable[[Path, list[Episode]], Path]:
    return write_replay


@pytest.fixture(scope="session")
def objective() -> Callable[..., LearnedObjective]:
    return build_objective


@pytest.fixture(scope="session")
def row() -> Callable[..., dict[str, object]]:
    return metrics_row


@pytest.fixture(scope="session")
def append() -> Callable[[Path, dict[str, object]], None]:
    return append_row


@pytest.fixture(scope="session")
def config() -> Callable[..., RunConfig]:
    return settings


@pytest.fixture(scope="session")
def run_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = create_run_directory(tmp_path_factory.mktemp("runs"), "a", "unused")
    write_run(run)
    return run.path


@pytest.fixture
def run(tmp_path: Path, run_template: Path) -> RunDirectory:
    """A meta-training of two agents after two of its six rounds, to be changed at will."""
    return RunDirectory(shutil.copytree(run_template, tmp_path / "runs" / "a"))


@pytest.fixture(scope="session")
def finished_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs_dir = tmp_path_factory.mktemp("finished")
    options = ("--envs", "pendulum,cartpole", "--agents", "2", "--run", "a", "--quiet")
    every_round = ("--set", "checkpoints.interval_s=0.0")
    assert cli.main(tiny("meta-train", *options, *every_round, runs_dir=runs_dir)) == 0
    return runs_dir / "a"


@pytest.fixture
def finished(tmp_path: Path, finished_template: Path) -> RunDirectory:
    """A real meta-training of two agents and two rounds, with a checkpoint after each."""
    return RunDirectory(shutil.copytree(finished_template, tmp_path / "runs" / "done"))


@pytest.fixture(scope="session")
def damage() -> Callable[[Path], None]:
    return flip_last_byte
