"""Where progress is shown."""

from dataclasses import replace

from mgrl_cli.diagnosis.check import Check
from mgrl_cli.diagnosis.terminal import TerminalFacts, judge_terminal

LIVE = TerminalFacts(
    is_terminal=True, encoding="utf-8", term="xterm", width=120, has_live_view=True
)


def judged(facts: TerminalFacts) -> dict[str, Check]:
    return {check.name: check for check in judge_terminal(facts)}


def test_a_good_terminal_gets_the_live_view() -> None:
    checks = judged(LIVE)
    assert checks["progress"].finding == "the live view"
    assert checks["stderr"].finding == "a terminal, 120 columns"
    assert all(check.status == "ok" and not check.remedy for check in checks.values())


def test_no_terminal_is_no_warning_whatever_its_name_and_encoding() -> None:
    facts = TerminalFacts(
        is_terminal=False, encoding="ascii", term="dumb", width=80, has_live_view=False
    )
    checks = judged(facts)
    assert checks["progress"].finding == "a plain line per round"
    assert all(check.status == "ok" for check in checks.values())


def test_a_dumb_terminal_is_a_warning() -> None:
    checks = judged(replace(LIVE, term="dumb", has_live_view=False))
    assert checks["TERM"].status == "warning"
    assert "TERM=" in checks["TERM"].remedy
    assert "plain line" in checks["progress"].finding


def test_another_encoding_is_a_warning() -> None:
    checks = judged(replace(LIVE, encoding="iso8859-1", has_live_view=False))
    assert checks["encoding"].status == "warning"
    assert "UTF-8" in checks["encoding"].remedy
    assert judged(replace(LIVE, encoding="UTF8"))["encoding"].status == "ok"
