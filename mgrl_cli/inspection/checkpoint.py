"""What a checkpoint holds: its place in the run, its agents, its tensors, whether it is whole.

Reads the manifest first: without it nothing else has a meaning.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mgrl_cli.agents.saved_agent import AgentRecord
from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.inspection.saved_parts import REPLAY_TAIL, read_agent, read_part
from mgrl_cli.run_dir.checkpoints import load_checkpoint
from mgrl_cli.run_dir.manifest import MANIFEST_NAME, Manifest, read_manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedAgentFigures:
    """One agent in a checkpoint. Counts are None where its file is not there or not readable."""

    name: str
    env_steps: int | None
    episodes: int | None
    updates: int | None
    life: int | None
    evaluation: float
    """The latest noise-free one; NaN: none yet."""
    replay_steps: int | None
    """Of the replay log, as far as it belongs to the checkpoint."""
    replay_episodes: int | None
    quarantine: str
    """Why the agent is out of the population; "": it is not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedTensor:
    """One tensor of a checkpoint."""

    file: str
    name: str
    shape: tuple[int, ...]
    norm: float
    is_finite: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointReport:
    """A checkpoint whose manifest is whole; its files need not be."""

    path: str
    name: str
    kind: str
    rounds: int
    """Rounds that every agent had finished."""
    updates: int
    """Updates of the round then in progress that were made; 0 at a round's end."""
    elapsed_s: float
    """Wall time of the run up to here."""
    best: str
    """Name of the run's best checkpoint at the time."""
    barren_meetings: int
    """Meta-steps in a row, up to here, in which no gradient was finite."""
    build: Mapping[str, object]
    """Packages, processor and threads that it was made with."""
    files: Mapping[str, int]
    """Size of every file in bytes, by name."""
    agents: tuple[SavedAgentFigures, ...]
    tensors: tuple[SavedTensor, ...]
    """Of networks, optimisers and objective."""
    is_whole: bool
    problems: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Of all files but the manifest."""
        return sum(self.files.values())


def inspect_checkpoint(path: Path) -> CheckpointReport:
    """Read a checkpoint and check it.

    Raises:
        FileError: the manifest is missing or damaged.
        StorageError: the operating system refused.
    """
    path = path.resolve()  # its own name is a part of it, and `path` may be "."
    manifest = read_manifest(path / MANIFEST_NAME)
    problems: list[str] = []
    try:
        load_checkpoint(path)
    except (FileError, StorageError) as error:
        problems.append(str(error))
    records, tensors = _read_files(path, manifest, problems)
    names = sorted({*records, *manifest.replay, *manifest.quarantined})
    return CheckpointReport(
        path=str(path),
        name=manifest.name,
        kind=manifest.kind,
        rounds=manifest.rounds,
        updates=manifest.updates,
        elapsed_s=manifest.elapsed_s,
        best=manifest.best,
        barren_meetings=manifest.barren_meetings,
        build=manifest.build.model_dump(),
        files={name: record.bytes for name, record in manifest.files.items()},
        agents=tuple(_figures(name, manifest, records.get(name)) for name in names),
        tensors=tuple(tensors),
        is_whole=not problems,
        problems=tuple(problems),
    )


def _read_files(
    path: Path, manifest: Manifest, problems: list[str]
) -> tuple[dict[str, AgentRecord], list[SavedTensor]]:
    """Return agents' records by name and all tensors; of unreadable files, add why they are."""
    records: dict[str, AgentRecord] = {}
    tensors: list[SavedTensor] = []
    for file in manifest.files:
        try:
            if file.startswith("agent-"):
                found, records[file.partition(".")[0]] = read_agent(path / file)
            else:
                found = read_part(path / file)
        except (FileError, StorageError) as error:
            problems.append(str(error))
        else:
            learned = sorted(name for name in found if not name.startswith(REPLAY_TAIL))
            tensors += [_saved_tensor(file, name, found[name]) for name in learned]
    return records, tensors


def _figures(name: str, manifest: Manifest, record: AgentRecord | None) -> SavedAgentFigures:
    replay = manifest.replay.get(name)
    counters = record.counters if record is not None else None
    return SavedAgentFigures(
        name=name,
        env_steps=counters.env_steps if counters is not None else None,
        episodes=counters.episodes if counters is not None else None,
        updates=counters.updates if counters is not None else None,
        life=counters.life if counters is not None else None,
        evaluation=manifest.evaluations.get(name, math.nan),
        replay_steps=replay.rows if replay is not None else None,
        replay_episodes=replay.episodes if replay is not None else None,
        quarantine=manifest.quarantined.get(name, ""),
    )


def _saved_tensor(file: str, name: str, tensor: Tensor) -> SavedTensor:
    values = tensor.double()
    return SavedTensor(
        file=file,
        name=name,
        shape=tuple(tensor.shape),
        norm=float(values.norm()),
        is_finite=bool(torch.isfinite(values).all()),
    )
