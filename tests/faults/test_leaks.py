"""Long runs and many runs in one process: memory, files, threads and shared memory stay the same.

The first rounds are left out of every comparison: libraries start threads, fill caches and open
files when they are first used.
"""

import gc
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest
import torch

from mgrl_cli.config import RunConfig
from mgrl_cli.errors import Interrupted
from mgrl_cli.run_dir.tensor_file import tensor_file_bytes
from mgrl_cli.runtime.launch import claim_run, meta_train
from mgrl_cli.runtime.resumption import resume
from mgrl_cli.telemetry import RunSnapshot
from tests.faults.processes import leaves_no_shared_memory
from tests.faults.tally import IS_CAMPAIGN, trial, trials
from tests.runtime.conftest import Remembering, tiny_config
from tests.runtime.stopping import StopAfterRound

LARGEST_POOL = 32
EPISODE = 5
ROUNDS = trials(campaign=2000, suite=60)
FIRST = ROUNDS // 3
"""Rounds until everything has been used."""


class Usage(NamedTuple):
    """What this process holds."""

    files: int
    threads: int
    shared_maps: int


def usage() -> Usage:
    process = psutil.Process()
    # Of this process alone: the directory belongs to everybody, and torch unlinks what it maps.
    maps = Path("/proc/self/maps").read_text().splitlines()
    shared = sum("/dev/shm" in line for line in maps)
    # Zarr's own pool grows up to a fixed size whenever all of its threads happen to be busy.
    pool = sum(thread.name.startswith("asyncio_") for thread in threading.enumerate())
    assert pool <= LARGEST_POOL
    return Usage(process.num_fds(), process.num_threads() - pool, shared)


class Watching(Remembering):
    """A progress that measures at every round's end."""

    def __init__(self) -> None:
        super().__init__()
        self.resident_mb: dict[int, float] = {}
        self.usages: dict[int, Usage] = {}

    def update(self, snapshot: RunSnapshot) -> None:
        number = snapshot.round_index
        if number not in self.usages:
            self.usages[number] = usage()
            self.resident_mb[number] = psutil.Process().memory_info().rss / 2**20


def config_of(faulty: str, rounds: int, *assignments: str) -> RunConfig:
    """Rounds of one episode of 5 steps and 5 updates, with an evaluation each."""
    config = tiny_config(
        steps=rounds * EPISODE,
        assignments=(
            f"schedule.round_steps={EPISODE}",
            *("schedule.updates_start=0", "exploration.random_steps=0", "meta.anneal_steps=100"),
            f"evaluation.interval={EPISODE}",
            # Full after 20 rounds, so that it does not grow for ever.
            f"replay.capacity={20 * EPISODE}",
            *assignments,
        ),
    )
    env = {"id": faulty, "kwargs": {"fault": "none", "episode_steps": EPISODE}}
    return config.model_validate({**config.model_dump(), "envs": [env], "agents": 1})


def test_many_rounds_hold_no_more_than_a_few(faulty: str, tmp_path: Path) -> None:
    config = config_of(faulty, ROUNDS, "checkpoints.interval_s=2")
    with trial("32 leaks, rounds", ROUNDS):
        gc.collect()  # what other tests left in cycles must not go in the middle
        watching = Watching()
        meta_train(config, claim_run(config, tmp_path, "run"), watching, workers=0)
        later = range(FIRST, ROUNDS + 1)
        assert {watching.usages[number] for number in later} == {watching.usages[FIRST]}
        resident_mb = [watching.resident_mb[number] for number in later]
        slope_mb = 1000 * float(np.polyfit(later, resident_mb, 1)[0])
        # 60 rounds say little of memory: only what would be gigabytes soon shows in them.
        assert slope_mb < (1.0 if IS_CAMPAIGN else 100.0), f"{slope_mb:.2f} MB per 1000 rounds"


def test_tensors_of_ever_new_sizes_leave_no_types_behind() -> None:
    """As the replay's tail does, of which every checkpoint holds more or fewer rows."""

    def ctypes_types() -> int:
        gc.collect()
        return sum(type(each).__name__.startswith("PyC") for each in gc.get_objects())

    before = ctypes_types()
    for size in range(10_000, 10_020):
        tensor_file_bytes({"tail": torch.zeros(size)}, {})
    assert ctypes_types() == before


def start_and_stop(config: RunConfig, runs_dir: Path, name: str, workers: int) -> None:
    """Begin a run, stop it after its first round, continue it to its end."""
    run = claim_run(config, runs_dir, name)
    with pytest.raises(Interrupted):
        meta_train(config, run, StopAfterRound(1), workers=workers)
    resume(run, Remembering(), workers=workers, say=lambda _: None)


def usages_of_cycles(faulty: str, runs_dir: Path, cycles: int, workers: int) -> set[Usage]:
    """Start and stop runs one after the other; return what was held after each but the first."""
    config = config_of(faulty, 3, "checkpoints.interval_s=0")
    usages: list[Usage] = []
    for number in range(cycles):
        start_and_stop(config, runs_dir, f"run-{number}", workers)
        gc.collect()
        usages.append(usage())
    return set(usages[1:])


def test_many_runs_in_one_process_leave_nothing_behind(faulty: str, tmp_path: Path) -> None:
    cycles = trials(campaign=20, suite=3)
    with trial("32 leaks, starts and stops", cycles):
        assert len(usages_of_cycles(faulty, tmp_path, cycles, workers=0)) == 1


@pytest.mark.slow
def test_many_runs_with_worker_processes_leave_nothing_behind(faulty: str, tmp_path: Path) -> None:
    cycles = trials(campaign=20, suite=3)
    with trial("32 leaks, starts and stops of processes", cycles), leaves_no_shared_memory():
        assert len(usages_of_cycles(faulty, tmp_path, cycles, workers=1)) == 1
