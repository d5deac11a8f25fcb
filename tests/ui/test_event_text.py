import pytest

from mgrl_cli.ui.event_text import event_text


def test_ordinary_event_is_left_as_it_is():
    event = (
        "worker 1 (agents 1, 5) was killed by SIGKILL; its log: runs/größe  [2]/logs/worker-1.log"
    )
    assert event_text(event) == event


@pytest.mark.parametrize(
    "line_break", ["\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\n\n \t\n"]
)
def test_line_breaks_become_one_space(line_break: str):
    assert event_text(f"one {line_break} two{line_break}") == "one two"


@pytest.mark.parametrize(
    ("char", "spelled"),
    [
        ("\x00", r"\x00"),
        ("\x1b", r"\x1b"),
        ("\x7f", r"\x7f"),
        ("\x9b", r"\x9b"),
        ("\t", r"\t"),
        ("\u202e", r"\u202e"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_could_steer_a_terminal_is_spelled_out(char: str, spelled: str):
    assert event_text(f"a{char}b") == f"a{spelled}b"


def test_long_event_keeps_its_beginning_and_its_end():
    text = event_text("worker 1 failed: " + "x" * 100_000 + "; everyone goes on from round-000040")
    assert text.startswith("worker 1 failed: xxx")
    assert text.endswith("xxx; everyone goes on from round-000040")
    assert len(text) == 400 + len(" ... ") + 200


def test_event_that_just_fits_is_whole():
    assert event_text("x" * 600) == "x" * 600
    assert event_text("x" * 601) == "x" * 400 + " ... " + "x" * 200


def test_length_counts_what_is_shown():
    # 300 characters, each shown as four.
    assert event_text("\x1b" * 300) == r"\x1b" * 100 + " ... " + r"\x1b" * 50
