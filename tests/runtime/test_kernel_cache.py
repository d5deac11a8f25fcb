"""Kernels that nobody has compiled yet: all cores compile them, and a stop ends that at once."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mgrl_cli.runtime import kernel_cache
from tests.runtime.conftest import tiny_config

numba = pytest.importorskip("numba", reason="the kernels need numba")

_WITHOUT_NETWORKS = ("--envs", "pendulum", "--preset", "smoke", "--steps", "200")
"""Of `mgrl baseline vpg`: its kernels compile in seconds."""
_COUNT_COMPILED = """
from numba.core.event import install_recorder
from mgrl_cli.presets import resolve_config
from mgrl_cli.runtime.kernel_cache import prepare_kernels

config = resolve_config(
    kind="meta-test",
    preset="smoke",
    assignments=(),
    options={"envs": [{"id": "pendulum"}], "rules": ["vpg"]},
)
if __name__ == "__main__":
    said = []
    with install_recorder("numba:compile") as recorder:
        prepare_kernels(config, said.append, workers=None)
    modules = {event.data["dispatcher"].__module__ for _, event in recorder.buffer}
    print(len(said), *sorted(name for name in modules if name.startswith("mgrl_cli")))
"""


def _compiled_here(cache: Path) -> tuple[int, list[str]]:
    """Return how many lines a new process says, and whose kernels it compiled by itself."""
    script = cache / "prepare.py"
    script.write_text(_COUNT_COMPILED)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, str(script)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines, *modules = result.stdout.split()
    return int(lines), [module.rpartition(".")[2] for module in modules]


def test_other_processes_compile_what_is_not_there_all_but_the_kernels_that_show_it(
    tmp_path: Path,
) -> None:
    assert _compiled_here(tmp_path) == (2, ["meta_glue"])
    assert _compiled_here(tmp_path) == (1, [])


def refuse_to_start() -> None:
    raise BlockingIOError(11, "Resource temporarily unavailable")


def refuse_to_be_called() -> None:
    pytest.fail("a process was to be started")


@pytest.mark.parametrize(
    ("workers", "start"), [(None, refuse_to_start), (3, refuse_to_start), (0, refuse_to_be_called)]
)
def test_without_other_processes_this_one_compiles(
    monkeypatch: pytest.MonkeyPatch, workers: int | None, start: Callable[[], None]
) -> None:
    made: list[int] = []

    def compile_one() -> None:
        numba.njit("f8(f8)")(lambda x: x)

    loads = [compile_one, lambda: made.append(1), lambda: made.append(2)]
    monkeypatch.setattr(kernel_cache, "kernel_loads", lambda _: loads)
    monkeypatch.setattr(kernel_cache, "start_fork_server", start)
    kernel_cache.prepare_kernels(tiny_config(), lambda _: None, workers=workers)
    assert made == [1, 2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stop_ends_the_compiling_and_all_its_processes(
    tmp_path: Path, number: signal.Signals
) -> None:
    mgrl = Path(sys.executable).with_name("mgrl")
    with subprocess.Popen(
        [mgrl, "meta-train", *_WITHOUT_NETWORKS, "--runs-dir", str(tmp_path / "runs")],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "compiling kernels" in line:
                break
        us = psutil.Process(process.pid)
        compilers: list[psutil.Process] = []
        while not compilers:
            compilers = [
                each for each in us.children(recursive=True) if each.name() == "mgrl-compiler"
            ]
        process.send_signal(number)
        _, alive = psutil.wait_procs(compilers, timeout=5)
        assert not alive
        # There is no run yet that would want to end in good order.
        expected = 128 + number if number == signal.SIGINT else -number
        assert process.wait(timeout=5) == expected
    assert not (tmp_path / "runs").exists()
