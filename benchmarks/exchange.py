"""One meta-step's exchange, against what else adds gradients up and steps between processes.

All contenders take one gradient of 15,497 parameters per process, add them up and make an Adam step
(fused, as torch has it), after which every process sees the new parameters:

* `mgrl`: `Exchange.contribute` and `Exchange.meet`, which keeps one copy of parameters and moments.
* `gloo`: `torch.distributed.all_reduce` on one machine, then Adam on every process's own copy.
* `barrier`: every process writes its gradient into shared memory, all meet at one
  `multiprocessing.Barrier`, and each takes the mean itself and steps its own copy. Two sets of
  slots in turns spare it the second barrier.

Nothing else is computed in between, so all arrive together; that is what is timed, call by call, in
blocks that take turns. A pair-step of a laptop-sized agent, from one exchange to the next, is timed
in the same turns, in all processes at the same time: the exchange's share is of that.

With more workers than cores an arrival together does not exist. There, workers do calibrated
work, as long as a pair-step, with an exchange in each, where an agent has its own, and without
any; the share is what the population's wall time grows by.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.end_to_end import DrivenAgent, Meeting, population
from benchmarks.exchange_peers import (
    BARRIER,
    GLOO,
    GRADIENTS,
    MGRL,
    BarrierReduce,
    Contender,
    Gloo,
    Ours,
    assert_all_agree,
    gradients_of,
    new_exchange,
)
from benchmarks.measure import Effort, Result, cores, median_and_quartiles, one_thread
from benchmarks.workers import run_together
from mgrl_cli.runtime.exchange import Exchange

CORES = 2
CROWD = 20
_AFTER = 0.1
"""Share of a pair-step that comes after the gradient is handed in: the second critic update."""
_LONGEST_BLOCK_S = 3.0
"""Of the crowd's work; fewer steps where the machine is busy."""
_PAIR_STEP = "pair-step"
_WITH, _WITHOUT = "with", "without"


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What all processes are told, and share."""

    names: Sequence[str]
    exchange: Exchange
    slots: Tensor
    """Of the barrier's contender: [2, process, param]."""
    start: Any
    """Where all wait before each block."""
    barrier: Any
    """Where the barrier's contender meets."""
    store: Path
    """Where gloo's processes find each other."""
    repeats: int
    steps: int


def run(effort: Effort) -> Iterator[Result]:
    """Measure two processes on two cores; with FULL effort all contenders, and a crowd."""
    with one_thread(), cores(CORES):
        if effort is Effort.SMOKE:
            # Three repeats say nothing of the slowest in a hundred.
            yield _two_workers([MGRL, BARRIER], repeats=3, steps=200)[0][0]
            return
        contenders = [MGRL, BARRIER, GLOO, _PAIR_STEP]
        results, pair_step_s = _two_workers(contenders, repeats=20, steps=400)
        yield from results
        meta_step_s = pair_step_s * CROWD / CORES
        steps = min(20, max(2, round(_LONGEST_BLOCK_S / meta_step_s)))
        yield _crowd(pair_step_s, repeats=8, steps=steps)


def _two_workers(names: Sequence[str], *, repeats: int, steps: int) -> tuple[list[Result], float]:
    """Return the results of these contenders and the seconds of a pair-step (NaN: not asked)."""
    exchange = new_exchange(CORES)
    context = get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        plan = _Plan(
            names=names,
            exchange=exchange,
            slots=torch.zeros(2, CORES, exchange.params.numel()).share_memory_(),
            start=context.Barrier(CORES),
            barrier=context.Barrier(CORES),
            store=Path(directory) / "gloo",
            repeats=repeats,
            steps=steps,
        )
        answers = run_together(_member, [(rank, plan) for rank in range(CORES)])
    assert_all_agree([params for _, params in answers], CORES, repeats * steps)
    check = (
        f"all processes hold the same parameters after {repeats * steps} steps, ours bit for bit "
        "and the others' up to rounding those of a serial Adam"
    )
    # [repeat, step], of the slower process: nobody is done before.
    seconds = {name: np.maximum(*(timed[name] for timed, _ in answers)) for name in names}
    results: list[Result] = []
    for peer in names:
        if peer in (BARRIER, GLOO):
            results += [_against(peer, seconds, percentile, check=check) for percentile in (50, 99)]
    if _PAIR_STEP not in names:
        return results, float("nan")
    shares = np.median(seconds[MGRL], axis=1) / np.median(seconds[_PAIR_STEP], axis=1)
    setting = "2 workers on 2 cores, all arrive together"
    milliseconds = {name: 1e3 * float(np.median(seconds[name])) for name in (MGRL, _PAIR_STEP)}
    results.append(_share(shares, setting, 0.03, milliseconds, check))
    return results, float(np.median(seconds[_PAIR_STEP]))


def _against(
    peer: str, seconds: dict[str, NDArray[np.float64]], percentile: int, *, check: str
) -> Result:
    per_repeat = {name: np.percentile(seconds[name], percentile, axis=1) for name in (peer, MGRL)}
    value, spread = median_and_quartiles((per_repeat[peer] / per_repeat[MGRL]).tolist())
    return Result(
        benchmark="exchange",
        setting="2 workers on 2 cores, 15,497 parameters",
        figure=f"times faster than {peer}, percentile {percentile}",
        value=value,
        spread=spread,
        direction="at least",
        target=3.0,
        milliseconds={name: 1e3 * float(np.median(each)) for name, each in per_repeat.items()},
        check=check,
    )


def _share(
    shares: NDArray[np.float64],
    setting: str,
    target: float,
    milliseconds: dict[str, float],
    check: str,
) -> Result:
    value, spread = median_and_quartiles(shares.tolist())
    return Result(
        benchmark="exchange",
        setting=setting,
        figure="share of step time",
        value=value,
        spread=spread,
        direction="at most",
        target=target,
        milliseconds=milliseconds,
        check=check,
    )


def _member(
    rank: int, plan: _Plan
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float32]]]:
    """Return one process's seconds of each contender, [repeat, step], and the final parameters."""
    params = plan.exchange.params.clone()  # before anyone's first step
    plan.start.wait()
    contenders: dict[str, Contender] = {}
    for name in plan.names:
        if name == MGRL:
            contenders[name] = Ours(plan.exchange, rank)
        elif name == BARRIER:
            contenders[name] = BarrierReduce(plan.barrier, plan.slots, rank, params)
        elif name == GLOO:
            contenders[name] = Gloo(plan.store, rank, CORES, params)
    gradients = gradients_of(rank)
    calls: dict[str, Callable[[int], object]] = {
        name: lambda step, each=each: each.step(gradients[step % GRADIENTS])
        for name, each in contenders.items()
    }
    if _PAIR_STEP in plan.names:
        meeting = Meeting(lambda *_: True, lambda: None)
        agent = DrivenAgent(population("cheetah", CORES), params, meeting, rank)
        agent.play()
        for _ in range(5):
            agent.pair_step()
        calls[_PAIR_STEP] = lambda _: agent.pair_step()
    counts = {
        name: plan.steps if name in contenders else max(1, plan.steps // 10) for name in calls
    }
    seconds = _timed_in_turns(calls, counts, plan.repeats, plan.start)
    return seconds, {name: each.params.numpy().copy() for name, each in contenders.items()}


def _timed_in_turns(
    calls: dict[str, Callable[[int], object]],
    counts: dict[str, int],
    repeats: int,
    start: Any,  # noqa: ANN401 - a barrier, which has no public type
) -> dict[str, NDArray[np.float64]]:
    """Return the seconds of every call, [repeat, step]; the same turns in all processes."""
    names = list(calls)
    seconds = {name: np.zeros((repeats, counts[name])) for name in names}
    for repeat in range(repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            call, times = calls[name], seconds[name][repeat]
            start.wait()
            for step in range(counts[name]):
                began_s = time.perf_counter()
                call(repeat * counts[name] + step)
                times[step] = time.perf_counter() - began_s
    return seconds


def _crowd(pair_step_s: float, *, repeats: int, steps: int) -> Result:
    """Return the exchange's share where ten workers compete for each core."""
    exchange = new_exchange(CROWD)
    start = get_context("spawn").Barrier(CROWD)
    loops = max(1, round(pair_step_s / _seconds_of_a_loop()))
    members = [(rank, exchange, start, loops, repeats, steps) for rank in range(CROWD)]
    answers = run_together(_crowd_member, members)
    assert_all_agree([{MGRL: exchange.params.numpy()}], CROWD, repeats * steps)
    assert exchange.status.version == repeats * steps, exchange.status
    # From the first to begin to the last to end.
    walls_s = {
        name: np.array(
            [
                max(spans[name][repeat][1] for spans in answers)
                - min(spans[name][repeat][0] for spans in answers)
                for repeat in range(repeats)
            ]
        )
        for name in (_WITH, _WITHOUT)
    }
    milliseconds = {
        f"{name} exchange, per meta-step of all": 1e3 * float(np.median(each)) / steps
        for name, each in walls_s.items()
    }
    shares = walls_s[_WITH] / walls_s[_WITHOUT] - 1.0
    setting = f"{CROWD} workers on {CORES} cores, added to work as long as a pair-step"
    check = f"parameters after {repeats * steps} steps are bit for bit those of a serial Adam"
    return _share(shares, setting, 0.10, milliseconds, check)


def _crowd_member(
    rank: int,
    exchange: Exchange,
    start: Any,  # noqa: ANN401 - a barrier, which has no public type
    loops: int,
    repeats: int,
    steps: int,
) -> dict[str, list[tuple[float, float]]]:
    """Return when one process began and ended each block of steps."""
    gradients = gradients_of(rank)
    before = round((1 - _AFTER) * loops)
    spans: dict[str, list[tuple[float, float]]] = {_WITH: [], _WITHOUT: []}
    for repeat in range(repeats):
        for name in (_WITH, _WITHOUT) if repeat % 2 else (_WITHOUT, _WITH):
            start.wait()
            began_s = time.perf_counter()  # one clock for all processes on Linux
            for step in range(steps):
                _work(before)
                if name == _WITH:
                    exchange.contribute(rank, gradients[(repeat * steps + step) % GRADIENTS])
                    exchange.arrive()
                _work(loops - before)
                if name == _WITH:
                    exchange.leave()
            spans[name].append((began_s, time.perf_counter()))
    return spans


def _work(loops: int) -> None:
    """Keep a core busy as a critic's layer does: a batch of 320 through 64 units."""
    rows, weights = torch.ones(320, 64), torch.full((64, 64), 1 / 64)
    for _ in range(loops):
        rows = rows @ weights


def _seconds_of_a_loop() -> float:
    loops = 200
    times: list[float] = []
    for _ in range(20):
        began_s = time.perf_counter()
        _work(loops)
        times.append((time.perf_counter() - began_s) / loops)
    return float(np.median(times))
