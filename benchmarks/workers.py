"""What going in lock-step costs: two workers of one population against two copies on their own.

Two processes on two cores, each with two agents on HalfCheetah: one of a population of two, which
meets the other process's after every second update, and a copy of it that shares nothing and makes
its meta-steps alone. Both processes time the same number of updates with either agent, in turns and
from a common start, so that all four agents do the same work under the same load.

The figure is the updates per second of both processes together, each counted up to its own end.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any
from unittest.mock import patch

import numpy as np
import torch.multiprocessing
from numpy.typing import NDArray

from benchmarks.end_to_end import DrivenAgent, Meeting, meeting_in, new_exchange, population
from benchmarks.measure import Effort, Result, cores, median_and_quartiles, one_thread
from mgrl_cli.lifeline import die_with
from mgrl_cli.runtime.exchange import Exchange
from mgrl_cli.runtime.worker import prepared_torch

CORES = 2
WARM_PAIRS = 10
_LOCK_STEP, _ALONE = "lock-step", "alone"


def run_together(body: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Run `body` in one fresh process per entry of `arguments`, all at once; return what they did.

    Answers must be plain values or arrays: tensors would need their process to stay alive.

    Raises:
        AssertionError: a process failed; what it said is on stderr.
    """
    context = torch.multiprocessing.get_context("spawn")
    processes: list[Any] = []
    pending: dict[Connection, int] = {}
    answers: list[Any] = [None] * len(arguments)
    try:
        with patch.dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1"):
            for number, each in enumerate(arguments):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(
                    target=_member, args=(body, theirs, os.getpid(), each), daemon=True
                )
                process.start()
                theirs.close()
                processes.append(process)
                pending[ours] = number
        while pending:
            for connection in wait(list(pending)):
                number = pending.pop(connection)  # type: ignore[arg-type]
                try:
                    answers[number] = connection.recv()  # type: ignore[union-attr]
                except EOFError as error:
                    raise AssertionError(f"process {number} failed, see above") from error
    finally:
        for process in processes:
            process.kill() if pending else None
            process.join()
    return answers


def run(effort: Effort) -> Iterator[Result]:
    """Measure two workers on two cores."""
    repeats, pairs = (16, 250) if effort is Effort.FULL else (2, 100)
    config = population("cheetah", CORES)
    exchange = new_exchange(config, num_workers=CORES)
    start = torch.multiprocessing.get_context("spawn").Barrier(CORES)
    with one_thread(), cores(CORES):
        members = [(rank, exchange, start, repeats, pairs) for rank in range(CORES)]
        answers = run_together(_worker, members)
        _assert_serial_twin_agrees(exchange, WARM_PAIRS + repeats * pairs)
    updates = 2 * pairs
    rates = {
        name: sum(updates / np.array(seconds[name]) for seconds in answers)
        for name in (_LOCK_STEP, _ALONE)
    }
    value, spread = median_and_quartiles((rates[_LOCK_STEP] / rates[_ALONE]).tolist())
    yield Result(
        benchmark="workers",
        setting=f"2 workers on 2 cores, HalfCheetah-v5 sizes, {updates} updates at a time",
        figure="throughput in lock-step as a share of independent copies'",
        value=value,
        spread=spread,
        direction="at least",
        target=0.97,
        milliseconds={
            f"{name}, per agent-step": 1e3 * CORES / float(np.median(each))
            for name, each in rates.items()
        },
        check=f"objective after {exchange.status.version} meta-steps equal, bit for bit, to that "
        "of the same agents in one process",
    )


def _member(
    body: Callable[..., Any], answer: Connection, parent_pid: int, arguments: tuple[Any, ...]
) -> None:
    die_with(parent_pid)
    with prepared_torch():
        answer.send(body(*arguments))


def _worker(
    rank: int,
    exchange: Exchange,
    start: Any,  # noqa: ANN401 - a barrier, which has no public type
    repeats: int,
    pairs: int,
) -> dict[str, list[float]]:
    """Return the seconds of each contender's updates in this process."""
    config = population("cheetah", CORES)
    own = new_exchange(config, num_workers=1)
    agents = {
        _LOCK_STEP: DrivenAgent(config, exchange.params, meeting_in(exchange), rank),
        _ALONE: DrivenAgent(config, own.params, meeting_in(own), rank),
    }
    for agent in agents.values():
        agent.play()
        for _ in range(WARM_PAIRS):
            agent.pair_step()
    seconds: dict[str, list[float]] = {name: [] for name in agents}
    for repeat in range(repeats):
        for name in (_LOCK_STEP, _ALONE) if repeat % 2 else (_ALONE, _LOCK_STEP):
            start.wait()
            began_s = time.perf_counter()
            for _ in range(pairs):
                agents[name].pair_step()
            seconds[name].append(time.perf_counter() - began_s)
    return seconds


def _assert_serial_twin_agrees(exchange: Exchange, pairs: int) -> None:
    """Raise AssertionError where one process comes to another objective than the workers."""
    config = population("cheetah", CORES)
    twin = new_exchange(config, num_workers=1)

    def hand_in(agent_id: int, gradient: torch.Tensor) -> bool:
        is_finite = twin.contribute(agent_id, gradient)
        if agent_id == CORES - 1:
            twin.meet()
        return is_finite

    agents = [
        DrivenAgent(config, twin.params, Meeting(hand_in, lambda: None), rank)
        for rank in range(CORES)
    ]
    for agent in agents:
        agent.play()
    for _ in range(pairs):
        _pair_of_all(agents)
    own, theirs = _bits(exchange), _bits(twin)
    assert exchange.status == twin.status, f"{exchange.status} in lock-step, {twin.status} alone"
    assert np.array_equal(own, theirs), "the workers' objective differs from the serial twin's"


def _pair_of_all(agents: Sequence[DrivenAgent]) -> None:
    """Make one meta-step of a population in one process.

    An agent's second update does not depend on the objective, so it may come before the others'
    first.
    """
    for agent in agents:
        agent.pair_step()


def _bits(exchange: Exchange) -> NDArray[np.float32]:
    return exchange.params.numpy().copy()
