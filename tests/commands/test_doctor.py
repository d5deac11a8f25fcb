"""`mgrl doctor`: two real examinations, side by side, and how findings are printed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from mgrl_cli.commands.doctor import print_groups, summary
from mgrl_cli.diagnosis.check import Check, Group, Status

# The time limit is for what hangs; a busy machine may need longer for what does not.
PROGRAM = (
    "import sys; from mgrl_cli.cli import build_app, run; "
    "from mgrl_cli.diagnosis import examination; examination._TIME_LIMIT_S = 90.0; "
    "from mgrl_cli.commands.doctor import doctor; "
    "sys.exit(run(build_app({'doctor': doctor}), sys.argv[1:]))"
)


class Outcome(NamedTuple):
    exit_code: int
    out: str
    err: str


class Examinations(NamedTuple):
    """Two real ones of this machine."""

    good: Outcome
    """As it is, with an empty directory for runs; printed as JSON."""
    bad: Outcome
    """With a torch that cannot be imported, and a file in the place of the directory; as text."""
    runs_dir: Path


def start(*arguments: str, first_on_path: Path | None = None) -> subprocess.Popen[str]:
    paths = [*([str(first_on_path)] if first_on_path else []), *sys.path]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "doctor", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


def finish(process: subprocess.Popen[str]) -> Outcome:
    out, err = process.communicate(timeout=100)
    return Outcome(process.returncode, out, err)


@pytest.fixture(scope="module")
def examinations(tmp_path_factory: pytest.TempPathFactory) -> Examinations:
    runs_dir, broken = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("broken")
    (broken / "torch.py").write_text("raise ImportError('libtorch.so is gone')", encoding="utf-8")
    good = start("--runs-dir", str(runs_dir), "--json")
    bad = start("--runs-dir", str(broken / "torch.py" / "runs"), first_on_path=broken)
    outcomes = finish(good), finish(bad)
    return Examinations(*outcomes, runs_dir)


def test_this_machine_is_usable_and_json_is_all_there_is_on_stdout(
    examinations: Examinations,
) -> None:
    assert (examinations.good.exit_code, examinations.good.err) == (0, "")
    document = json.loads(examinations.good.out)
    assert document["usable"] is True
    assert set(document) == {"checks", "usable"}
    for check in document["checks"]:
        assert set(check) == {"group", "name", "status", "finding", "remedy"}
        assert check["status"] in ("ok", "warning")
        assert check["finding"]
        assert bool(check["remedy"]) is (check["status"] != "ok")


def test_everything_is_looked_at(examinations: Examinations) -> None:
    checks = json.loads(examinations.good.out)["checks"]
    names = {(check["group"], check["name"]) for check in checks}
    assert {
        *(("software", name) for name in ("Python", "torch", "torch build", "extra fast")),
        *(("processor and memory", name) for name in ("cores", "memory", "workers")),
        *(("files", name) for name in ("writable", "free space", "flush")),
        *(("files", name) for name in ("atomic rename", "exclusive lock")),
        *(("processes", name) for name in ("spawn", "shared memory", "open files")),
        ("processes", "end of a run"),
        ("kernels", "compiled"),
        *(("terminal", name) for name in ("stderr", "progress")),
    } <= names


def test_nothing_is_left_in_the_runs_directory(examinations: Examinations) -> None:
    assert examinations.good.exit_code == 0
    assert list(examinations.runs_dir.iterdir()) == []


def test_what_is_missing_exits_2_and_is_named_with_a_remedy(examinations: Examinations) -> None:
    bad = examinations.bad
    assert bad.exit_code == 2
    assert bad.err == (
        "mgrl: error: not everything that mgrl needs is here, see: "
        "torch, extra tensorboard, writable, shared memory, kernels\n"
    )
    lines = bad.out.splitlines()
    for name, finding, remedy in (
        ("torch", "libtorch.so is gone", "pip install --force-reinstall 'torch>="),
        ("writable", "is not a directory", "--runs-dir"),
        ("shared memory", "libtorch.so is gone", "torch can be imported"),
        ("kernels", "libtorch.so is gone", "compiled=false"),
    ):
        (row,) = [i for i, line in enumerate(lines) if line.startswith(f"missing  {name} ")]
        assert finding in lines[row]
        assert remedy in lines[row + 1]
    assert lines[-1].startswith("5 things that are needed are missing; ")


def test_control_c_ends_all_probes_and_leaves_nothing(tmp_path: Path) -> None:
    process = start("--runs-dir", str(tmp_path))
    deadline_s = time.monotonic() + 100
    while len(probes := psutil.Process(process.pid).children()) < 3:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)

    process.send_signal(signal.SIGINT)

    assert finish(process) == Outcome(130, "", "")
    _, left = psutil.wait_procs(probes, timeout=30)
    assert [probe for probe in left if probe.status() != psutil.STATUS_ZOMBIE] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("statuses", "line"),
    [
        (["ok"], "everything needed is here; no warnings"),
        (["ok", "warning"], "everything needed is here; 1 warning"),
        (["warning", "warning"], "everything needed is here; 2 warnings"),
        (["missing", "warning"], "1 thing that is needed is missing; 1 warning"),
        (["missing", "missing"], "2 things that are needed are missing; no warnings"),
    ],
)
def test_the_summary_counts(statuses: list[Status], line: str) -> None:
    assert summary([Check("a", status, "b") for status in statuses]) == line


def test_findings_are_printed_as_they_are_but_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    check = Check("writable", "missing", "'/a [bold] \x1b[31m'", "name another")
    print_groups([Group("files [x]", (check,))])

    out = capsys.readouterr().out
    assert [line.rstrip() for line in out.splitlines()] == [
        "files [x]",
        "missing  writable  '/a [bold] \\x1b[31m'",
        "                   -> name another",
        "",
        "1 thing that is needed is missing; no warnings",
    ]
