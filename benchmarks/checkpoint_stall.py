"""How long checkpoints hold up a run, and how soon a resumed one plays and learns again.

    python benchmarks/checkpoint_stall.py [--envs pendulum,cartpole] [--agents 4] [--workers 4]
        [--rounds 3]

Meta-trains with the laptop preset and a checkpoint at every round's end, and looks on from outside.
Workers stand still until the coordinator has answered their reports, for which it notes what will
change ("order"), and then until the last of them has written its agents to disk ("save"). The
coordinator completes the checkpoint meanwhile and after ("commit"): nobody waits for it before the
next round's end. A round's end without a checkpoint has an order too, so the stall given here is
too high by that. Its share of wall time is for the default interval of 60 s.

Then the run is stopped and continued in this process, timed from the call on: to the workers' first
report, when all is read, proved and restored, to the first env step and to the first update.

Say with figures what else the machine was doing: the slowest worker decides.
"""

import argparse
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

from mgrl_cli.agents.off_policy import OffPolicyAgent
from mgrl_cli.errors import Interrupted
from mgrl_cli.presets import resolve_config
from mgrl_cli.run_dir.checkpoints import checkpoint_paths
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.runtime.generation import Generation
from mgrl_cli.runtime.kernel_cache import prepare_kernels
from mgrl_cli.runtime.launch import claim_run, meta_train
from mgrl_cli.runtime.resumption import resume
from mgrl_cli.telemetry import RunSnapshot

INTERVAL_S = 60.0
"""Between two checkpoints, by default."""


class Silence:
    """A progress that shows nothing."""

    def update(self, snapshot: RunSnapshot) -> None:
        """Do nothing."""

    def announce(self, event: str) -> None:
        """Do nothing."""


class Stopwatch:
    """Start and end of every call of some methods."""

    def __init__(self) -> None:
        self.calls: dict[str, list[tuple[float, float]]] = {}

    @contextmanager
    def watch(
        self, owner: type, name: str, after: Callable[[], None] = lambda: None
    ) -> Generator[None]:
        """Time `owner.name`; call `after` after each call."""
        method = getattr(owner, name)
        calls = self.calls.setdefault(name, [])

        def timed(*arguments: object, **options: object) -> object:
            start_s = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                calls.append((start_s, time.perf_counter()))
                after()

        with patch.object(owner, name, timed):
            yield


def stop() -> None:
    """Ask this process's run to stop, as Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


def measure_stall(arguments: argparse.Namespace, runs_dir: Path) -> RunDirectory:
    """Run, print what its checkpoints took, and return the unfinished run."""
    config = resolve_config(
        kind="meta-train",
        preset="laptop",
        assignments=("checkpoints.interval_s=0",),
        options={
            "envs": [{"id": env} for env in arguments.envs.split(",")],
            "agents": arguments.agents,
        },
    )
    prepare_kernels(config, print, workers=None)
    run = claim_run(config, runs_dir, "run")
    clock = Stopwatch()

    def stop_at_the_last() -> None:
        if len(clock.calls["commit"]) == arguments.rounds + 1:
            stop()

    with (
        suppress(Interrupted),
        clock.watch(Generation, "order"),
        clock.watch(Generation, "commit", stop_at_the_last),
    ):
        meta_train(config, run, Silence(), workers=arguments.workers)
    print(f"{'checkpoint':>10} {'order':>8} {'save':>8} {'commit':>8}  (seconds)")
    stalls_s: list[float] = []
    for number, (commit_start_s, commit_end_s) in enumerate(clock.calls["commit"]):
        order_start_s, order_end_s = clock.calls["order"][number]
        stalls_s.append(commit_start_s - order_start_s)
        print(
            f"{number:>10} {order_end_s - order_start_s:>8.3f} "
            f"{commit_start_s - order_end_s:>8.3f} {commit_end_s - commit_start_s:>8.3f}"
        )
    typical_s = statistics.median(stalls_s[1:])
    print(
        f"workers stand still for {typical_s:.3f} s (median, without the first): "
        f"{typical_s / INTERVAL_S:.2%} of {INTERVAL_S:.0f} s"
    )
    return run


def measure_resume(run: RunDirectory) -> None:
    """Continue the run until it learns, and print how long that took."""
    clock = Stopwatch()
    start_s = time.perf_counter()
    with (
        suppress(Interrupted),
        clock.watch(Generation, "order"),
        clock.watch(OffPolicyAgent, "play"),
        clock.watch(OffPolicyAgent, "learn", stop),
    ):
        resume(run, Silence(), workers=0, say=print)
    for what, name in (
        ("all agents restored", "order"),
        ("first env step", "play"),
        ("first update, after a round of play", "learn"),
    ):
        print(f"{clock.calls[name][0][0] - start_s:8.3f} s to {what}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", default="pendulum,cartpole")
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--workers", type=int, default=4, help="0: all agents in this process")
    parser.add_argument("--rounds", type=int, default=3, help="of 1000 env steps per agent")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} before the start, {arguments}")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as runs_dir:  # not /tmp: often no disk
        run = measure_stall(arguments, Path(runs_dir))
        sizes = [path.stat().st_size for path in checkpoint_paths(run)[-1].iterdir()]
        print(f"a checkpoint has {sum(sizes) / 2**20:.1f} MiB")
        measure_resume(run)


if __name__ == "__main__":
    main()
