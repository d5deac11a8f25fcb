"""What the progress views say about a run as a whole: figures over all its agents.

Pure functions of a snapshot; knows nothing of how they are shown.
"""

import math
from collections import Counter, defaultdict

from mgrl_cli.telemetry import AgentSnapshot, AgentState, RunSnapshot


def agent_fraction(agent: AgentSnapshot, snapshot: RunSnapshot) -> float:
    """Return how much of its env steps the agent has made, in [0, 1]."""
    return min(1.0, agent.env_steps / max(1, snapshot.steps_per_agent))


def total_env_steps(snapshot: RunSnapshot) -> int:
    """Return the env steps of all agents together."""
    return sum(agent.env_steps for agent in snapshot.agents)


def num_quarantined(snapshot: RunSnapshot) -> int:
    """Return how many agents are out of the population."""
    return sum(agent.state is AgentState.QUARANTINED for agent in snapshot.agents)


def run_fraction(snapshot: RunSnapshot) -> float:
    """Return how much of the run is made, in [0, 1].

    Agents in quarantine do not count: they will never make the rest of their steps.
    """
    fractions = [
        agent_fraction(agent, snapshot)
        for agent in snapshot.agents
        if agent.state is not AgentState.QUARANTINED
    ]
    return math.fsum(fractions) / len(fractions) if fractions else 0.0


def mean_returns(snapshot: RunSnapshot) -> dict[str, float]:
    """Return the mean over agents of their mean return, by environment.

    In a meta-test the key is "environment/rule". NaN where no agent of a group has a return yet.
    """
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for agent in snapshot.agents:
        is_compared = snapshot.kind == "meta-test"
        name = f"{agent.environment}/{agent.rule}" if is_compared else agent.environment
        groups[name].append(agent.mean_return)
    return {name: _mean_of_known(returns) for name, returns in groups.items()}


def mean_gain(snapshot: RunSnapshot) -> float:
    """Return the mean gain of the virtual step over the agents, NaN where there is none."""
    if snapshot.objective is not None:
        return snapshot.objective.gain
    return math.nan


def state_name(state: AgentState) -> str:
    """Return the state as a word: "learning"."""
    return state.name.lower()


def count_states(agents: tuple[AgentSnapshot, ...]) -> str:
    """Return how many agents are in which state: "6 learning, 2 quarantined"."""
    counts = Counter(agent.state for agent in agents)
    return ", ".join(f"{counts[state]} {state_name(state)}" for state in sorted(counts))


def _mean_of_known(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
