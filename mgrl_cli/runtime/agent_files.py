"""An agent and its files: the replay log it owns and its part of a checkpoint."""

from pathlib import Path

import torch
from torch import Tensor

from mgrl_cli.agents.agent import Agent
from mgrl_cli.agents.saved_agent import AgentRecord, SavedAgent, restore_agent
from mgrl_cli.errors import FileError
from mgrl_cli.replay.digest import ReplayPosition, ReplayTail, blank_tail
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.run_dir.checkpoints import Checkpoint, write_part
from mgrl_cli.run_dir.file_record import FileRecord
from mgrl_cli.run_dir.layout import RunDirectory, agent_name
from mgrl_cli.run_dir.manifest import ReplayRecord
from mgrl_cli.run_dir.settings import package_versions
from mgrl_cli.run_dir.tensor_file import check_tensors, read_tensor_file, tensor_file_bytes

_WHAT = "agent of a checkpoint"
_LARGEST_RECORD_BYTES = 2**20
_TAIL = "replay."
"""Beginning of the names of tensors that hold the tail of the replay log."""


def create_log(run: RunDirectory, agent: Agent) -> ReplayLog:
    """Return a fresh agent's new replay log.

    Raises:
        StorageError: the operating system refused.
    """
    return ReplayLog.create(
        run.agent_buffer(agent.spec.agent_id),
        obs_size=agent.player.obs_size,
        act_size=agent.player.act_size,
        attributes=_attributes(agent),
    )


def _attributes(agent: Agent) -> dict[str, object]:
    env, player = agent.spec.env, agent.player
    return {
        "environment": player.environment_id,
        "environment_kwargs": env.kwargs,
        "environment_randomise": {name: list(bounds) for name, bounds in env.randomise.items()},
        "action_low": player.action_low.tolist(),
        "action_high": player.action_high.tolist(),
        "agent_id": agent.spec.agent_id,
        "rule": agent.spec.rule,
        "packages": package_versions(),
    }


def part_name(agent_id: int) -> str:
    """Return the name of an agent's file in a checkpoint."""
    return f"{agent_name(agent_id)}.safetensors"


def write_agent(staging: Path, saved: SavedAgent, tail: ReplayTail) -> FileRecord:
    """Write an agent's part of a checkpoint to be, with the rows its log may still overwrite.

    Raises:
        StorageError: the operating system refused.
    """
    tensors = {**saved.tensors, **_tail_tensors(tail)}
    content = tensor_file_bytes(tensors, saved.record.to_document())
    return write_part(staging, part_name(saved.record.agent_id), content)


def restore_from(checkpoint: Checkpoint, run: RunDirectory, agent: Agent) -> ReplayLog:
    """Turn a fresh agent into the one in a checkpoint; return its log, cut back to then.

    Raises:
        FileError: the checkpoint does not hold this agent, or its replay is not what it was.
        StorageError: the operating system refused.
    """
    agent_id = agent.spec.agent_id
    replay = checkpoint.manifest.replay.get(agent_name(agent_id))
    if replay is None:
        raise FileError(f"'{checkpoint.path}' does not hold {agent_name(agent_id)}")
    position = ReplayPosition(replay.rows, replay.episodes, replay.sha256)
    saved, tail = _read_agent(checkpoint.path / part_name(agent_id), agent, position)
    log = ReplayLog.reopen(run.agent_buffer(agent_id), position, tail, _attributes(agent))
    try:
        restore_agent(agent, saved, ReplayReader(run.agent_buffer(agent_id)))
    except ValueError as error:
        raise FileError(f"'{checkpoint.path / part_name(agent_id)}' is damaged: {error}") from error
    return log


def _read_agent(
    path: Path, agent: Agent, position: ReplayPosition
) -> tuple[SavedAgent, ReplayTail]:
    blank = blank_tail(position, agent.player.obs_size, agent.player.act_size)
    like = {**agent.tensors(), **_tail_tensors(blank)}
    size = sum(tensor.numel() * tensor.element_size() for tensor in like.values())
    document, tensors = read_tensor_file(path, what=_WHAT, max_bytes=size + _LARGEST_RECORD_BYTES)
    template = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in like.items()}
    check_tensors(path, tensors, template, what=_WHAT)
    tail = {name: tensors.pop(f"{_TAIL}{name}").numpy() for name in blank}
    try:
        return SavedAgent(tensors, AgentRecord.from_document(document)), tail
    except ValueError as error:
        raise FileError(f"'{path}' is damaged: {error}") from error


def _tail_tensors(tail: ReplayTail) -> dict[str, Tensor]:
    return {f"{_TAIL}{name}": torch.from_numpy(rows) for name, rows in tail.items()}


def replay_record(position: ReplayPosition) -> ReplayRecord:
    """Return a replay position as a manifest keeps it."""
    return ReplayRecord(rows=position.rows, episodes=position.episodes, sha256=position.sha256)
