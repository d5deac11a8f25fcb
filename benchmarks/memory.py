"""How much memory a worker takes for itself, and whether that grows.

Private memory is what an operating system would get back if only this process ended (USS): pages
shared with others, such as libraries and the exchange, do not count. The replay in memory is the
user's choice (`replay.capacity`) and is left out of the figure; what it takes is said with it.

Growth is measured in one process with a single agent whose replay was full long before: play,
updates and meta-gradients go on, and whatever is kept too long would show.
"""

import gc
import multiprocessing
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, final

import numpy as np
import psutil

from benchmarks.end_to_end import ROUND_STEPS, DrivenAgent, meeting_in, new_exchange, population
from benchmarks.measure import Effort, Result, median_and_quartiles
from benchmarks.workers import run_together
from mgrl_cli.presets import resolve_config
from mgrl_cli.replay.gather import FLAGS
from mgrl_cli.replay.ring import ReplayRing
from mgrl_cli.run_dir.metrics import read_agent_metrics
from mgrl_cli.runtime.kernel_cache import prepare_kernels
from mgrl_cli.runtime.launch import claim_run, meta_train
from mgrl_cli.telemetry import RunSnapshot

_MIB: Final = 2**20
_WORKERS = 2
_CHEETAH_SIZES = (17, 6)


class _Growth(NamedTuple):
    """Private memory of one process before and after many updates, in bytes."""

    before: int
    after: int
    updates: int
    replay_steps: int


@final
class Onlooker:
    """A progress that weighs the worker processes of this one at every update."""

    def __init__(self) -> None:
        self.largest: dict[int, int] = {}
        """Most private bytes seen of each process."""

    def update(self, snapshot: RunSnapshot) -> None:
        """Weigh every worker that is there."""
        if not snapshot.round_index:
            return
        for process in multiprocessing.active_children():
            pid = process.pid
            if pid is None or not process.name.startswith("mgrl-worker-"):
                continue
            try:
                private = private_bytes(pid)
            except psutil.NoSuchProcess:
                continue
            self.largest[pid] = max(private, self.largest.get(pid, 0))

    def announce(self, event: str) -> None:
        """Stop at anything out of the ordinary."""
        raise AssertionError(event)


def private_bytes(pid: int | None = None) -> int:
    """Return a process's private memory; None: this one's."""
    return psutil.Process(pid).memory_full_info().uss


def replay_bytes_per_step(obs_size: int, act_size: int) -> float:
    """Return what a stored env step takes in memory, in episodes that are not very short."""
    capacity = 1000
    arrays = vars(ReplayRing(capacity, obs_size, act_size)).values()
    reserved = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
    # Rows are reserved twice: a step and a final observation for each of them. A ring that goes
    # round writes all of them in turns, but this measurement ends before.
    return reserved / capacity - 4 * (obs_size + act_size + 1 + FLAGS)


def run(effort: Effort) -> Iterator[Result]:
    """Measure two workers, and with FULL effort the growth over 10,000 updates."""
    yield _two_workers(effort)
    if effort is Effort.FULL:
        yield _growth()


def _two_workers(effort: Effort) -> Result:
    is_full = effort is Effort.FULL
    config = resolve_config(
        kind="meta-train",
        preset="laptop" if is_full else "smoke",
        options={
            "envs": [{"id": "cheetah" if is_full else "pendulum"}],
            "agents": _WORKERS,
            "steps": 4000 if is_full else 750,
        },
    )
    onlooker = Onlooker()
    prepare_kernels(config, lambda _: None, workers=None)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        run = claim_run(config, Path(directory), "run")
        meta_train(config, run, onlooker, workers=_WORKERS)
        rows = read_agent_metrics(run.metrics)
    assert len(onlooker.largest) == _WORKERS, f"{len(onlooker.largest)} workers were weighed"
    last = [row for row in rows if row["round"] == config.num_rounds]
    updates = [row["updates"] for row in last]
    assert len(updates) == _WORKERS, f"{len(updates)} agents finished"
    assert all(updates), f"agents made {updates} updates"
    per_step = replay_bytes_per_step(*_CHEETAH_SIZES)
    # What these few steps take is left in the figure: less than a megabyte.
    mebibytes = [private / _MIB for private in onlooker.largest.values()]
    _, spread = median_and_quartiles(mebibytes)
    return Result(
        benchmark="memory",
        setting=f"{_WORKERS} workers, {config.envs[0].id}, {config.preset} preset; replay of "
        f"HalfCheetah besides: {per_step:.0f} bytes a step, {1e6 * per_step / _MIB:.0f} MiB full",
        figure="private MiB of the largest worker",
        value=max(mebibytes),
        spread=spread,
        direction="at most",
        target=350.0,
        check=f"both workers learned ({' and '.join(map(str, updates))} updates) and were weighed "
        "at every round's end and in between",
    )


def _growth() -> Result:
    (growth,) = run_together(_grow, [(10_000,)])
    return Result(
        benchmark="memory",
        setting=f"one agent on HalfCheetah-v5, replay full at {growth.replay_steps} steps",
        figure=f"MiB of private memory that {growth.updates} updates add",
        value=(growth.after - growth.before) / _MIB,
        direction="at most",
        target=2.0,
        check=f"{growth.updates} updates and half as many meta-steps made; "
        f"{growth.before / _MIB:.0f} MiB before",
    )


def _grow(updates: int) -> _Growth:
    """Return one process's private memory before and after so many updates."""
    config = population("cheetah", 1)
    capacity = 2 * ROUND_STEPS
    config = config.model_copy(
        update={"replay": config.replay.model_copy(update={"capacity": capacity})}
    )
    exchange = new_exchange(config, num_workers=1)
    driven = DrivenAgent(config, exchange.params, meeting_in(exchange))
    for _ in range(3):
        driven.play()
        driven.agent.end_round()
    driven.round()  # everything has been used once
    gc.collect()
    before = private_bytes()
    made = driven.agent.counters.updates
    while driven.agent.counters.updates < made + updates:
        driven.round()
    gc.collect()
    after = private_bytes()
    assert driven.agent.replay.num_steps == capacity, driven.agent.replay.num_steps
    made = driven.agent.counters.updates - made
    assert exchange.status.version == driven.agent.counters.updates // 2, exchange.status
    return _Growth(before, after, made, capacity)
