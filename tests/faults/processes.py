"""Real `mgrl` processes, and what must be left of them: for the tests that kill and stop them."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil

from mgrl_cli.cli import main
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.runtime.channel import WORKER_NAME
from tests.faults.tally import IS_CAMPAIGN
from tests.runtime.conftest import TINY, fingerprint

STEPS = 900 if IS_CAMPAIGN else 180
"""Env steps of a run, in rounds of 60; a checkpoint at the end of each."""
LONG_ENOUGH_S = 100.0
"""For anything that must happen, on a busy machine."""
SOON_S = 30.0
"""For what takes a moment, on a busy machine; a test has it wait for something else for longer."""
_SHARED_MEMORY = Path("/dev/shm")


def training(runs_dir: Path, name: str, *more: str) -> list[str]:
    """The command line of a run."""
    words = ["meta-train", "--envs", "pendulum,cartpole", "--preset", "smoke"]
    words += ["--steps", str(STEPS), "--runs-dir", str(runs_dir), "--run", name]
    for setting in (*TINY, "checkpoints.interval_s=0"):
        words += ["--set", setting]
    return [*words, *more]


@cache
def undisturbed() -> dict[str, object]:
    """What such a run leaves if nothing happens to it."""
    with tempfile.TemporaryDirectory() as directory:
        assert main(training(Path(directory), "run", "--workers", "0", "--quiet")) == 0
        return fingerprint(RunDirectory(Path(directory) / "run"))


def finish(run: RunDirectory) -> None:
    """Continue a run to its end, in this process."""
    assert main(["resume", str(run.path), "--workers", "0", "--quiet"]) == 0


def assert_exact_and_clean(run: RunDirectory) -> None:
    """Check that a finished run is what it would be undisturbed, with no litter beside."""
    assert fingerprint(run) == undisturbed()
    assert litter(run) == []


def rounds_in_metrics(run: RunDirectory) -> int:
    """Rounds that the population has finished, saved or not."""
    metrics = run.population_metrics
    return metrics.read_bytes().count(b"\n") if metrics.is_file() else 0


def litter(run: RunDirectory) -> list[Path]:
    """What was being written, or removed, when somebody died; a live run may be looked at too."""
    return [
        Path(folder, name)
        for folder, folders, files in os.walk(run.path)
        for name in (*folders, *files)
        if name.startswith(".staging-") or name.endswith(".partial")
    ]


@contextmanager
def running(
    words: list[str], hang_up: signal.Handlers = signal.SIG_DFL
) -> Iterator[subprocess.Popen[str]]:
    """Run `mgrl` as the leader of a session of its own; in the end nobody of it is left.

    Whether a hang-up is ignored is inherited: the tests themselves may run under nohup.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "mgrl_cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, hang_up),
    )
    with process:
        try:
            yield process
        finally:
            for member in session_of(process.pid):
                member.kill()


def wait_until(is_so: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for something that must come about, while the process lives."""
    deadline_s = time.monotonic() + LONG_ENOUGH_S
    while not is_so():
        assert time.monotonic() < deadline_s, "waited in vain"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.03)


def session_of(leader: int) -> list[psutil.Process]:
    """Living processes of a session, whoever their parents are now."""
    members: list[psutil.Process] = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == leader:
                process = psutil.Process(pid)
                if process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                    members.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return members


def assert_soon_gone(leader: int) -> None:
    """Check that a session whose leader has ended ends too."""
    deadline_s = time.monotonic() + SOON_S
    while left := session_of(leader):
        assert time.monotonic() < deadline_s, f"still there: {left}"
        time.sleep(0.02)


def workers_of(coordinator: int) -> list[psutil.Process]:
    """The worker processes of a coordinator, in the order of their starts."""
    found: list[psutil.Process] = []
    with suppress(psutil.Error):  # the coordinator has gone
        for process in psutil.Process(coordinator).children(recursive=True):
            with suppress(psutil.Error):  # one that has just gone
                if process.name().startswith(WORKER_NAME):
                    found.append(process)
    return sorted(found, key=lambda each: (each.create_time(), each.pid))


def stop(*processes: psutil.Process) -> None:
    """Have processes stand still, so that whoever waits for them waits for ever."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it has just gone
            process.suspend()


@contextmanager
def leaves_no_shared_memory() -> Iterator[None]:
    """Check that nothing new stays in shared memory; what others use for a moment goes away."""

    def present() -> set[Path]:
        return set(_SHARED_MEMORY.iterdir()) if _SHARED_MEMORY.is_dir() else set()

    before = present()
    yield
    left = present() - before

    def is_gone() -> bool:
        left.intersection_update(present())
        return not left

    wait_until(is_gone)
