"""One finding about the machine, and how an error while looking for it becomes one.

Knows nothing of what is looked at.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "missing"]
"""missing: a run with default settings cannot work or would not be safe."""

BYTES_PER_MIB = 2**20
BYTES_PER_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Check:
    """What was found in one place."""

    name: str
    status: Status
    finding: str
    """One line: what was measured."""
    remedy: str = ""
    """One line: what to do; empty where all is well."""


@dataclass(frozen=True, slots=True)
class Group:
    """Checks that belong together."""

    title: str
    checks: tuple[Check, ...]


def is_usable(groups: Iterable[Group]) -> bool:
    """Return whether nothing that a run needs is missing; warnings do not count."""
    return all(check.status != "missing" for group in groups for check in group.checks)


def examined(title: str, examine: Callable[[], Iterable[Check]]) -> Group:
    """Return the group of what `examine` finds; an exception in it is a finding as well."""
    try:
        return Group(title, tuple(examine()))
    except Exception as error:  # looking at a strange machine can fail in any way
        finding = f"could not be examined: {describe_error(error)}"
        return Group(title, (Check(title, "warning", finding, "report this line to mgrl"),))


def describe_error(error: BaseException) -> str:
    """Return the error's type and message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
