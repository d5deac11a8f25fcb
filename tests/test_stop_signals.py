"""Who hears the signals that ask to stop, and what stands afterwards."""

import signal
from collections.abc import Iterator

import pytest

from mgrl_cli.stop_signals import STOP_SIGNALS, stop_signals_heard


@pytest.fixture(autouse=True)
def before() -> Iterator[list[object]]:
    """The handlers as they were, and are again after every test."""
    handlers = [signal.getsignal(number) for number in STOP_SIGNALS]
    yield [*handlers]
    for number, handler in zip(STOP_SIGNALS, handlers, strict=True):
        signal.signal(number, handler)


def now() -> list[object]:
    return [signal.getsignal(number) for number in STOP_SIGNALS]


def test_every_stop_signal_is_heard_and_then_means_what_it_did(before: list[object]) -> None:
    heard: list[int] = []
    with stop_signals_heard(heard.append):
        for number in STOP_SIGNALS:
            signal.raise_signal(number)
    assert heard == list(STOP_SIGNALS)
    assert now() == before


def test_the_innermost_hears(before: list[object]) -> None:
    outer: list[int] = []
    inner: list[int] = []
    with stop_signals_heard(outer.append):
        with stop_signals_heard(inner.append):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert (inner, outer) == ([signal.SIGTERM], [signal.SIGINT])
    assert now() == before


def test_what_is_heard_may_raise(before: list[object]) -> None:
    def refuse(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ValueError, match=str(int(signal.SIGHUP))), stop_signals_heard(refuse):
        signal.raise_signal(signal.SIGHUP)
    assert now() == before


def test_under_nohup_a_hang_up_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    heard: list[int] = []
    with stop_signals_heard(heard.append):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("place", range(2 * len(STOP_SIGNALS)))
def test_a_ctrl_c_while_handlers_change_leaves_no_other_behind(
    before: list[object], monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """It arrives just after one of six changes: three at the beginning, three at the end."""
    heard: list[int] = []
    change, changes = signal.signal, iter(range(2 * len(STOP_SIGNALS)))

    def change_and_interrupt(number: int, handler: object) -> object:
        previous = change(number, handler)  # pyright: ignore[reportArgumentType]
        if next(changes) == place:
            signal.raise_signal(signal.SIGINT)
        return previous

    monkeypatch.setattr(signal, "signal", change_and_interrupt)
    raised = False
    try:
        with stop_signals_heard(heard.append):
            pass
    except KeyboardInterrupt:
        raised = True
    monkeypatch.undo()
    assert now() == before
    assert raised is not bool(heard)  # one of the two, and never neither
