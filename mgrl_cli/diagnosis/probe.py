"""A probe: a Python process that reports facts, so that no crash or hang of theirs is ours.

Knows processes and JSON lines; the modules that are run as probes know what the facts mean.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, final

_PATIENCE_S = 1.0
"""How long a probe has to be gone after each signal."""


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What a probe said before it ended."""

    facts: dict[str, Any]
    ending: str
    """Why there may be no more facts, on one line; empty where the probe ended well."""


@final
class Probe:
    """One process that runs a module of this package. A context manager, to end it early.

    It has a process group of its own: the terminal's Ctrl-C does not reach it, but ending it ends
    what it spawned.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        show_errors: bool = False,
        cleans_up: bool = False,
    ) -> None:
        """Start `python -m module arguments` with the import path of this process.

        Args:
            module: calls `reporter` and says what it finds.
            arguments: its command line.
            show_errors: let it write to our stderr.
            cleans_up: it answers SIGTERM by removing what it made and must never be killed. Where
                the system makes it wait, it is left alone to end when it can.
        """
        self._signals = (signal.SIGTERM,) if cleans_up else (signal.SIGTERM, signal.SIGKILL)
        self._began_s = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if show_errors else subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the process if it still runs."""
        self._stop()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def collect(self, deadline_s: float) -> ProbeReport:
        """Wait for the end and return what was reported; at the deadline the probe is ended.

        Args:
            deadline_s: on the clock of `time.monotonic`.
        """
        try:
            wait_s = max(0.1, deadline_s - time.monotonic())
            output, _ = self._process.communicate(timeout=wait_s)
        except subprocess.TimeoutExpired as error:
            self._stop()
            taken_s = time.monotonic() - self._began_s
            return ProbeReport(_facts(error.output or b""), f"did not end within {taken_s:.0f} s")
        return ProbeReport(_facts(output), _ending(self._process.returncode))

    def _stop(self) -> None:
        for number in self._signals:
            if self._process.poll() is not None:
                return
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):  # stuck in the kernel, say on a dead mount
                self._process.wait(_PATIENCE_S)


def reporter() -> Callable[[str, object], None]:
    """Return what reports one fact (name, value for JSON) from inside a probe.

    Call it first: whatever libraries print to stdout afterwards goes to stderr.
    """
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def report(name: str, value: object) -> None:
        channel.write(json.dumps({name: value}) + "\n")
        channel.flush()

    return report


def _facts(output: bytes) -> dict[str, Any]:
    """Return the facts of all whole lines; the last may be cut off."""
    facts: dict[str, Any] = {}
    for line in output.split(b"\n")[:-1]:
        facts.update(json.loads(line))
    return facts


def _ending(exit_code: int) -> str:
    if exit_code == 0:
        return ""
    if exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"
