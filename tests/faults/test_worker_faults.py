"""Workers that die, hang or die again and again: the run notices, goes back and goes on."""

import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
from tests.faults.processes import SOON_S, STEPS, litter, workers_of
from tests.faults.tally import IS_CAMPAIGN, trial, trials
from tests.runtime.conftest import TINY, Remembering, fingerprint, run_tiny, tiny_config

HANG_TIMEOUT_S = 6.0
SETTINGS = ("checkpoints.interval_s=0", "supervision.max_restarts=1000")
IMPATIENT = (*SETTINGS, f"supervision.hang_timeout_s={HANG_TIMEOUT_S}")
campaign_only = pytest.mark.skipif(not IS_CAMPAIGN, reason="the suite tries both in one run")
LATEST_S = 6.0 if IS_CAMPAIGN else 1.0
"""Strikes come within this time after the victims are there."""


class Assault(threading.Thread):
    """Strikes workers of this process, one after the other, waiting until each is noticed."""

    def __init__(self, progress: Remembering, strikes: "Sequence[Strike]") -> None:
        super().__init__()
        self.progress = progress
        self.is_over = threading.Event()
        self.landed = 0
        """Strikes that were noticed, the first so many; the last may come as the run ends."""
        self.late: list[str] = []
        self._strikes = strikes

    def run(self) -> None:
        known: set[int] = set()
        while self.landed < len(self._strikes) and not self.is_over.is_set():
            workers = workers_of(os.getpid())
            if len(workers) < 2 or known & {each.pid for each in workers}:
                time.sleep(0.05)  # looking through all processes takes a while itself
                continue
            known = {each.pid for each in workers}
            with suppress(psutil.NoSuchProcess):  # lost for another reason
                choose, number = self._strikes[self.landed]
                victim = choose(self, workers)
                if not self.is_over.is_set():
                    self._strike(victim, number)

    def _strike(self, victim: psutil.Process, number: signal.Signals) -> None:
        events = len(self.progress.events)
        # Far shorter than the hang timeout where that is not what notices.
        deadline_s = time.monotonic() + SOON_S
        victim.send_signal(number)
        while len(self.progress.events) == events:
            if time.monotonic() > deadline_s:
                if not self.is_over.is_set():
                    self.late.append(f"{victim} got {number.name}: not noticed")
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
Strike = tuple[Choice, signal.Signals]


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


def live_through(config: RunConfig, runs_dir: Path, strikes: list[Strike]) -> None:
    """Let runs live through these strikes, one after the other, each run exactly."""
    whole = fingerprint(run_tiny(config, runs_dir, "whole", workers=0))
    runs = 0
    while strikes:
        runs += 1
        run, progress = claim_run(config, runs_dir, f"run-{runs}"), Remembering()
        assault = Assault(progress, strikes[:5])
        with under(assault):
            meta_train(config, run, progress, workers=2)
        strikes = strikes[assault.landed :]
        assert fingerprint(run) == whole
        assert litter(run) == []
        assert len(progress.events) >= assault.landed
        if progress.events:
            assert events_of(run) == progress.events


def events_of(run: RunDirectory) -> list[str]:
    return [json.loads(line)["event"] for line in run.events.read_text().splitlines()]


@campaign_only
@pytest.mark.parametrize("seed", range(12))
def test_killed_workers_are_noticed_and_change_nothing(tmp_path: Path, seed: int) -> None:
    strike = anyone_starting_or_at_work(random.Random(seed)), signal.SIGKILL
    with trial("17 worker killed at any time", 10):
        live_through(tiny_config(steps=STEPS, assignments=SETTINGS), tmp_path, [strike] * 10)


@campaign_only
def test_workers_stopped_at_work_are_noticed_and_change_nothing(tmp_path: Path) -> None:
    strike = anyone_at_work(random.Random(0)), signal.SIGSTOP
    with trial("18 worker stopped at work", 6):
        live_through(tiny_config(steps=STEPS, assignments=IMPATIENT), tmp_path, [strike] * 6)


@campaign_only
def test_workers_stopped_in_the_barrier_are_noticed_and_change_nothing(
    tmp_path: Path, faulty: str
) -> None:
    strike = the_one_in_the_barrier, signal.SIGSTOP
    with trial("18 worker stopped in the barrier", 6):
        live_through(with_a_slow_one(faulty), tmp_path, [strike] * 6)


def test_workers_killed_or_stopped_are_noticed_and_change_nothing(
    tmp_path: Path, faulty: str
) -> None:
    """One after the other, in one run: killed at work, then stopped in the barrier."""
    killed = anyone_at_work(random.Random(0)), signal.SIGKILL
    stopped = the_one_in_the_barrier, signal.SIGSTOP
    with trial("17+18 worker killed at work, worker stopped in the barrier", 2):
        live_through(with_a_slow_one(faulty), tmp_path, [killed, stopped])


def with_a_slow_one(faulty: str) -> RunConfig:
    """The second agent keeps the first waiting."""
    slow = {"id": faulty, "kwargs": {"fault": "sleep", "sleep_s": 0.01, "spare_main": True}}
    return with_envs(tiny_config(steps=240, assignments=IMPATIENT), {"id": "pendulum"}, slow)


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
    words = doomed(tmp_path, envs, "--json", max_restarts=3 if IS_CAMPAIGN else 0)
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
