"""What a user's keys and a scheduler's signals do to a run: it stops in good order, or goes on."""

import io
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pexpect
import psutil
import pytest

from mgrl_cli.errors import Interrupted
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.runtime.launch import claim_run, meta_train
from mgrl_cli.runtime.resumption import standing_of
from tests.faults.processes import (
    LONG_ENOUGH_S,
    STEPS,
    assert_exact_and_clean,
    assert_soon_gone,
    finish,
    rounds_in_metrics,
    running,
    session_of,
    stop,
    training,
    wait_until,
    workers_of,
)
from tests.faults.tally import IS_CAMPAIGN, trial, trials
from tests.runtime.conftest import Remembering, tiny_config
from tests.runtime.stopping import StopAfterRound

LATEST_S = 12.0
HANG_TIMEOUT_S = 5.0
ONLY_ON_REQUEST = ("--set", "checkpoints.interval_s=1000")
"""Nothing but the signal makes a checkpoint, once the run has begun."""
SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"
PROMPT = "READY>"


class Shell:
    """An interactive shell in a terminal of its own, whose foreground job gets its keys."""

    def __init__(self) -> None:
        self._transcript = io.StringIO()
        self._child = pexpect.spawn(
            "bash",
            ["--norc", "--noprofile", "--noediting", "-i"],
            env={**os.environ, "PS1": PROMPT, "TERM": "xterm", "LANG": "C.UTF-8"},
            encoding="utf-8",
            codec_errors="replace",
            timeout=LONG_ENOUGH_S,
            dimensions=(40, 120),
        )
        self._child.logfile_read = self._transcript
        self._child.expect_exact(PROMPT)
        self._settings = self.ask("stty -g")

    def type(self, line: str) -> None:
        self._child.sendline(line)

    def press(self, key: str) -> None:
        """Press Ctrl and a key."""
        self._child.sendcontrol(key)

    def ask(self, line: str) -> str:
        """Return what a command prints."""
        self.type(f"echo; {line}")
        self._child.expect_exact("\r\n\r\n")
        self.wait_for_prompt()
        return str(self._child.before).strip()

    def wait_for_prompt(self) -> None:
        self._child.expect_exact(PROMPT)

    def watch(self, seconds: float, is_enough: Callable[[], bool] = lambda: False) -> None:
        """Read what appears, for a while, so that whoever writes can go on."""
        deadline_s = time.monotonic() + seconds
        while time.monotonic() < deadline_s and not is_enough():
            with suppress(pexpect.TIMEOUT):
                self._child.read_nonblocking(65536, timeout=0.02)

    def stop_a_worker(self) -> None:
        """Have the run in the foreground wait for ever."""
        for coordinator in psutil.Process(self._child.pid).children():
            stop(*workers_of(coordinator.pid)[:1])

    def bring_back(self) -> None:
        """Have the job that was stopped go on in the foreground."""
        (job,) = psutil.Process(self._child.pid).children()
        assert job.status() == psutil.STATUS_STOPPED
        self.type("fg")
        wait_until(lambda: not job.is_running() or job.status() != psutil.STATUS_STOPPED)

    def exit_code(self) -> int:
        """Return the exit code of what ran last; the prompt must be there."""
        self.type("code=$?")
        self.wait_for_prompt()
        return int(self.ask("echo $code"))

    def assert_as_before(self) -> None:
        """Check that nothing runs and the terminal is as it was: settings, and a visible cursor."""
        wait_until(lambda: len(session_of(self._child.pid)) == 1)
        assert self.ask("stty -g") == self._settings
        text = self._transcript.getvalue()
        assert HIDE_CURSOR in text or IS_CAMPAIGN  # there the key may come before the live view
        assert text.rfind(SHOW_CURSOR) >= text.rfind(HIDE_CURSOR)

    def close(self) -> None:
        self._child.close(force=True)


@pytest.fixture
def shell() -> Iterator[Shell]:
    shell = Shell()
    yield shell
    shell.close()


def start_in(shell: Shell, runs_dir: Path, *more: str) -> RunDirectory:
    """Start a run in a terminal, and in the suite wait until it has begun."""
    run = RunDirectory(runs_dir / "run")
    words = [sys.executable, "-m", "mgrl_cli", *training(runs_dir, run.name, *more)]
    shell.type(shlex.join(words))
    if not IS_CAMPAIGN:
        shell.watch(LONG_ENOUGH_S, lambda: has_begun(run))
        assert has_begun(run)
    return run


def has_begun(run: RunDirectory) -> bool:
    return rounds_in_metrics(run) > 0


@pytest.mark.skipif(not IS_CAMPAIGN, reason="the suite presses Ctrl-Z before")
@pytest.mark.parametrize("seed", range(7))
def test_ctrl_c_saves_and_the_run_continues_exactly(
    shell: Shell, tmp_path: Path, seed: int
) -> None:
    with trial("30 Ctrl-C once"):
        run = start_in(shell, tmp_path, *ONLY_ON_REQUEST)
        shell.watch(random.Random(seed).uniform(0.1, LATEST_S))
        assert_ends_well(shell, run)


@pytest.mark.parametrize("seed", range(trials(campaign=7)))
def test_ctrl_z_and_fg_are_no_reason_to_blame_anyone(
    shell: Shell, tmp_path: Path, seed: int
) -> None:
    """In the campaign for longer than the hang timeout, which a slow machine could not keep."""
    impatient = ("--set", f"supervision.hang_timeout_s={HANG_TIMEOUT_S}") if IS_CAMPAIGN else ()
    with trial("30+37 Ctrl-Z for longer than the hang timeout, then fg, then Ctrl-C"):
        run = start_in(shell, tmp_path, *impatient)
        if IS_CAMPAIGN:
            half_of_all = STEPS // 60 // 2
            moment_s = random.Random(seed).uniform(0.1, LATEST_S)
            shell.watch(moment_s, lambda: rounds_in_metrics(run) >= half_of_all)
        shell.stop_a_worker()  # so that it does not end before the key; `fg` wakes everyone
        shell.press("z")
        shell.wait_for_prompt()
        time.sleep(HANG_TIMEOUT_S + 1 if IS_CAMPAIGN else 0)
        shell.bring_back()
        shell.watch(HANG_TIMEOUT_S + 0.5 if IS_CAMPAIGN else 0)
        assert not run.events.exists(), run.events.read_text()
        assert_ends_well(shell, run)


def assert_ends_well(shell: Shell, run: RunDirectory) -> None:
    """Press Ctrl-C once, and check all that a user expects then."""
    shell.press("c")
    shell.wait_for_prompt()
    code = shell.exit_code()
    assert code == 130 or (code == 0 and standing_of(run).is_finished)
    shell.assert_as_before()
    if not run.config.is_file():  # before anything was made
        return
    assert_saved_and_exact(run)


def assert_saved_and_exact(run: RunDirectory) -> None:
    """Check that what was done is in a checkpoint, and that the run continues from there."""
    assert standing_of(run).rounds >= rounds_in_metrics(run)
    finish(run)
    assert_exact_and_clean(run)


@pytest.mark.parametrize("seed", range(trials(campaign=7)))
def test_a_second_ctrl_c_ends_the_run_at_once(shell: Shell, tmp_path: Path, seed: int) -> None:
    """Even if a worker never answers the first."""
    rng = random.Random(seed)
    with trial("30 Ctrl-C twice"):
        run = start_in(shell, tmp_path)
        shell.watch(rng.uniform(0.1, LATEST_S) if IS_CAMPAIGN else 0)
        shell.stop_a_worker()
        shell.press("c")
        shell.watch(rng.uniform(0.0, 0.2))
        shell.press("c")
        shell.wait_for_prompt()
        code = shell.exit_code()
        assert code == 130 or (IS_CAMPAIGN and code == 0 and standing_of(run).is_finished)
        shell.assert_as_before()
        if run.config.is_file():
            finish(run)
            assert_exact_and_clean(run)


@contextmanager
def begun(
    tmp_path: Path, hang_up: signal.Handlers = signal.SIG_DFL
) -> Iterator[tuple[subprocess.Popen[str], RunDirectory]]:
    """A run without a terminal that has ended its first round."""
    run = RunDirectory(tmp_path / "run")
    with running(training(tmp_path, run.name, "--quiet", *ONLY_ON_REQUEST), hang_up) as process:
        wait_until(lambda: has_begun(run), process)
        yield process, run


@pytest.mark.skipif(not IS_CAMPAIGN, reason="the suite sends it to a run in its own process")
def test_a_hang_up_of_the_whole_group_saves_and_ends_with_its_exit_code(tmp_path: Path) -> None:
    with trial("30 SIGHUP"), begun(tmp_path) as (process, run):
        os.killpg(process.pid, signal.SIGHUP)
        _, errors = process.communicate(timeout=LONG_ENOUGH_S)
        assert process.returncode == 129
        (line,) = errors.splitlines()
        assert "SIGHUP" in line
        assert f"mgrl resume {run.path}" in line
        assert_soon_gone(process.pid)
        assert_saved_and_exact(run)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_every_stop_signal_has_its_exit_code(
    tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    progress = StopAfterRound(1, number)
    run = claim_run(tiny_config(), tmp_path, "run")
    with pytest.raises(Interrupted, match=number.name) as caught:
        meta_train(tiny_config(), run, progress, workers=0)
    assert caught.value.exit_code == exit_code
    assert standing_of(run).rounds == 1


def test_a_run_under_nohup_outlives_its_terminal_until_it_is_terminated(tmp_path: Path) -> None:
    with trial("30 SIGTERM"), begun(tmp_path, hang_up=signal.SIG_IGN) as (process, run):
        os.killpg(process.pid, signal.SIGHUP)
        os.killpg(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=LONG_ENOUGH_S)
        assert process.returncode == 143
        (line,) = errors.splitlines()
        assert "SIGTERM" in line
        assert_soon_gone(process.pid)
        assert_saved_and_exact(run)


def test_a_signal_while_workers_still_import_is_not_answered_by_waiting_for_them(
    tmp_path: Path,
) -> None:
    run = RunDirectory(tmp_path / "run")
    with running(training(tmp_path, run.name, "--quiet")) as process:
        wait_until(lambda: workers_of(process.pid), process)
        stop(*workers_of(process.pid))
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=LONG_ENOUGH_S)
        assert process.returncode == 130
        (line,) = errors.splitlines()
        assert "SIGINT" in line
        assert f"mgrl resume {run.path}" in line
        assert_soon_gone(process.pid)


def test_a_clock_that_is_put_back_makes_no_figure_negative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = count(time.time(), -3600.0)
    with trial("37 clock put back an hour at each look"):
        config, progress = tiny_config(), Remembering()
        run = claim_run(config, tmp_path, "run")
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: next(now_s))
            meta_train(config, run, progress, workers=0)
        elapsed_s = [snapshot.elapsed_s for snapshot in progress.snapshots]
        assert elapsed_s == sorted(elapsed_s)
        assert elapsed_s[0] >= 0
        assert all(snapshot.agent_steps_per_s >= 0 for snapshot in progress.snapshots)
        assert not any(snapshot.eta_s < 0 for snapshot in progress.snapshots)
