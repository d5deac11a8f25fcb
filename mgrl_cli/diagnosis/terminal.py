"""Where a run's progress would be shown, and as what.

Judges only: whoever knows the rule for the view says what comes out of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mgrl_cli.diagnosis.check import Check


@dataclass(frozen=True, slots=True)
class TerminalFacts:
    """What was measured of stderr."""

    is_terminal: bool
    encoding: str
    term: str
    """The variable TERM."""
    width: int
    """Cells per line."""
    has_live_view: bool
    """Whether a run would draw its live view here."""


def judge_terminal(facts: TerminalFacts) -> Iterator[Check]:
    """Yield the checks on the terminal."""
    if not facts.is_terminal:
        yield Check("stderr", "ok", "not a terminal")
        yield Check("progress", "ok", "a plain line per round")
        return
    yield Check("stderr", "ok", f"a terminal, {facts.width} columns")
    yield _term(facts.term)
    yield _encoding(facts.encoding)
    if facts.has_live_view:
        yield Check("progress", "ok", "the live view")
    else:
        yield Check("progress", "ok", "a plain line per round: the live view cannot be drawn here")


def _term(term: str) -> Check:
    if term.lower() in ("dumb", "unknown"):
        remedy = "for the live view set TERM to what your terminal is, e.g. TERM=xterm-256color"
        return Check("TERM", "warning", f"{term}: lines cannot be redrawn", remedy)
    return Check("TERM", "ok", term or "not set")


def _encoding(encoding: str) -> Check:
    if encoding.lower().replace("-", "") != "utf8":
        remedy = "for the live view choose a UTF-8 locale, e.g. LC_ALL=C.UTF-8"
        return Check("encoding", "warning", encoding, remedy)
    return Check("encoding", "ok", encoding)
