"""What every test shares: one thread per process, a random stream, and no process left behind."""

import os

# Before anything imports torch or NumPy: they read it once. Spawned workers inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Iterator

import numpy as np
import psutil
import pytest

HIDDEN = 8
"""Units of policy and critic in the runs of tests; another width would compile kernels anew."""


def pytest_sessionstart() -> None:
    """Compile the kernels before any test's clock runs: a minute on a new machine."""
    from mgrl_cli.presets import resolve_config
    from mgrl_cli.runtime.kernel_cache import prepare_kernels

    networks = {"policy": {"hidden": HIDDEN}, "critic": {"hidden": HIDDEN}}
    options = {"envs": [{"id": "pendulum"}], **networks}
    config = resolve_config(kind="meta-train", preset="smoke", assignments=(), options=options)
    prepare_kernels(config, lambda _: None, workers=None)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


_HELPERS = ("resource_tracker", "forkserver")


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left_behind() -> Iterator[None]:
    """Fail the session if a child process outlives the tests, and end it."""
    yield
    children = [
        child for child in psutil.Process().children(recursive=True) if not _is_a_helper(child)
    ]
    _, alive = psutil.wait_procs(children, timeout=30)
    left = [f"{child.pid}: {_command_line(child)}" for child in alive]
    for child in alive:
        child.kill()
    psutil.wait_procs(alive, timeout=3)
    assert not left, f"processes left behind by the tests: {left}"


def _is_a_helper(process: psutil.Process) -> bool:
    """Return whether this is a helper of multiprocessing's: they live as long as this process.

    Those that the fork server becomes look like itself, but it is their parent.
    """
    try:
        is_ours = process.ppid() == os.getpid()
    except psutil.Error:
        return False
    line = _command_line(process)
    return is_ours and any(f"multiprocessing.{name}" in line for name in _HELPERS)


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # gone in the meantime, or a zombie
        return ""
