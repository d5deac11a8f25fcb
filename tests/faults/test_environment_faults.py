"""Environments that raise, return what is not finite or break their contract, in whole runs."""

import json
import re

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from mgrl_cli.algorithm.networks import CriticNetwork
from mgrl_cli.config import RunConfig
from mgrl_cli.errors import Interrupted, WorkerError
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.replay.reader import ReplayReader, agent_groups
from mgrl_cli.run_dir.checkpoints import checkpoint_paths, load_checkpoint
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.tensor_file import read_tensor_file
from mgrl_cli.runtime.launch import claim_run, meta_train
from mgrl_cli.runtime.resumption import resume
from mgrl_cli.telemetry import AgentState
from tests.commands.tiny_runs import Outcome, tiny
from tests.envs import conftest as environments
from tests.envs.test_preflight import BROKEN, RAISING
from tests.faults.tally import IS_CAMPAIGN, trial, trials
from tests.runtime.conftest import Remembering, fingerprint, run_tiny, tiny_config
from tests.runtime.stopping import StopAfterRound

registered = environments.registered

EPISODE = 20
"""Steps of a whole episode of the fixture's environment."""
HEALTHY: dict[str, object] = {"id": "pendulum"}
NO_UPDATES = "schedule.updates_start=1000"
"""For runs in which only play matters."""
EVERY_CHECKPOINT = ("checkpoints.interval_s=0", "checkpoints.keep=10000")


def population(*envs: dict[str, object], **options: object) -> RunConfig:
    """A tiny run with one agent per environment."""
    config = tiny_config(agents=2, **options)
    return config.model_validate({**config.model_dump(), "envs": list(envs), "agents": len(envs)})


def rows_of(run: RunDirectory, agent_id: int) -> list[dict[str, float]]:
    """What the metrics say of one agent."""
    return [json.loads(line) for line in run.agent_metrics(agent_id).read_text().splitlines()]


def failed_episodes(run: RunDirectory, agent_id: int) -> int:
    return int(sum(row["failed_episodes"] for row in rows_of(run, agent_id)))


def replay_of(run: RunDirectory, agent_id: int) -> ReplayReader:
    reader = ReplayReader(run.agent_buffer(agent_id))
    assert reader.verify() == []
    return reader


def assert_whole_episodes_only(run: RunDirectory, agent_id: int) -> None:
    """Nothing of a failed episode is in the replay, and no count includes one."""
    reader = replay_of(run, agent_id)
    lengths = [
        len(reader.read_episode(number).reward) for number in range(reader.committed_episodes)
    ]
    assert lengths == [EPISODE] * reader.committed_episodes
    last = rows_of(run, agent_id)[-1]
    assert last["env_steps"] == reader.committed_rows
    assert last["episodes"] == reader.committed_episodes


# ---- row 22: step, reset or constructor raise


class Worn(environments.Recorder):
    """Breaks in its second episode, and then cannot be made for a while."""

    made = 0

    def __init__(self):
        super().__init__(length=EPISODE)
        type(self).made += 1
        if type(self).made in (3, 4):
            raise OSError("the port is taken")
        self.life_steps = 0

    def step(self, action):
        self.life_steps += 1
        if self.life_steps > EPISODE:
            raise RuntimeError("worn out")
        return super().step(action)


def test_episodes_that_fail_are_dropped_and_counted_and_the_run_completes(
    faulty, registered, tmp_path
):
    """Rounds of 3 whole training episodes and 5 evaluation episodes, 3 rounds."""
    marker = tmp_path / "fired"
    passing = [
        {"fault": "raise_step", "at": 30},
        {"fault": "raise_step", "rate": 0.02},
        {"fault": "raise_reset", "at": 3},
        {"fault": "raise_reset", "rate": 0.3},
        {"fault": "raise_step", "at": 200},
        {"fault": "raise_step", "marker": str(marker), "times": 1},
    ]
    broken = [{"id": faulty, "kwargs": kwargs} for kwargs in passing]
    config = population(
        HEALTHY,
        *broken,
        {"id": registered(Worn)},
        assignments=("evaluation.episodes=5", NO_UPDATES),
    )
    with trial("22 environment raises now and then", len(broken) + 1):
        run = run_tiny(config, tmp_path, "run", workers=0)
        failed = [failed_episodes(run, agent_id) for agent_id in range(config.agents)]
        assert failed[0] == 0
        # A fresh instance fails at its 30th step: whole, failed, whole, ... In training, 8 failures
        # between 9 whole ones; in evaluation, 7 of 15.
        assert failed[1] == 8 + 7
        assert failed[2] >= 1
        # Two whole ones per failure: 4 between the 9, and 5 of 15.
        assert failed[3] == 4 + 5
        assert failed[4] >= 1
        # Training makes 180 steps, evaluation gets to 200 in its tenth episode.
        assert failed[5] == 1
        assert failed[6] == marker.stat().st_size == 1
        # The other instance for evaluation plays one whole episode and fails; the next one too ...
        assert failed[7] == 8 + 7 + 2
        for agent_id in range(1, config.agents):
            assert_whole_episodes_only(run, agent_id)
            rows = rows_of(run, agent_id)
            assert [row["env_steps"] for row in rows] == [60, 120, 180]
        assert load_checkpoint(checkpoint_paths(run)[-1]).manifest.quarantined == {}


def test_environments_that_always_fail_put_their_agents_out_and_the_others_go_on(faulty, tmp_path):
    broken = [{"id": faulty, "kwargs": {"fault": fault}} for fault in ("raise_step", "raise_reset")]
    config = population(HEALTHY, *broken, assignments=("supervision.max_failed_episodes=4",))
    with trial("22 environment always raises: quarantine", len(broken)):
        run, progress = claim_run(config, tmp_path, "run"), Remembering()
        meta_train(config, run, progress, workers=0)
        told = [event for event in progress.events if "left the population" in event]
        for agent_id, event in zip((1, 2), told, strict=True):
            assert event.startswith(f"agent-{agent_id:03d} left")
            assert "4 episodes in a row failed" in event
            assert [row["failed_episodes"] for row in rows_of(run, agent_id)] == [4]
            assert replay_of(run, agent_id).committed_rows == 0
            assert progress.snapshots[-1].agents[agent_id].state is AgentState.QUARANTINED
        lines = run.events.read_text().splitlines()
        assert [json.loads(line)["event"] for line in lines] == told
        manifest = load_checkpoint(checkpoint_paths(run)[-1]).manifest
        assert set(manifest.quarantined) == {"agent-001", "agent-002"}
        assert manifest.rounds == len(rows_of(run, 0)) == config.num_rounds
        assert LearnedObjective.load(run.objective).metadata.meta_steps == 90


@pytest.mark.parametrize("fault", ["raise_step", "raise_reset"])
def test_a_run_whose_only_agent_is_out_ends_with_exit_code_5(faulty, tmp_path, fault):
    config = population({"id": faulty, "kwargs": {"fault": fault}})
    with trial("22 environment of the only agent always raises"):
        run = claim_run(config, tmp_path, "run")
        with pytest.raises(WorkerError, match="no agent is left") as caught:
            meta_train(config, run, Remembering(), workers=0)
        assert caught.value.exit_code == 5
        assert "agent-000: 20 episodes in a row failed" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_constructor_that_fails_ends_with_exit_code_5_before_there_is_a_run(
    faulty, tmp_path, capsys
):
    with trial("22 constructor raises before the run"):
        runs_dir = tmp_path / "runs"
        envs = f"envs=[{{id='pendulum'}},{{id='{faulty}',kwargs={{fault='raise_constructor'}}}}]"
        outcome = Outcome(capsys, tiny("meta-train", "--set", envs, runs_dir=runs_dir))
        assert outcome.exit_code == 5
        assert "RuntimeError: no motor found" in outcome.refusal
        assert not runs_dir.exists()


@pytest.mark.skipif(not IS_CAMPAIGN, reason="takes processes; the campaign tries it")
def test_failures_are_the_same_in_worker_processes(faulty, tmp_path):
    with trial("22 environment raises now and then, in processes"):
        broken = {"id": faulty, "kwargs": {"fault": "raise_step", "rate": 0.02}}
        config = population(HEALTHY, broken, assignments=(NO_UPDATES,))
        serial = run_tiny(config, tmp_path, "serial", workers=0)
        parallel = run_tiny(config, tmp_path, "parallel", workers=2)
        assert failed_episodes(parallel, 1) >= 1
        assert fingerprint(parallel) == fingerprint(serial)


def test_a_run_that_lost_an_agent_is_continued_exactly(faulty, tmp_path):
    with trial("22 quarantine, then a stop and a resume"):
        broken = {"id": faulty, "kwargs": {"fault": "raise_step"}}
        config = population(HEALTHY, broken, steps=120, assignments=EVERY_CHECKPOINT)
        whole = run_tiny(config, tmp_path, "whole", workers=0)
        run = claim_run(config, tmp_path, "run")
        with pytest.raises(Interrupted):
            meta_train(config, run, StopAfterRound(1), workers=0)
        progress = Remembering()
        resume(run, progress, workers=0, say=lambda _: None)
        assert fingerprint(run) == fingerprint(whole)
        assert progress.snapshots[-1].agents[1].state is AgentState.QUARANTINED


# ---- row 23: what is not finite

NOT_FINITE = ("nan_reward", "inf_reward", "nan_obs", "inf_obs")


@pytest.mark.parametrize("rate", [pytest.param(0.001, marks=pytest.mark.slow), 0.01, 1.0])
def test_nothing_that_is_not_finite_reaches_replay_networks_or_objective(faulty, tmp_path, rate):
    steps = trials(campaign=720, suite=120)  # of 5 agents, at 3 rates
    markers = {fault: tmp_path / fault for fault in NOT_FINITE}
    with trial(f"23 not finite at {rate:.1%} of the steps, env steps", 5 * steps):
        broken = [
            {
                "id": faulty,
                "kwargs": {
                    "fault": fault,
                    "rate": rate if rate < 1.0 else 0.0,
                    "marker": str(markers[fault]),
                    "times": 10**6,
                },
            }
            for fault in NOT_FINITE
        ]
        config = population(HEALTHY, *broken, steps=steps, assignments=EVERY_CHECKPOINT)
        run, progress = claim_run(config, tmp_path, "run"), Remembering()
        meta_train(config, run, progress, workers=0)
        assert_everything_is_finite(run, config.num_rounds)
        fired = [path.stat().st_size if path.exists() else 0 for path in markers.values()]
        assert [failed_episodes(run, agent_id) for agent_id in range(5)] == [0, *fired]
        assert sum(fired) >= {0.001: 0, 0.01: 4, 1.0: 80}[rate]
        left = [event for event in progress.events if "left the population" in event]
        assert len(left) == (4 if rate == 1.0 else 0)


def assert_everything_is_finite(run: RunDirectory, rounds: int) -> None:
    """Replay, every checkpoint (one per round) and every objective kept."""
    for group in agent_groups(run.buffer):
        reader = ReplayReader(group)
        assert reader.verify() == []
        for name in ("obs", "action", "raw_action", "behaviour_mean", "reward"):
            assert np.isfinite(reader.read(name, 0, reader.committed_rows)).all()
    paths = checkpoint_paths(run)
    assert len(paths) == rounds + 1
    for path in paths:
        load_checkpoint(path)
        for file in path.glob("*.safetensors"):
            _, tensors = read_tensor_file(file, what="part of a checkpoint", max_bytes=2**30)
            assert all(torch.isfinite(tensor).all() for tensor in tensors.values()), file
    for file in (run.objective, *run.objectives.iterdir()):
        assert torch.isfinite(LearnedObjective.load(file).params).all()


# ---- row 26: broken contracts

REFUSED = {
    **{
        what: (*BROKEN[what], 2)
        for what in ("step of four", "step shape", "object", "NaN at reset", "outside at reset")
    },
    "raising step": (*RAISING["step"], 5),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_broken_environment_is_refused_before_there_is_a_run(registered, tmp_path, capsys, what):
    broken, problem, exit_code = REFUSED[what]
    runs_dir = tmp_path / "runs"
    with trial("26 environment breaks the contract"):
        envs = f"pendulum,{registered(broken)}"
        outcome = Outcome(capsys, tiny("meta-train", "--envs", envs, runs_dir=runs_dir))
        assert outcome.exit_code == exit_code
        assert re.match(f"test/Broken-v0: {problem}", outcome.refusal)
        assert not runs_dir.exists()


# ---- row 27: a time limit is no end of the task

LIMIT = 5


class Timed(gymnasium.Env):
    """Pays 1 for each of 5 steps; then the time runs out, or the task ends."""

    observation_space = Box(-1.0, 1.0, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, terminates: bool = False):
        self.terminates = terminates

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observed(), {}

    def step(self, action):
        self.steps += 1
        is_over = self.steps == LIMIT
        return self.observed(), 1.0, is_over and self.terminates, is_over, {}

    def observed(self):
        return self.np_random.uniform(-1.0, 1.0, 1).astype(np.float32)


@pytest.mark.parametrize(("terminates", "least", "most"), [(False, 8.0, 12.0), (True, 1.0, 4.5)])
def test_flags_are_stored_as_they_were_and_only_a_termination_ends_the_value(
    registered, tmp_path, terminates, least, most
):
    """At a discount of 0.9, 1 for ever is worth 10; 5 times 1, as seen within, 2.6 on average."""
    fast = ("critic.learning_rate=0.03", "critic.polyak=1", "critic.discount=0.9")
    config = population(
        {"id": registered(Timed), "kwargs": {"terminates": terminates}},
        steps=240,
        assignments=(*fast, "schedule.updates_start=0"),
    )
    with trial("27 truncation is not termination"):
        run = run_tiny(config, tmp_path, "run", workers=0)
        reader = replay_of(run, 0)
        rows = reader.committed_rows
        at_end = np.arange(1, rows + 1) % LIMIT == 0
        assert (reader.read("terminated", 0, rows) == (at_end & terminates)).all()
        assert (reader.read("truncated", 0, rows) == at_end).all()
        file = checkpoint_paths(run)[-1] / "agent-000.safetensors"
        _, tensors = read_tensor_file(file, what="agent", max_bytes=2**20)
        points = torch.linspace(-1, 1, 9).unsqueeze(1)
        q = CriticNetwork(1, 1, 8).first(tensors["critic.params"], points, torch.zeros(9, 1))
        assert least < q.mean().item() < most
