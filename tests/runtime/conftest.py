"""Tiny runs: small enough for a test, whole enough to mean something."""

import hashlib
import json
from pathlib import Path

from mgrl_cli.config import RunConfig
from mgrl_cli.presets import resolve_config
from mgrl_cli.replay.reader import ReplayReader, agent_groups
from mgrl_cli.replay.schema import FIELDS
from mgrl_cli.run_dir.checkpoints import checkpoint_paths
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


class Remembering:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.snapshots: list[RunSnapshot] = []
        self.events: list[str] = []

    def update(self, snapshot: RunSnapshot) -> None:
        self.snapshots.append(snapshot)

    def announce(self, event: str) -> None:
        self.events.append(event)


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
    meta_train(config, run, Remembering(), workers=workers)
    return run


def fingerprint(run: RunDirectory) -> dict[str, object]:
    """Everything a run leaves that must not depend on timing, however it came to its end."""
    objectives = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in [run.objective, *sorted(run.objectives.glob("*"))]
    }
    metrics = {}
    for path in sorted(run.metrics.iterdir()):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        metrics[path.name] = [{k: v for k, v in row.items() if k != "elapsed_s"} for row in rows]
    replay = {}
    for group in agent_groups(run.buffer):
        reader = ReplayReader(group)
        digest = hashlib.sha256()
        for field in FIELDS.values():
            rows = reader.committed_episodes if field.per_episode else reader.committed_rows
            digest.update(reader.read(field.name, 0, rows).tobytes())
        replay[group.name] = digest.hexdigest()
    newest = checkpoint_paths(run)[-1]
    checkpoint = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(newest.glob("*.safetensors"))
    }
    return {
        "objectives": objectives,
        "metrics": metrics,
        "replay": replay,
        "newest checkpoint": newest.name,
        "checkpoint": checkpoint,
    }
