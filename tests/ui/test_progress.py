import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from mgrl_cli.telemetry import RunSnapshot
from mgrl_cli.ui.json_lines import JsonLinesProgress
from mgrl_cli.ui.live import LiveView
from mgrl_cli.ui.plain import PlainProgress
from mgrl_cli.ui.progress import open_progress


class Terminal(io.StringIO):
    """Keeps what is written and says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class LatinTerminal(Terminal):
    """A terminal without block characters."""

    encoding = "latin-1"


def console_on(file: io.StringIO, **environ: str) -> Console:
    return Console(file=file, width=100, height=30, _environ={"TERM": "xterm", **environ})


@pytest.mark.parametrize(
    ("console", "quiet", "json_lines", "expected"),
    [
        (console_on(Terminal()), False, False, [LiveView]),
        (console_on(io.StringIO()), False, False, [PlainProgress]),
        (console_on(Terminal(), TERM="dumb"), False, False, [PlainProgress]),
        (console_on(LatinTerminal()), False, False, [PlainProgress]),
        (console_on(io.StringIO(), FORCE_COLOR="1"), False, False, [PlainProgress]),
        (console_on(Terminal(), TTY_INTERACTIVE="0"), False, False, [PlainProgress]),
        (console_on(Terminal(), NO_COLOR="1"), False, False, [LiveView]),
        (console_on(Terminal()), True, False, []),
        (console_on(io.StringIO()), True, False, []),
        (console_on(io.StringIO()), False, True, [JsonLinesProgress]),
        (console_on(Terminal()), False, True, [JsonLinesProgress, LiveView]),
        (console_on(Terminal()), True, True, [JsonLinesProgress]),
    ],
)
def test_choice_follows_streams_and_wishes(
    console: Console, quiet: bool, json_lines: bool, expected: list[type]
):
    with open_progress(quiet=quiet, json=json_lines, console=console) as progress:
        assert [type(part) for part in progress.parts] == expected


def test_json_and_live_view_never_share_a_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdout", Terminal())
    with open_progress(quiet=False, json=True, console=console_on(Terminal())) as progress:
        assert [type(part) for part in progress.parts] == [JsonLinesProgress]


def test_json_goes_to_stdout_and_nothing_to_stderr(
    meta_train: RunSnapshot, capsys: pytest.CaptureFixture[str]
):
    stderr = io.StringIO()
    with open_progress(quiet=False, json=True, console=console_on(stderr)) as progress:
        progress.update(meta_train)
        progress.update(replace(meta_train, round_index=13))
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["round_index"] for line in lines] == [12, 13]
    assert stderr.getvalue() == ""


def test_events_go_where_the_rounds_go(capsys: pytest.CaptureFixture[str]):
    terminal, log = Terminal(), io.StringIO()
    with open_progress(quiet=False, json=True, console=console_on(terminal)) as progress:
        progress.announce("worker 1 hung")
    assert json.loads(capsys.readouterr().out) == {"event": "worker 1 hung"}
    assert "worker 1 hung" in terminal.getvalue()
    with open_progress(quiet=False, json=False, console=console_on(log)) as progress:
        progress.announce("worker 1 hung")
    assert log.getvalue() == "mgrl: worker 1 hung\n"
    assert capsys.readouterr().out == ""


def test_plain_lines_go_to_the_console_stream(
    meta_train: RunSnapshot, capsys: pytest.CaptureFixture[str]
):
    stderr = io.StringIO()
    with open_progress(quiet=False, json=False, console=console_on(stderr)) as progress:
        progress.update(meta_train)
    assert stderr.getvalue().startswith("round 12/30")
    assert "\x1b" not in stderr.getvalue()
    assert capsys.readouterr().out == ""


def test_no_color_leaves_no_colours(meta_train: RunSnapshot):
    stderr = Terminal()
    with open_progress(
        quiet=False, json=False, console=console_on(stderr, NO_COLOR="1")
    ) as progress:
        progress.update(meta_train)
    assert "\x1b[3" not in stderr.getvalue()
    assert "learning" in stderr.getvalue()


def test_quiet_writes_nothing(meta_train: RunSnapshot, capsys: pytest.CaptureFixture[str]):
    stderr = Terminal()
    with open_progress(quiet=True, json=False, console=console_on(stderr)) as progress:
        progress.update(meta_train)
        progress.announce("worker 1 hung")
    assert stderr.getvalue() == ""
    assert capsys.readouterr().out == ""
