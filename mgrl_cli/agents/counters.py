"""What an agent has done so far."""

from dataclasses import dataclass, field
from typing import final


@final
@dataclass
class Counters:
    """Counts over the whole run, all lives together, but for `life` and `life_start`."""

    env_steps: int = 0
    episodes: int = 0
    updates: int = 0
    life: int = 0
    life_start: int = 0
    """Env step at which the present life began."""
    evaluations: int = 0
    returns: list[float] = field(default_factory=list[float])
    """Returns of all training episodes, newest last."""
