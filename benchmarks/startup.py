"""How soon `mgrl meta-train` learns, from the start of its process to the first meta-step.

The README's first command, worker processes and all, with kernels compiled before ("warm") and with
an empty kernel cache ("cold"). The first meta-step comes right after every agent's first update;
before it lie imports, the check of the environments, kernels, starting the workers, the run
directory, the first checkpoint, and the 2,000 env steps that an agent plays before it learns.

The command runs here as it does anywhere, `mgrl_cli.cli`'s own entry, in a process of its own. Only
beside it a thread watches the shared counter of meta-steps, notes the time of the first one and
then interrupts, as Ctrl-C does. The clock is the system's monotonic one, the same in all processes.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from benchmarks.measure import Effort, Result, median_and_quartiles

_SIGN = "benchmark: first meta-step at "
_INTERRUPTED = 128 + signal.SIGINT
_POLL_S = 0.005
_WATCHED = "from benchmarks.startup import watched_mgrl; watched_mgrl()"


class _Start(NamedTuple):
    """One start, in seconds from the process's beginning."""

    first_word_s: float
    """Until it said anything."""
    first_meta_step_s: float
    said: str
    """On stderr, up to the first meta-step."""


def watched_mgrl() -> None:
    """Run this process's arguments as `mgrl` does, and say when the first meta-step was made."""
    from mgrl_cli.cli import main
    from mgrl_cli.runtime.exchange import Exchange

    make = Exchange.__init__

    def make_and_watch(exchange: Exchange, *arguments: object, **options: object) -> None:
        make(exchange, *arguments, **options)  # type: ignore[arg-type]
        threading.Thread(target=_watch, args=(exchange.tensors()["counters"],), daemon=True).start()

    sys.argv[0] = "mgrl"
    with patch.object(Exchange, "__init__", make_and_watch):
        sys.exit(main())


def run(effort: Effort) -> Iterator[Result]:
    """Measure warm starts, and with FULL effort cold ones."""
    envs, agents = ("lunar,cheetah", 4) if effort is Effort.FULL else ("pendulum", 1)
    setting = f"--envs {envs} --agents {agents}, laptop preset, {agents} workers"
    _start(envs, agents, {})  # whatever else must be read from disk the first time
    warm = [_start(envs, agents, {}) for _ in range(5 if effort is Effort.FULL else 1)]
    yield from _results("warm", warm, setting, target_s=5.0)
    if effort is Effort.FULL:
        cold = [_cold_start(envs, agents) for _ in range(2)]
        yield from _results("cold", cold, setting, target_s=30.0)


def _cold_start(envs: str, agents: int) -> _Start:
    with tempfile.TemporaryDirectory() as cache:
        start = _start(envs, agents, {"NUMBA_CACHE_DIR": cache})
        assert any(Path(cache).rglob("*.nbi")), "nothing was compiled into the empty cache"
    return start


def _start(envs: str, agents: int, environment: Mapping[str, str]) -> _Start:
    """Start a run, wait for its first meta-step, and have it end itself.

    Raises:
        AssertionError: it ended otherwise, or never said that it loads kernels.
    """
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as runs_dir:  # not /tmp: often no disk
        began_s = time.monotonic()
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", _WATCHED, "meta-train"),
                *("--envs", envs, "--agents", str(agents)),
                *("--runs-dir", runs_dir, "--run", "run"),
            ],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        said: list[str] = []
        first_word_s = first_meta_step_s = float("nan")
        with process:
            assert process.stderr is not None
            for line in process.stderr:
                if not said:
                    first_word_s = time.monotonic() - began_s
                said.append(line)
                if line.startswith(_SIGN):
                    first_meta_step_s = float(line.removeprefix(_SIGN)) - began_s
        text = "".join(said)
        assert process.returncode == _INTERRUPTED, f"exit {process.returncode}: {text}"
        assert first_meta_step_s > 0, f"no meta-step was seen: {text}"
        assert "kernels" in text.partition(_SIGN)[0], f"not a word about the kernels: {text}"
    return _Start(first_word_s, first_meta_step_s, text.partition(_SIGN)[0])


def _watch(counters: "Mapping[int, int]") -> None:
    while not counters[0]:
        time.sleep(_POLL_S)
    # Directly: the live view and plain lines share this stream.
    os.write(2, f"{_SIGN}{time.monotonic()}\n".encode())
    os.kill(os.getpid(), signal.SIGINT)


def _results(
    cache: str, starts: list[_Start], setting: str, *, target_s: float
) -> Iterator[Result]:
    figures = {
        "the first meta-step": ([each.first_meta_step_s for each in starts], target_s),
        "the first line on stderr": ([each.first_word_s for each in starts], 5.0),
    }
    for name, (seconds, target) in figures.items():
        value, spread = median_and_quartiles(seconds)
        yield Result(
            benchmark="startup",
            setting=setting,
            figure=f"seconds to {name}, {cache} kernel cache",
            value=value,
            spread=spread,
            direction="at most",
            target=target,
            check=f"all {len(starts)} runs said that they load kernels, made a meta-step, and "
            "ended by the interrupt",
        )
