"""Kernels that nobody has compiled yet: all cores compile them, and a stop ends that at once."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from mgrl_cli.cores import usable_cores
from mgrl_cli.runtime import kernel_cache
from mgrl_cli.runtime.kernel_cache import COMPILER_NAME
from tests.faults.processes import LONG_ENOUGH_S, assert_soon_gone, session_of, wait_until
from tests.runtime.conftest import tiny_config

numba = pytest.importorskip("numba", reason="the kernels need numba")

SMALL_RUN = ("meta-train", "--envs", "pendulum", "--preset", "smoke")
_PREPARE = """
from mgrl_cli.presets import resolve_config
from mgrl_cli.runtime.kernel_cache import prepare_kernels

config = resolve_config(
    kind="meta-test",
    preset="smoke",
    assignments=(),
    options={"envs": [{"id": "pendulum"}], "rules": ["vpg"]},  # compiles in seconds
)
if __name__ == "__main__":
    said = []
    prepare_kernels(config, said.append, workers=None)

    from mgrl_cli.algorithm.fused import descent, glue, meta_glue
    from mgrl_cli.replay import compiled_gather

    loaded = glue.act, meta_glue.judge, descent.descend, compiled_gather.gather_windows
    print(len(said), sum(sum(each.stats.cache_misses.values()) for each in loaded))
"""


def _lines_and_compiled(cache: Path) -> tuple[int, int]:
    """Return how many lines a new process says, and how many of four kernels it compiled itself."""
    script = cache / "prepare.py"
    script.write_text(_PREPARE)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, str(script)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines, compiled = result.stdout.split()
    return int(lines), int(compiled)


needs_two_cores = pytest.mark.skipif(usable_cores() == 1, reason="nobody else compiles on one core")


@needs_two_cores
def test_other_processes_compile_what_is_not_there(tmp_path: Path) -> None:
    assert _lines_and_compiled(tmp_path) == (2, 0)
    assert any(tmp_path.rglob("*.nbi"))
    assert _lines_and_compiled(tmp_path) == (1, 0)


@pytest.mark.parametrize(
    ("workers", "cores", "starts"), [(None, 2, 1), (3, 8, 1), (0, 8, 0), (None, 1, 0)]
)
def test_what_other_processes_do_not_compile_this_one_does(
    monkeypatch: pytest.MonkeyPatch, workers: int | None, cores: int, starts: int
) -> None:
    asked: list[bool] = []
    compiled: list[int] = []

    def refuse() -> None:
        asked.append(True)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    def compile_anew(number: int) -> None:
        square = numba.njit(lambda x: x * x)
        square.__module__ = "mgrl_cli.a_kernel"
        assert square(2.0) == 4.0
        compiled.append(number)

    loads = [lambda: None, partial(compile_anew, 1), partial(compile_anew, 2)]
    monkeypatch.setattr(kernel_cache, "kernel_loads", lambda _: loads)
    monkeypatch.setattr(kernel_cache, "start_fork_server", refuse)
    monkeypatch.setattr(kernel_cache, "usable_cores", lambda: cores)
    kernel_cache.prepare_kernels(tiny_config(), lambda _: None, workers=workers)
    assert compiled == [1, 2]
    assert len(asked) == starts


@needs_two_cores
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they end with what they compile")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stop_ends_the_compiling_and_all_its_processes(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mgrl_cli", *SMALL_RUN, "--runs-dir", str(tmp_path / "runs")],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            wait_until(lambda: _compilers(process.pid), process)
            process.send_signal(number)
            # There is no run yet that would want to end in good order.
            expected = 128 + number if number == signal.SIGINT else -number
            assert process.wait(LONG_ENOUGH_S) == expected
            assert_soon_gone(process.pid)
        finally:
            process.kill()
    assert not (tmp_path / "runs").exists()


def _compilers(leader: int) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in session_of(leader):
        with suppress(psutil.NoSuchProcess):  # it has just gone
            if process.name() == COMPILER_NAME:
                found.append(process)
    return found
