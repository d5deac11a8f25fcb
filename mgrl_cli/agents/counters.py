"""What an agent has done so far."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, final

from pydantic import ConfigDict, Field

_Natural = Annotated[int, Field(ge=0)]
_RETURNS_KEPT = 32


@final
@dataclass
class Counters:
    """Counts over the whole run, all lives together, unless said otherwise."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    rounds: _Natural = 0
    """Finished rounds."""
    has_played: bool = False
    """True where the play of the round in progress is over."""
    round_updates: _Natural = 0
    """Updates of the round in progress that are over, made or rested through."""
    env_steps: _Natural = 0
    episodes: _Natural = 0
    updates: _Natural = 0
    life: _Natural = 0
    life_start: _Natural = 0
    """Env step at which the present life began."""
    evaluations: _Natural = 0
    last_evaluation: float | None = None
    """Mean noise-free return of the last evaluation."""
    returns: list[float] = field(default_factory=list[float])
    """Returns of the latest training episodes, newest last, for the live view."""

    def add_episode(self, env_steps: int, episode_return: float) -> None:
        """Count one whole training episode."""
        self.env_steps += env_steps
        self.end_episode(episode_return)

    def end_episode(self, episode_return: float) -> None:
        """Count one whole training episode whose steps are counted already."""
        self.episodes += 1
        self.returns = [*self.returns, episode_return][-_RETURNS_KEPT:]
