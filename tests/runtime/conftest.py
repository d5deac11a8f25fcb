"""Tiny runs: small enough for a test, whole enough to mean something."""

import hashlib
import json
from pathlib import Path

import pytest

from mgrl_cli.config import RunConfig
from mgrl_cli.presets import resolve_config
from mgrl_cli.replay.reader import ReplayReader, agent_groups
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.runtime.launch import claim_run, meta_train
from mgrl_cli.telemetry import RunSnapshot

TINY = (
    "policy.hidden=8",
    "critic.hidden=8",
    "windows.batch=4",
    "windows.steps=6",
    "schedule.round_steps=60",
    "schedule.updates_start=60",
    "exploration.random_steps=60",
    "meta.anneal_steps=120",
    "evaluation.interval=60",
    "evaluation.episodes=1",
)


class LastSnapshot:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.snapshots: list[RunSnapshot] = []

    def update(self, snapshot: RunSnapshot) -> None:
        self.snapshots.append(snapshot)


def tiny_config(envs: tuple[str, ...] = ("pendulum", "cartpole"), **options: object) -> RunConfig:
    assignments = (*TINY, *options.pop("assignments", ()))  # type: ignore[misc]
    return resolve_config(
        kind=options.pop("kind", "meta-train"),  # type: ignore[arg-type]
        preset="smoke",
        assignments=assignments,
        options={"envs": [{"id": env} for env in envs], "steps": 180, **options},
    )


def run_tiny(config: RunConfig, runs_dir: Path, name: str, *, workers: int) -> RunDirectory:
    run = claim_run(config, runs_dir, name)
    meta_train(config, run, LastSnapshot(), workers=workers)
    return run


def fingerprint(run: RunDirectory) -> dict[str, object]:
    """Everything a run leaves that must not depend on timing."""
    objectives = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in [run.objective, *sorted((run.path / "objectives").iterdir())]
    }
    metrics = {}
    for path in sorted(run.metrics.iterdir()):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        metrics[path.name] = [{k: v for k, v in row.items() if k != "elapsed_s"} for row in rows]
    replay = {}
    for group in agent_groups(run.buffer):
        reader = ReplayReader(group)
        digest = hashlib.sha256()
        for field in ("obs", "action", "raw_action", "reward", "terminated", "objective_version"):
            digest.update(reader.read(field, 0, reader.committed_rows).tobytes())
        replay[group.name] = digest.hexdigest()
    return {"objectives": objectives, "metrics": metrics, "replay": replay}


@pytest.fixture
def faulty_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of environments that fail, importable here and in worker processes."""
    source = """
import os
import gymnasium, numpy as np
from gymnasium.spaces import Box

class Faulty(gymnasium.Env):
    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)
    def __init__(self, fault="raise", after=150):
        self.fault, self.after, self.steps = fault, after, 0
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.in_episode = 0
        return np.zeros(2, np.float32), {}
    def step(self, action):
        self.steps += 1
        self.in_episode += 1
        reward = 1.0
        if self.steps == self.after:
            if self.fault == "raise":
                raise RuntimeError("the motor burned out")
            if self.fault == "nan":
                reward = float("nan")
            if self.fault == "die":
                os._exit(9)
        obs = np.full(2, self.in_episode / 20, np.float32)
        return obs, reward, self.in_episode >= 20, False, {}

gymnasium.register("Faulty-v0", entry_point="faulty_module:Faulty")
"""
    (tmp_path / "faulty_module.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "faulty_module:Faulty-v0"
