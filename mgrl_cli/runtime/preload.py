"""What the fork server does before anybody asks it for a worker; imported there, for its effects.

Whatever stands here no worker has to do. Nothing may start a thread: the server forks.
"""

import importlib
import os
from contextlib import suppress

from envs.quiet import quiet_libraries
from mgrl_cli import lifeline
from mgrl_cli.fork_server import USERS_PYTHONPATH

_MODULES = (
    "mgrl_cli.runtime.channel",
    "mgrl_cli.cli",  # the main module, which multiprocessing imports in each of its processes
    # What agents import only where they need it.
    "mgrl_cli.algorithm.fused.head",
    "mgrl_cli.algorithm.fused.passes",
    "mgrl_cli.algorithm.fused.trunk_passes",
    "scipy.linalg",  # by numba's support of numpy.linalg, when it loads a kernel
    "gymnasium.envs.box2d",
    "gymnasium.envs.mujoco",
)


def _rouse_numba() -> None:
    """Have numba set up its compiler, which it does with the first function."""
    from numba import njit

    njit("f8(f8)")(lambda x: x)


def _tidy_environment() -> None:
    """Take back what `fork_server` told this Python: workers' own children need not follow it."""
    os.environ.pop("PYTHONSAFEPATH", None)
    if path := os.environ.pop(USERS_PYTHONPATH, ""):
        os.environ["PYTHONPATH"] = path
    else:
        os.environ.pop("PYTHONPATH", None)


def _prepare() -> None:
    lifeline.fork_server_pid = os.getpid()
    lifeline.die_with(os.getppid())  # first: what follows takes seconds
    _tidy_environment()
    with quiet_libraries():  # pygame greets on stdout, which is the command's
        for name in _MODULES:
            with suppress(Exception):  # a worker that needs it will say what is wrong with it
                importlib.import_module(name)
        with suppress(Exception):
            _rouse_numba()


_prepare()
