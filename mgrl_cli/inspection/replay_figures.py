"""The records of what is in a replay. Figures are NaN where nothing (readable) is stored."""

from collections.abc import Mapping
from dataclasses import dataclass

from mgrl_cli.inspection.statistics import Histogram, Spread

SATURATED_FROM = 0.99
"""An action number of at least this size (at most 1) leaves no room to push further."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeColumns:
    """One entry per episode, oldest first; NaN where it cannot be read."""

    env_steps: tuple[float, ...]
    """Steps stored up to the end of the episode."""
    length: tuple[float, ...]
    episode_return: tuple[float, ...]
    life: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionFigures:
    """All numbers of all actions together."""

    spread: Spread
    mean_size: float
    """Mean |a|."""
    saturated: float
    """Share of numbers whose size is above `SATURATED_FROM`."""
    histogram: Histogram


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentReplay:
    """The replay of one agent. Figures are NaN where nothing (readable) is stored."""

    name: str
    path: str
    attributes: Mapping[str, object]
    env_steps: int
    num_episodes: int
    lives: int
    random_share: float
    """Share of steps whose action was drawn uniformly."""
    terminated_share: float
    """Share of episodes that the task itself ended."""
    truncated_share: float
    """Share of episodes that a limit from outside the task ended."""
    returns: Spread
    last_return: float
    lengths: Spread
    reward: Spread
    reward_histogram: Histogram
    action: ActionFigures
    policy_action: ActionFigures
    """The actions that were not drawn uniformly."""
    obs: tuple[Spread, ...]
    """One per dimension."""
    objective_versions: tuple[int, int] | None
    """Oldest and newest meta-step under which the steps were made; None: no steps."""
    not_finite: int
    """NaN and infinities among observations, actions and rewards."""
    size_bytes: int
    episodes: EpisodeColumns
    is_whole: bool
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    def attribute(self, name: str) -> str:
        """Return a text attribute such as "environment", or "" where there is none."""
        value = self.attributes.get(name)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Buffer:
    """The replay of several agents."""

    path: str
    agents: tuple[AgentReplay, ...]
    unreadable: tuple[str, ...]
    """Why an agent's group could not be opened, one line each."""
    size_bytes: int
    is_whole: bool

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with any agent's replay, one line each."""
        named = (f"{agent.name}: {line}" for agent in self.agents for line in agent.problems)
        return (*self.unreadable, *named)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looks odd in any agent's replay, one line each."""
        return tuple(f"{agent.name}: {line}" for agent in self.agents for line in agent.warnings)
