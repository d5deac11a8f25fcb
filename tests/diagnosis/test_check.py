"""Verdicts and errors."""

from collections.abc import Iterator

import pytest

from mgrl_cli.diagnosis.check import Check, Group, Status, describe_error, examined, is_usable


def group(*statuses: Status) -> Group:
    return Group("a", tuple(Check("b", status, "c") for status in statuses))


@pytest.mark.parametrize(
    ("groups", "usable"),
    [
        ([], True),
        ([group("ok", "warning"), group("warning")], True),
        ([group("ok"), group("ok", "missing")], False),
    ],
)
def test_a_machine_is_usable_if_nothing_is_missing_and_warnings_do_not_count(
    groups: list[Group], usable: bool
) -> None:
    assert is_usable(groups) is usable


def test_an_exception_while_looking_is_a_finding() -> None:
    def looks() -> Iterator[Check]:
        yield Check("a", "ok", "b")
        raise ValueError("two\nlines")

    found = examined("memory", looks)

    assert found.title == "memory"
    (check,) = found.checks
    assert (check.name, check.status) == ("memory", "warning")
    assert check.finding == "could not be examined: ValueError: two lines"
    assert check.remedy


def test_an_error_without_a_message_is_its_type() -> None:
    assert describe_error(EOFError()) == "EOFError"
