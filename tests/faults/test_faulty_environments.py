import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from envs.errors import EnvironmentFailure, InvalidEnvironmentError, NotFiniteError
from envs.registry import make

ROOT = Path(__file__).parents[2]
ACTION = np.full(1, 0.5, np.float32)


def played(env, seed: int) -> list:
    trace: list = [env.reset(seed).tobytes()]
    while True:
        result = env.step(ACTION)
        trace.append((result.obs.tobytes(), result.reward))
        if result.terminated:
            return trace


def first_failure(env, episodes: int = 5) -> tuple[type, int]:
    """Return what failed first, and after how many good steps."""
    good = count()
    for seed in range(episodes):
        try:
            env.reset(seed)
            for _ in range(20):
                env.step(ACTION)
                next(good)
        except EnvironmentFailure as error:
            return type(error), next(good)
    raise AssertionError("nothing failed")


def test_without_a_fault_seed_and_actions_say_everything(faulty):
    first, second = make(faulty), make(faulty, {"episode_steps": 20})
    played(second, 9)
    assert played(first, 3) == played(second, 3)
    assert len(played(first, 3)) == 21
    assert played(first, 3)[0] != played(first, 4)[0]


@pytest.mark.parametrize("fault", ["nan_reward", "raise_step", "sleep"])
def test_a_fault_to_come_changes_nothing_before_it(faulty, fault):
    broken = make(faulty, {"fault": fault, "at": 1000})
    assert played(make(faulty), 3) == played(broken, 3)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("raise_step", EnvironmentFailure),
        ("nan_reward", NotFiniteError),
        ("nan_obs", NotFiniteError),
        ("inf_obs", NotFiniteError),
    ],
)
def test_a_step_fails_when_it_is_due(faulty, fault, error):
    assert first_failure(make(faulty, {"fault": fault, "at": 30})) == (error, 29)
    assert first_failure(make(faulty, {"fault": fault})) == (error, 0)


def test_a_reset_fails_when_it_is_due(faulty):
    env = make(faulty, {"fault": "raise_reset", "at": 3})
    assert first_failure(env) == (EnvironmentFailure, 40)
    env.reset(0)


def test_a_constructor_fails(faulty):
    with pytest.raises(EnvironmentFailure, match="RuntimeError: no motor found"):
        make(faulty, {"fault": "raise_constructor"})


def test_an_unknown_fault_is_refused(faulty):
    with pytest.raises(InvalidEnvironmentError, match="fault got 'explode'"):
        make(faulty, {"fault": "explode"})


def test_a_rate_is_fixed_by_the_episodes_seed_and_close_to_its_name(faulty):
    kwargs = {"fault": "nan_reward", "rate": 0.1}

    def failing_steps(env, seed: int) -> list[int]:
        env.reset(seed)
        failing = []
        for step in range(20):
            try:
                env.step(ACTION)
            except NotFiniteError:
                failing.append(step)
        return failing

    env = make(faulty, kwargs)
    failing = [failing_steps(env, seed) for seed in range(100)]
    assert failing_steps(make(faulty, kwargs), 42) == failing[42]
    assert 150 < sum(map(len, failing)) < 250  # 2000 draws: 200, give or take 13.4


def test_a_marker_counts_over_instances(faulty, tmp_path):
    marker = tmp_path / "fired"
    kwargs = {"fault": "raise_step", "marker": str(marker), "times": 2}
    for _ in range(2):
        assert first_failure(make(faulty, kwargs)) == (EnvironmentFailure, 0)
    assert played(make(faulty, kwargs), 0)
    assert marker.stat().st_size == 2


@pytest.mark.parametrize(
    "kwargs",
    [
        {"fault": "raise_step", "spare_main": True},
        *({"fault": fault} for fault in ("exit", "exit_reset", "kill", "hang")),
    ],
)
def test_the_main_process_is_spared(faulty, kwargs, tmp_path):
    marker = tmp_path / "fired"
    assert played(make(faulty, {**kwargs, "marker": str(marker)}), 0)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("fault", "code"), [("exit", 9), ("exit_reset", 9), ("kill", -signal.SIGKILL)]
)
def test_a_process_of_multiprocessing_dies(faulty, fault, code, tmp_path):
    marker = tmp_path / "fired"
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing\n"
        "def play():\n"
        "    from envs.registry import make\n"
        f"    env = make({faulty!r}, {{'fault': {fault!r}, 'marker': {str(marker)!r}}})\n"
        "    env.reset(0)\n"
        f"    env.step(__import__('numpy').zeros(1, 'float32'))\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=play)\n"
        "    process.start()\n"
        "    process.join(30)\n"
        "    print(process.exitcode)\n"
    )
    path = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.stdout.strip() == str(int(code))
    assert marker.read_bytes() == b"."
