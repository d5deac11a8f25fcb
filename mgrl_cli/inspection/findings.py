"""What a verification finds, as records. Knows nothing of files or of how they are proved."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from mgrl_cli.inspection.recognition import Kind


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of what was verified, such as a checkpoint or an agent's replay."""

    name: str
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    """What was read of it, by a word in the singular: "file", "step", "agent"."""
    num_bytes: int = 0
    """Read, as far as reading got."""
    problems: tuple[str, ...] = ()
    """What is damaged, one line each, with the file's name."""
    notes: tuple[str, ...] = ()
    """What is worth knowing and no damage, one line each."""

    @property
    def finding(self) -> str:
        """The outcome in one word."""
        return "damaged" if self.problems else "whole"


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """All parts of something that mgrl wrote."""

    path: str
    kind: Kind
    parts: tuple[Part, ...]

    @property
    def is_whole(self) -> bool:
        """True where nothing is damaged."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """Of all parts."""
        return tuple(problem for part in self.parts for problem in part.problems)

    @property
    def notes(self) -> tuple[str, ...]:
        """Of all parts."""
        return tuple(note for part in self.parts for note in part.notes)

    @property
    def counts(self) -> Mapping[str, int]:
        """Of all parts together."""
        total: Counter[str] = Counter()
        for part in self.parts:
            total.update(part.counts)
        return total

    @property
    def num_bytes(self) -> int:
        """Read in all."""
        return sum(part.num_bytes for part in self.parts)
