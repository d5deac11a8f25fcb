"""Processes that report facts: how they end, and that they end."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mgrl_cli.diagnosis.probe import Probe, ProbeReport

MakeModule = Callable[[str], str]
LONG_ENOUGH_S = 100.0
"""On a busy machine."""


@pytest.fixture
def make_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeModule:
    """Return what writes the body of a probe and returns its module's name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(body: str) -> str:
        header = (
            "import os, signal, sys, time\n"
            "from mgrl_cli.diagnosis.probe import reporter\n"
            "report = reporter()\n"
        )
        (tmp_path / "a_probe_of_the_tests.py").write_text(header + body, encoding="utf-8")
        return "a_probe_of_the_tests"

    return make


def collect(module: str, *arguments: str) -> ProbeReport:
    with Probe(module, *arguments) as probe:
        return probe.collect(time.monotonic() + LONG_ENOUGH_S)


def test_facts_come_back_and_what_libraries_print_does_not(make_module: MakeModule) -> None:
    module = make_module(
        "print('Hello from a library')\n"
        "os.write(1, b'and from C')\n"
        "report('a', [1, 'α'])\n"
        "report('b', sys.argv[1])\n"
    )
    assert collect(module, "word") == ProbeReport({"a": [1, "α"], "b": "word"}, "")


@pytest.mark.parametrize(
    ("body", "ending"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
        ("os._exit(3)", "ended with exit code 3"),
        ("raise ValueError", "ended with exit code 1"),
    ],
)
def test_what_was_reported_before_a_crash_is_kept(
    make_module: MakeModule, body: str, ending: str
) -> None:
    assert collect(make_module(f"report('a', 1)\n{body}")) == ProbeReport({"a": 1}, ending)


def test_a_line_that_was_cut_off_is_no_fact(make_module: MakeModule) -> None:
    module = make_module("report.__closure__[0].cell_contents.write('{\"a\": 1')")
    assert collect(module) == ProbeReport({}, "")


def collect_once_it_has_reported(probe: Probe, marker: Path) -> ProbeReport:
    """Let the time be over when the probe has made this file, however long that takes."""
    deadline_s = time.monotonic() + LONG_ENOUGH_S
    while not marker.exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    return probe.collect(time.monotonic())


def test_at_the_deadline_a_probe_is_ended_and_what_it_said_is_kept(
    make_module: MakeModule, tmp_path: Path
) -> None:
    module = make_module("report('a', 1)\nopen(sys.argv[1], 'w')\ntime.sleep(600)")
    with Probe(module, str(tmp_path / "marker")) as probe:
        report = collect_once_it_has_reported(probe, tmp_path / "marker")

    assert report.facts == {"a": 1}
    assert re.fullmatch(r"did not end within \d+ s", report.ending)


def test_a_probe_that_cleans_up_is_asked_and_never_killed(
    make_module: MakeModule, tmp_path: Path
) -> None:
    module = make_module(
        "asked = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: asked.append(1))\n"
        "report('pid', os.getpid())\n"
        "open(sys.argv[2], 'w').close()\n"
        "while not asked: time.sleep(0.01)\n"
        "time.sleep(1.5)\n"  # longer than anyone waits for it
        "open(sys.argv[1], 'w').close()\n"
    )
    paths = (tmp_path / "cleaned up", tmp_path / "marker")
    with Probe(module, *map(str, paths), cleans_up=True) as probe:
        report = collect_once_it_has_reported(probe, tmp_path / "marker")

    while not (tmp_path / "cleaned up").exists():
        assert psutil.pid_exists(report.facts["pid"])
        time.sleep(0.01)


def test_a_probe_that_ignores_being_asked_is_killed_with_what_it_spawned(
    make_module: MakeModule, tmp_path: Path
) -> None:
    module = make_module(
        "import subprocess\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"  # the child inherits it
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "report('pids', [os.getpid(), child.pid])\n"
        "open(sys.argv[1], 'w').close()\n"
        "time.sleep(600)\n"
    )
    with Probe(module, str(tmp_path / "marker")) as probe:
        report = collect_once_it_has_reported(probe, tmp_path / "marker")

    left = [psutil.Process(pid) for pid in report.facts["pids"] if psutil.pid_exists(pid)]
    running = [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
    _, alive = psutil.wait_procs(running, timeout=LONG_ENOUGH_S / 2)
    assert alive == []


def test_leaving_the_block_ends_a_probe_nobody_waited_for(make_module: MakeModule) -> None:
    before = {child.pid for child in psutil.Process().children()}
    with Probe(make_module("time.sleep(60)")):
        (ours,) = [child for child in psutil.Process().children() if child.pid not in before]
    assert not ours.is_running()
