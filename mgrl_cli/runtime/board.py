"""The status board: one row of figures per agent in shared memory, for the live view.

Each row has one writer, the worker of that agent; the coordinator reads without waiting, so a row
may mix two moments. Nothing that decides results passes through here.
"""

from typing import final

import torch

from mgrl_cli.agents.agent import Agent
from mgrl_cli.agents.population import AgentSpec
from mgrl_cli.runtime.shared_memory import shared
from mgrl_cli.telemetry import AgentSnapshot, AgentState

_FIGURES = (
    "state",
    "env_steps",
    "episodes",
    "last_return",
    "mean_return",
    "evaluation",
    "critic_loss",
    "meta_gradient_norm",
    "gain",
)
_RETURNS_SHOWN = 32
_MEAN_OVER_EPISODES = 10


@final
class StatusBoard:
    """Figures of all agents, NaN until known."""

    def __init__(self, num_agents: int) -> None:
        width = len(_FIGURES) + _RETURNS_SHOWN
        self._table = torch.full((num_agents, width), torch.nan, dtype=torch.float64)
        self._table[:, :3] = 0.0
        shared(self._table)

    def post(self, agent: Agent) -> None:
        """Write one agent's present figures into its row."""
        counters, latest = agent.counters, agent.statistics.latest
        returns = counters.returns[-_RETURNS_SHOWN:]
        recent = returns[-_MEAN_OVER_EPISODES:]
        values = {
            "state": float(agent.state),
            "env_steps": float(counters.env_steps),
            "episodes": float(counters.episodes),
            **{name: value for name, value in latest.items() if name in _FIGURES},
        }
        if recent:
            values |= {"last_return": recent[-1], "mean_return": sum(recent) / len(recent)}
        row = self._table[agent.spec.agent_id]
        for name, value in values.items():
            row[_FIGURES.index(name)] = value
        first = len(_FIGURES)
        row[first : first + len(returns)] = torch.tensor(returns, dtype=torch.float64)

    def read(self, spec: AgentSpec) -> AgentSnapshot:
        """Return one agent's figures."""
        row: list[float] = self._table[spec.agent_id].tolist()
        figures = dict(zip(_FIGURES, row, strict=False))
        return AgentSnapshot(
            agent_id=spec.agent_id,
            environment=spec.env.id,
            rule=spec.rule,
            seed=spec.seed_index,
            state=AgentState(int(figures["state"])),
            env_steps=int(figures["env_steps"]),
            episodes=int(figures["episodes"]),
            last_return=figures["last_return"],
            mean_return=figures["mean_return"],
            returns=tuple(value for value in row[len(_FIGURES) :] if value == value),
            last_evaluation=figures["evaluation"],
            critic_loss=figures["critic_loss"],
            meta_gradient_norm=figures["meta_gradient_norm"],
            gain=figures["gain"],
        )
