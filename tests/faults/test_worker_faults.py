"""Workers that die, hang or die again and again: the run notices, goes back and goes on."""

import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import tomli_w

from mgrl_cli.config import RunConfig
from mgrl_cli.run_dir.checkpoints import checkpoint_paths, load_checkpoint
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.runtime.launch import claim_run, meta_train
from tests.commands.tiny_runs import Outcome, json_lines
from tests.faults.processes import STEPS, allowed_s, litter, workers_of
from tests.faults.tally import IS_CAMPAIGN, trial, trials
from tests.runtime.conftest import TINY, Remembering, fingerprint, run_tiny, tiny_config

HANG_TIMEOUT_S = 2.0
SETTINGS = ("checkpoints.interval_s=0", "supervision.max_restarts=1000")
IMPATIENT = (*SETTINGS, f"supervision.hang_timeout_s={HANG_TIMEOUT_S}")
NOTICED_WITHIN_S = 2.0
LATEST_S = 6.0 if IS_CAMPAIGN else 1.0
"""Strikes come within this time after the victims are there."""


class Assault(threading.Thread):
    """Strikes workers of this process, one after the other, waiting until each is noticed."""

    def __init__(
        self,
        progress: Remembering,
        choose: "Choice",
        number: signal.Signals,
        *,
        strikes: int,
        noticed_within_s: float,
    ) -> None:
        super().__init__()
        self.progress = progress
        self.is_over = threading.Event()
        self.landed = 0
        """Strikes that were noticed; one that comes as the run ends need not be."""
        self.late: list[str] = []
        self._choose = choose
        self._number = number
        self._strikes = strikes
        self._noticed_within_s = noticed_within_s

    def run(self) -> None:
        known: set[int] = set()
        while self.landed < self._strikes and not self.is_over.is_set():
            workers = workers_of(os.getpid())
            if len(workers) < 2 or known & {each.pid for each in workers}:
                time.sleep(0.005)
                continue
            known = {each.pid for each in workers}
            victim = self._choose(self, workers)
            if not self.is_over.is_set():
                self._strike(victim)

    def _strike(self, victim: psutil.Process) -> None:
        events = len(self.progress.events)
        struck_s = time.monotonic()
        with suppress(psutil.NoSuchProcess):
            victim.send_signal(self._number)
        while len(self.progress.events) == events:
            if time.monotonic() - struck_s > self._noticed_within_s:
                if not self.is_over.is_set():
                    self.late.append(f"{victim} got {self._number.name}: not noticed")
                return
            time.sleep(0.005)
        self.landed += 1

    def wait_for_a_round(self) -> None:
        """Wait for the end of a round, so that everyone is at work."""
        rounds = self.rounds
        while self.rounds == rounds and not self.is_over.is_set():
            time.sleep(0.005)

    @property
    def rounds(self) -> int:
        return self.progress.snapshots[-1].round_index if self.progress.snapshots else 0


Choice = Callable[[Assault, list[psutil.Process]], psutil.Process]
"""Waits, then says whom to strike."""


def anyone_at_work(rng: random.Random) -> Choice:
    def choose(assault: Assault, workers: list[psutil.Process]) -> psutil.Process:
        assault.wait_for_a_round()
        assault.is_over.wait(rng.uniform(0.0, LATEST_S / 3))
        return rng.choice(workers)

    return choose


def anyone_starting_or_at_work(rng: random.Random) -> Choice:
    at_work = anyone_at_work(rng)

    def choose(assault: Assault, workers: list[psutil.Process]) -> psutil.Process:
        if assault.landed % 2:
            return at_work(assault, workers)
        assault.is_over.wait(rng.uniform(0.0, LATEST_S))
        return rng.choice(workers)

    return choose


def the_one_in_the_barrier(assault: Assault, workers: list[psutil.Process]) -> psutil.Process:
    """Choose the first while it waits for the second, which has slow environments."""
    assault.wait_for_a_round()
    idle = 0
    while idle < 10 and not assault.is_over.is_set():
        idle = idle + 1 if workers[0].status() == psutil.STATUS_SLEEPING else 0
        time.sleep(0.005)
    return workers[0]


@contextmanager
def under(assault: Assault) -> Iterator[None]:
    """Strike workers while something runs, and check that each strike was noticed in time."""
    assault.start()
    try:
        yield
    finally:
        assault.is_over.set()
        assault.join()
    assert not assault.late


def live_through(
    config: RunConfig,
    runs_dir: Path,
    choose: Choice,
    number: signal.Signals,
    *,
    strikes: int,
    noticed_within_s: float,
) -> None:
    """Let runs live through so many strikes in all, each run exactly."""
    whole = fingerprint(run_tiny(config, runs_dir, "whole", workers=0))
    runs = 0
    while strikes > 0:
        runs += 1
        run, progress = claim_run(config, runs_dir, f"run-{runs}"), Remembering()
        assault = Assault(
            progress, choose, number, strikes=min(strikes, 5), noticed_within_s=noticed_within_s
        )
        with under(assault):
            meta_train(config, run, progress, workers=2)
        strikes -= assault.landed
        assert fingerprint(run) == whole
        assert litter(run) == []
        assert len(progress.events) >= assault.landed
        if progress.events:
            assert events_of(run) == progress.events


def events_of(run: RunDirectory) -> list[str]:
    return [json.loads(line)["event"] for line in run.events.read_text().splitlines()]


@pytest.mark.parametrize("seed", range(trials(campaign=12)))
def test_killed_workers_are_noticed_and_change_nothing(tmp_path: Path, seed: int) -> None:
    strikes = trials(campaign=10, suite=2)
    with trial("17 worker killed at any time", strikes):
        live_through(
            tiny_config(steps=STEPS, assignments=SETTINGS),
            tmp_path,
            anyone_starting_or_at_work(random.Random(seed)),
            signal.SIGKILL,
            strikes=strikes,
            noticed_within_s=allowed_s(NOTICED_WITHIN_S),
        )


@pytest.mark.skipif(not IS_CAMPAIGN, reason="the suite stops one in the barrier, the hardest case")
def test_workers_stopped_at_work_are_noticed_and_change_nothing(tmp_path: Path) -> None:
    with trial("18 worker stopped at work", 6):
        live_through(
            tiny_config(steps=STEPS, assignments=IMPATIENT),
            tmp_path,
            anyone_at_work(random.Random(0)),
            signal.SIGSTOP,
            strikes=6,
            noticed_within_s=HANG_TIMEOUT_S + allowed_s(NOTICED_WITHIN_S),
        )


def test_workers_stopped_in_the_barrier_are_noticed_and_change_nothing(
    tmp_path: Path, faulty: str
) -> None:
    slow = {"id": faulty, "kwargs": {"fault": "sleep", "sleep_s": 0.01, "spare_main": True}}
    config = with_envs(tiny_config(assignments=IMPATIENT), {"id": "pendulum"}, slow)
    play_s = 0.01 * (60 + 20)  # of a round and an evaluation; nobody is awaited meanwhile
    strikes = trials(campaign=6)
    with trial("18 worker stopped in the barrier", strikes):
        live_through(
            config,
            tmp_path,
            the_one_in_the_barrier,
            signal.SIGSTOP,
            strikes=strikes,
            noticed_within_s=HANG_TIMEOUT_S + allowed_s(NOTICED_WITHIN_S + play_s),
        )


def with_envs(config: RunConfig, *envs: dict[str, object]) -> RunConfig:
    return config.model_validate(config.model_dump() | {"envs": [*envs], "agents": len(envs)})


def doomed(
    tmp_path: Path, envs: list[dict[str, object]], *more: str, max_restarts: int
) -> list[str]:
    """The command line of a run with these environments."""
    file = tmp_path / "envs.toml"
    file.write_bytes(tomli_w.dumps({"envs": envs}).encode())
    words = ["meta-train", "--preset", "smoke", "--steps", "180", "--config", str(file)]
    words += ["--runs-dir", str(tmp_path), "--run", "run", "--workers", str(len(envs))]
    words += ["--max-restarts", str(max_restarts), *more]
    for setting in (*TINY, "checkpoints.interval_s=0"):
        words += ["--set", setting]
    return words


@pytest.mark.parametrize("seed", range(trials(campaign=10)))
def test_an_agent_that_kills_its_worker_again_and_again_is_left_out(
    tmp_path: Path, faulty: str, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    bad = seed % 2
    good = 1 - bad
    envs: list[dict[str, object]] = [{"id": "pendulum"}, {"id": "pendulum"}]
    envs[bad] = {"id": faulty, "kwargs": {"fault": "exit_reset"}}
    run = RunDirectory(tmp_path / "run")
    words = doomed(tmp_path, envs, "--json", max_restarts=3 if IS_CAMPAIGN else 1)
    with trial("19 worker dies again and again"):
        outcome = Outcome(capsys, words)
        assert outcome.exit_code == 0
        rounds = [line for line in json_lines(outcome.out) if "round_index" in line]
        assert [line["round_index"] for line in rounds] == [1, 2, 3]
        states = [agent["state"] for agent in rounds[-1]["agents"]]  # type: ignore[index]
        assert states[bad] == "quarantined"
        assert states[good] == "finished"
        (farewell,) = (event for event in events_of(run) if "is left out" in event)
        assert f"agent-00{bad}" in farewell
        assert "exited with 9" in farewell
        quarantined = load_checkpoint(checkpoint_paths(run)[-1]).manifest.quarantined
        assert list(quarantined) == [f"agent-00{bad}"]
        assert [row["round"] for row in metrics_of(run, good)] == [1, 2, 3]
        assert metrics_of(run, bad) == []
        assert Outcome(capsys, ["verify", str(run.path)]).exit_code == 0

        # Nothing stops it in this process, where it would play well if it were let.
        before = fingerprint(run)
        shutil.rmtree(checkpoint_paths(run)[-1])
        outcome = Outcome(capsys, ["resume", str(run.path), "--workers", "0"])
        assert outcome.exit_code == 0
        assert f"without agent-00{bad}" in outcome.err
        assert fingerprint(run) == before


def metrics_of(run: RunDirectory, agent_id: int) -> list[dict[str, object]]:
    path = run.agent_metrics(agent_id)
    return json_lines(path.read_text()) if path.is_file() else []


def test_if_the_only_agent_kills_its_worker_the_run_ends_and_says_why(
    tmp_path: Path, faulty: str, capsys: pytest.CaptureFixture[str]
) -> None:
    envs: list[dict[str, object]] = [{"id": faulty, "kwargs": {"fault": "exit_reset"}}]
    with trial("19 worker of the only agent dies"):
        outcome = Outcome(capsys, doomed(tmp_path, envs, "--quiet", max_restarts=0))
        assert outcome.exit_code == 5
        assert "agent-000" in outcome.refusal
        assert "exited with 9" in outcome.refusal
