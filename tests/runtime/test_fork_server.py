"""The process that workers are forked from: what it has done for them, and what its end means."""

import json
import os
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from mgrl_cli.replay.reader import ReplayReader, agent_groups
from mgrl_cli.runtime.launch import claim_run, meta_train
from mgrl_cli.telemetry import RunSnapshot
from tests.runtime.conftest import TINY, Remembering, fingerprint, run_tiny, tiny_config

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has one")


def fork_server() -> psutil.Process:
    """The fork server of this process."""
    (server,) = (
        child
        for child in psutil.Process().children()
        if "multiprocessing.forkserver" in " ".join(child.cmdline())
    )
    return server


class _KillingTheServer(Remembering):
    """A progress in whose first round the server is killed, as for want of memory."""

    def __init__(self) -> None:
        super().__init__()
        self.has_killed = False

    def update(self, snapshot: RunSnapshot) -> None:
        super().update(snapshot)
        if snapshot.round_index >= 1 and not self.has_killed:
            self.has_killed = True
            fork_server().kill()


def test_it_forks_from_one_thread_after_all_imports(tmp_path: Path) -> None:
    run_tiny(tiny_config(), tmp_path, "run", workers=2)
    server = fork_server()
    assert server.num_threads() == 1
    libraries = {Path(each.path).name for each in server.memory_maps()}
    for name in ("libtorch_python.so", "_dispatcher", "libllvmlite.so", "libmujoco"):
        assert any(library.startswith(name) for library in libraries), name


def test_it_takes_no_notice_of_where_it_was_started_and_says_nothing(tmp_path: Path) -> None:
    elsewhere = tmp_path / "project"
    (elsewhere / "envs").mkdir(parents=True)
    (elsewhere / "envs" / "__init__.py").write_text("raise AssertionError('not ours')\n")
    command = Path(sys.executable).with_name("mgrl")
    words = ["meta-train", "--envs", "pendulum", "--agents", "1", "--preset", "smoke", "--json"]
    words += ["--steps", "180", *(word for setting in TINY for word in ("--set", setting))]
    done = subprocess.run(
        [command, *words, "--runs-dir", str(tmp_path), "--run", "run"],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert [len(json.loads(line)["agents"]) for line in done.stdout.splitlines()] == [1, 1, 1]


def test_its_loss_is_the_loss_of_workers_and_changes_nothing(tmp_path: Path) -> None:
    config = tiny_config()
    undisturbed = run_tiny(config, tmp_path, "undisturbed", workers=2)
    run, progress = claim_run(config, tmp_path, "disturbed"), _KillingTheServer()
    before = None
    with suppress(ValueError):  # none yet
        before = fork_server().pid
    meta_train(config, run, progress, workers=2)
    assert progress.has_killed
    assert fork_server().pid != before
    assert len(progress.events) == 1
    assert "restart 1 of 3" in progress.events[0]
    assert fingerprint(run) == fingerprint(undisturbed)


def test_workers_do_not_share_the_state_of_numpys_global_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "careless_module.py").write_text(
        textwrap.dedent(
            """
            import gymnasium, numpy as np
            from gymnasium.spaces import Box

            class Careless(gymnasium.Env):
                observation_space = action_space = Box(-1.0, 1.0, (1,), np.float32)

                def reset(self, *, seed=None, options=None):
                    super().reset(seed=seed)
                    return np.zeros(1, np.float32), {}

                def step(self, action):
                    return np.zeros(1, np.float32), np.random.random(), False, False, {}

            gymnasium.register("Careless-v0", Careless, max_episode_steps=30)
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    environment = "careless_module:Careless-v0"
    run = run_tiny(tiny_config((environment, environment)), tmp_path, "run", workers=2)
    first, second = (
        ReplayReader(group).read("reward", 0, 30) for group in agent_groups(run.buffer)
    )
    assert not np.array_equal(first, second)
