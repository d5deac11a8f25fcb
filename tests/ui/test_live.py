import io
import os
import signal
import sys
from dataclasses import replace
from typing import TextIO

import pyte
import pytest
from rich.console import Console

from mgrl_cli.errors import Interrupted
from mgrl_cli.stop_signals import STOP_SIGNALS
from mgrl_cli.telemetry import RunSnapshot
from mgrl_cli.ui.live import LiveView


class Terminal(io.StringIO):
    """Keeps what is written and says it is a terminal."""

    def isatty(self) -> bool:
        return True


def open_console(file: TextIO, width: int = 100, height: int = 30) -> Console:
    return Console(
        file=file,
        width=width,
        height=height,
        force_terminal=True,
        force_interactive=True,
        _environ={"TERM": "xterm-256color"},
    )


def screen_of(written: str, width: int = 100, height: int = 30) -> pyte.Screen:
    screen = pyte.Screen(width, height)
    pyte.Stream(screen).feed(written.replace("\n", "\r\n"))
    return screen


def shown_lines(screen: pyte.Screen) -> list[str]:
    return [line.rstrip() for line in screen.display if line.strip()]


def update_and_fail(view: LiveView, snapshot: RunSnapshot, error: type[BaseException]) -> None:
    view.update(snapshot)
    raise error


def test_frames_replace_each_other_and_the_last_one_stays(meta_train: RunSnapshot):
    terminal = Terminal()
    with LiveView(open_console(terminal)) as view:
        for round_index in range(5):
            view.update(replace(meta_train, round_index=round_index))
    lines = shown_lines(screen_of(terminal.getvalue()))
    assert sum("meta-train demo-1" in line for line in lines) == 1
    assert sum("round 4/30" in line for line in lines) == 1
    assert not any("round 3/30" in line for line in lines)


def test_cursor_is_hidden_while_open_and_back_afterwards(meta_train: RunSnapshot):
    terminal = Terminal()
    with LiveView(open_console(terminal)) as view:
        view.update(meta_train)
        assert screen_of(terminal.getvalue()).cursor.hidden
    assert not screen_of(terminal.getvalue()).cursor.hidden


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_terminal_is_restored_after_an_error(meta_train: RunSnapshot, error: type[BaseException]):
    terminal = Terminal()
    stderr_before = sys.stderr
    console = open_console(terminal)
    with pytest.raises(error), LiveView(console) as view:
        update_and_fail(view, meta_train, error)
    assert not screen_of(terminal.getvalue()).cursor.hidden
    assert sys.stderr is stderr_before
    assert console.file is terminal


class Impatient(Terminal):
    """Somebody sends signals while something is written."""

    pending: list[signal.Signals]

    def write(self, text: str) -> int:
        while self.pending:
            signal.raise_signal(self.pending.pop())
        return super().write(text)


def impatient(*pending: signal.Signals) -> Impatient:
    terminal = Impatient()
    terminal.pending = list(pending)
    return terminal


def assert_given_back(console: Console, terminal: Terminal, handlers: list[object]) -> None:
    assert not screen_of(terminal.getvalue()).cursor.hidden
    assert console.file is terminal
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == handlers


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in STOP_SIGNALS]


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_while_the_view_is_closed_changes_nothing_any_more(
    meta_train: RunSnapshot, number: signal.Signals
):
    """The run has ended; KeyboardInterrupt would leave the cursor hidden."""
    before, terminal = handlers(), impatient()
    console = open_console(terminal)
    with LiveView(console) as view:
        view.update(meta_train)
        terminal.pending = [number]
    assert not terminal.pending
    assert "meta-train demo-1" in terminal.getvalue()
    assert_given_back(console, terminal, before)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_while_the_view_opens_is_heard_once_it_is_open(number: signal.Signals):
    before, terminal = handlers(), impatient(number)
    console = open_console(terminal)
    with pytest.raises(Interrupted, match=number.name) as caught, LiveView(console):
        pytest.fail("must not begin")
    assert caught.value.exit_code == 128 + number
    assert_given_back(console, terminal, before)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_that_nobody_inside_hears_gives_the_terminal_back(
    meta_train: RunSnapshot, number: signal.Signals
):
    before, terminal = handlers(), impatient()
    console = open_console(terminal)

    def show_for_a_while() -> None:
        with LiveView(console) as view:
            view.update(meta_train)
            signal.raise_signal(number)

    with pytest.raises(Interrupted, match=number.name):
        show_for_a_while()
    assert_given_back(console, terminal, before)


def test_a_second_signal_ends_the_view_though_the_terminal_takes_nothing(meta_train: RunSnapshot):
    before, terminal = handlers(), impatient()
    console = open_console(terminal)

    def close_twice_asked() -> None:
        with LiveView(console) as view:
            view.update(meta_train)
            terminal.pending = [signal.SIGTERM, signal.SIGINT]

    with pytest.raises(Interrupted, match="SIGTERM"):
        close_twice_asked()
    assert console.file is terminal
    assert handlers() == before


def test_nothing_is_left_behind_without_an_update():
    terminal = Terminal()
    with LiveView(open_console(terminal)):
        pass
    assert shown_lines(screen_of(terminal.getvalue())) == []


def test_last_frame_shows_the_agents_a_low_terminal_had_no_room_for(crowd: RunSnapshot):
    terminal = Terminal()
    with LiveView(open_console(terminal, height=15)) as view:
        view.update(crowd)
        assert any("more" in line for line in shown_lines(screen_of(terminal.getvalue())))
    lines = shown_lines(screen_of(terminal.getvalue(), height=60))
    assert not any("more" in line for line in lines)
    assert sum("lunar" in line for line in lines) == 25


def test_warnings_appear_above_the_view(meta_train: RunSnapshot):
    terminal = Terminal()
    with LiveView(open_console(terminal)) as view:
        view.update(meta_train)
        sys.stderr.write("watch out\n")
        view.update(meta_train)
    lines = shown_lines(screen_of(terminal.getvalue()))
    assert lines[0] == "watch out"
    assert sum("meta-train demo-1" in line for line in lines) == 1


def test_events_stay_above_the_view_in_their_order(meta_train: RunSnapshot):
    terminal = Terminal()
    with LiveView(open_console(terminal)) as view:
        view.announce("before the first frame")
        for number in range(3):
            view.update(meta_train)
            view.announce(f"event {number}")
        view.update(replace(meta_train, round_index=13))
    screen = screen_of(terminal.getvalue())
    events = ["! before the first frame", "! event 0", "! event 1", "! event 2"]
    lines = shown_lines(screen)
    assert lines[:4] == events
    assert lines[4].startswith("meta-train demo-1")
    assert sum("meta-train demo-1" in line for line in lines) == 1
    assert sum("round 13/30" in line for line in lines) == 1
    assert screen.buffer[0][0].fg == "brown"  # pyte's name for the yellow of 16 colours
    assert screen.buffer[0][2].fg == "default"


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        ("[bold red]boom[/] [/nothing] :smile:", "[bold red]boom[/] [/nothing] :smile:"),
        ("\x1b[2J\x1b[1;1H\x07\b\x9b5A gone", r"\x1b[2J\x1b[1;1H\x07\x08\x9b5A gone"),
        ("one\ntwo\r\n\n  three\u2028four\n", "one two three four"),
        ("x" * 5000 + " the end", "x" * 400 + " ... " + "x" * 192 + " the end"),
        ("\x1b" * 5000, r"\x1b" * 100 + " ... " + r"\x1b" * 50),
        ("half a pair \udc80", r"half a pair \udc80"),
    ],
)
def test_hostile_event_leaves_a_narrow_view_whole(meta_train: RunSnapshot, event: str, shown: str):
    width, height = 40, 60
    alone, terminal = Terminal(), Terminal()
    with LiveView(open_console(alone, width, height)) as view:
        view.update(meta_train)
    with LiveView(open_console(terminal, width, height)) as view:
        view.update(meta_train)
        view.announce(event)
        view.update(meta_train)
    frame = shown_lines(screen_of(alone.getvalue(), width, height))
    screen = screen_of(terminal.getvalue(), width, height)
    lines = shown_lines(screen)
    assert lines[-len(frame) :] == frame
    above = screen.display[: len(lines) - len(frame)]
    assert "".join(above).rstrip() == f"! {shown}"


def test_event_higher_than_the_terminal_scrolls_and_the_view_stays(crowd: RunSnapshot):
    width, height = 40, 12
    alone, terminal = Terminal(), Terminal()
    with LiveView(open_console(alone, width, height)) as view:
        view.update(crowd)
        frame = shown_lines(screen_of(alone.getvalue(), width, height))
    with LiveView(open_console(terminal, width, height)) as view:
        for _ in range(3):
            view.update(crowd)
            view.announce("x" * 5000)
        view.update(crowd)
        assert shown_lines(screen_of(terminal.getvalue(), width, height))[-len(frame) :] == frame


def test_stdout_is_left_alone(meta_train: RunSnapshot):
    stdout_before = sys.stdout
    with LiveView(open_console(Terminal())) as view:
        view.update(meta_train)
        assert sys.stdout is stdout_before


def test_closed_terminal_neither_raises_nor_ends_the_process(meta_train: RunSnapshot):
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream, LiveView(open_console(stream)) as view:
        view.update(meta_train)
        os.close(reader)
        view.announce("worker 1 hung")
        view.update(meta_train)
        view.announce("worker 1 hung again")
        view.update(meta_train)
