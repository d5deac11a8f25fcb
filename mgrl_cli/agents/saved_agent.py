"""All of an agent that its future depends on, as tensors and a record: what a checkpoint keeps.

Replay and environments are not in it. The replay log has every episode, and every episode begins
with a seed of its own. Knows nothing of files.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from mgrl_cli.agents.agent import Agent
from mgrl_cli.agents.counters import Counters
from mgrl_cli.agents.health import Health
from mgrl_cli.agents.round_statistics import RoundStatistics, StatisticsRecord
from mgrl_cli.config import Count
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.replay.refill import refill


class AgentRecord(BaseModel):
    """Everything about an agent that is no tensor."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    agent_id: Count
    counters: Counters
    statistics: StatisticsRecord
    """Of the round in progress, or of the last one."""
    streams: dict[str, dict[str, Any]]
    replay_episodes: Count
    """Newest episodes of the log that the ring held."""
    health: Health

    def to_document(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        document: dict[str, Any] = json.loads(self.model_dump_json())
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "AgentRecord":
        """Return the record that `to_document` described.

        Raises:
            ValueError: one line on what is wrong.
        """
        try:
            return cls.model_validate_json(json.dumps(document))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise ValueError(f"'{where}': {problem['msg']}") from error


class SavedAgent(NamedTuple):
    """An agent at rest."""

    tensors: dict[str, Tensor]
    """Networks, targets and optimisers by name; copies."""
    record: AgentRecord


def save_agent(agent: Agent) -> SavedAgent:
    """Return a copy of everything about an agent that is not in its replay log."""
    record = AgentRecord(
        agent_id=agent.spec.agent_id,
        counters=replace(agent.counters),
        statistics=agent.statistics.record(),
        streams=agent.streams.state(),
        replay_episodes=agent.replay.num_episodes,
        health=replace(agent.health),
    )
    tensors = {name: tensor.clone() for name, tensor in agent.tensors().items()}
    return SavedAgent(tensors, record)


def restore_agent(agent: Agent, saved: SavedAgent, log: ReplayReader) -> None:
    """Turn a fresh agent into the one that was saved, in quarantine if it cannot go on from there.

    Args:
        agent: made from the same spec and settings.
        saved: its tensors have the names, shapes and types of the agent's own.
        log: the replay log as it was when the agent was saved.

    Raises:
        ValueError: the record is not one of this agent.
        FileError: the log does not hold the episodes of the ring, or is damaged.
    """
    record = saved.record
    if record.agent_id != agent.spec.agent_id:
        raise ValueError(f"got agent {record.agent_id}, expected {agent.spec.agent_id}")
    problem = agent.restore_tensors(saved.tensors, record.counters)
    agent.streams.set_state(record.streams)
    agent.counters = replace(record.counters)
    agent.statistics = RoundStatistics(record.statistics)
    agent.health = replace(record.health)
    agent.health.quarantine = agent.health.quarantine or problem
    refill(agent.replay, log, record.replay_episodes)
