"""Saved, taken through files, restored: the same agent to the bit, for as long as it lives on."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from mgrl_cli.agents.counters import Counters
from mgrl_cli.agents.health import Health
from mgrl_cli.agents.off_policy import OffPolicyAgent
from mgrl_cli.agents.population import agent_specs, objective_shape
from mgrl_cli.agents.round_statistics import RoundStatistics
from mgrl_cli.agents.saved_agent import AgentRecord, SavedAgent, restore_agent, save_agent
from mgrl_cli.agents.streams import Streams
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.config import EnvConfig, RunConfig, SupervisionConfig
from mgrl_cli.errors import FileError
from mgrl_cli.presets import resolve_config
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.replay.schema import Episode
from mgrl_cli.run_dir.tensor_file import read_tensor_file, tensor_file_bytes
from mgrl_cli.telemetry import AgentState

ROUND = 10
WHOLE_ROUND = ROUND + 1
"""Pauses of a `Life` in a round: one after each update and one at the end."""
SHORT = {"max_episode_steps": 8}
HEAVIER = {"mass_kg": (0.5, 2.0), "length_m": (0.7, 1.3)}
ENVS = {
    "pendulum": EnvConfig(id="pendulum", kwargs=SHORT),
    "cartpole": EnvConfig(id="cartpole", kwargs={"max_episode_steps": 20}),
    "random pendulum": EnvConfig(id="pendulum", kwargs=SHORT, randomise=HEAVIER),
    "lunar": EnvConfig(id="lunar", kwargs=SHORT),
    "cheetah": EnvConfig(id="cheetah", kwargs=SHORT),
    "random hopper": EnvConfig(id="hopper", kwargs=SHORT, randomise={"mass": (0.7, 1.3)}),
}


def config_of(env: str, *assignments: str, **options: object) -> RunConfig:
    """Settings under which a lot happens in few steps: lives end, the ring overflows."""
    return resolve_config(
        kind=str(options.pop("kind", "meta-train")),
        preset="smoke",
        assignments=(
            *("policy.hidden=8", "critic.hidden=8", "windows.batch=4", "windows.steps=5"),
            *("exploration.random_steps=6", "schedule.updates_start=10"),
            *(f"schedule.round_steps={ROUND}", "meta.anneal_steps=60", "replay.capacity=30"),
            *("evaluation.interval=14", "evaluation.episodes=2", *assignments),
        ),
        options={"envs": [ENVS[env].model_dump()], "steps": 10**6, **options},
    )


class Life:
    """An agent in the worker's loop, with an objective that its meta-gradients move."""

    def __init__(self, config: RunConfig, params: Tensor | None = None) -> None:
        network = ObjectiveNetwork(objective_shape(config), compiled=config.compiled)
        self.params = network.initialise(np.random.default_rng(0)) if params is None else params
        self.agent = OffPolicyAgent(agent_specs(config)[0], config, network, self.params)
        self.kind = config.kind
        self.trace: list[object] = []

    def moments(self) -> Iterator[None]:
        """Live on, with a pause after every update and every round."""
        agent = self.agent
        counters = agent.counters
        while True:
            first = counters.rounds * ROUND
            if not counters.has_played:
                agent.begin_round()
                agent.play(first + ROUND, counters.rounds)
                counters.has_played = True
            for j in range(first + counters.round_updates, first + ROUND):
                if agent.is_learning:
                    self.learn(j)
                counters.round_updates = j + 1 - first
                yield
            agent.evaluate_if_due()
            agent.end_round()
            self.trace.append(fingerprint(agent))
            yield

    def learn(self, j: int) -> None:
        self.agent.learn(j)
        if self.kind == "meta-train" and j % 2 == 0:
            gradient = self.agent.meta_gradient(j // 2)
            self.agent.count_meta_gradient(bool(torch.isfinite(gradient).all()))
            self.params -= 0.1 * gradient
            self.trace.append(gradient.numpy().tobytes())

    def live(self, pauses: int) -> "Life":
        """Live on until the so many-th pause."""
        for _ in itertools.islice(self.moments(), pauses):
            pass
        return self


def fingerprint(agent: OffPolicyAgent) -> dict[str, object]:
    """Everything about an agent, without the episodes it played before it was restored."""
    tensors = {name: tensor.numpy().tobytes() for name, tensor in agent.learner.tensors().items()}
    return {
        **tensors,
        "counters": asdict(agent.counters),
        "health": asdict(agent.health),
        "streams": agent.streams.state(),
        "metrics": repr(agent.metrics_row()),
        "state": agent.state,
        "replay": (agent.replay.num_steps, agent.replay.num_episodes),
    }


def kept(life: Life, folder: Path) -> tuple[SavedAgent, ReplayReader]:
    """Save an agent and take everything through files; its episodes become those of the log."""
    agent = life.agent
    log = ReplayLog.create(
        folder / "agent-000",
        obs_size=agent.player.obs_size,
        act_size=agent.player.act_size,
        attributes={},
    )
    for episode in agent.new_episodes:
        log.append(episode)
    log.commit()
    saved = save_agent(agent)
    path = folder / "agent-000.safetensors"
    path.write_bytes(tensor_file_bytes(saved.tensors, saved.record.to_document()))
    document, tensors = read_tensor_file(path, what="agent", max_bytes=2**24)
    record = AgentRecord.from_document(json.loads(json.dumps(document, allow_nan=False)))
    return SavedAgent(tensors, record), ReplayReader(folder / "agent-000")


def assert_lives_on_exactly(config: RunConfig, folder: Path) -> None:
    """Save in the middle of a round's updates and at its end; live on from both."""
    original = Life(config).live(3 * WHOLE_ROUND + 5)
    resumed: list[Life] = []
    for moment, pauses in (("middle", WHOLE_ROUND - 5), ("end", 2 * WHOLE_ROUND)):
        saved, log = kept(original, folder / moment)
        restored = Life(config, original.params.clone())
        restore_agent(restored.agent, saved, log)
        resumed.append(restored)
        assert restored.agent.counters.has_played is (moment == "middle")
        for life in resumed:
            assert fingerprint(life.agent) == fingerprint(original.agent)
        before = len(original.trace), len(original.agent.new_episodes)
        for life in (original, *resumed):
            life.live(pauses)
        for life in resumed:
            traced, played = original.trace[before[0] :], original.agent.new_episodes[before[1] :]
            assert life.trace[-len(traced) :] == traced
            assert flat(life.agent.new_episodes[-len(played) :]) == flat(played)
            assert torch.equal(life.params, original.params)
            assert fingerprint(life.agent) == fingerprint(original.agent)
        assert len(original.trace) > before[0]
    assert len(original.agent.new_episodes) > before[1]
    assert original.agent.counters.evaluations >= 3
    assert original.agent.counters.episodes > original.agent.replay.num_episodes
    for life in (original, *resumed):
        life.agent.close()


def flat(episodes: Sequence[Episode]) -> list[list[bytes]]:
    return [[np.asarray(field).tobytes() for field in episode] for episode in episodes]


LIVES = {
    "policy": ("meta.lifetime=20", "meta.reset=policy"),
    "agent": ("meta.lifetime=30", "meta.reset=agent"),
}
WINDOWS, TRANSITIONS = "critic.batch=windows", "critic.batch=transitions"


@pytest.mark.parametrize(
    ("env", "reset", "batch", "sample_by"),
    [
        ("pendulum", "policy", WINDOWS, "start"),
        ("cartpole", "agent", TRANSITIONS, "inside"),
        ("random pendulum", "agent", WINDOWS, "episode"),
        ("lunar", "policy", TRANSITIONS, "start"),
        ("random hopper", "policy", WINDOWS, "episode"),
        pytest.param("cheetah", "agent", TRANSITIONS, "start", marks=pytest.mark.slow),
        pytest.param("cartpole", "policy", WINDOWS, "start", marks=pytest.mark.slow),
    ],
)
def test_a_restored_agent_lives_on_exactly(
    tmp_path: Path, env: str, reset: str, batch: str, sample_by: str
) -> None:
    config = config_of(env, *LIVES[reset], batch, f"windows.sample_by={sample_by}")
    assert_lives_on_exactly(config, tmp_path)


@pytest.mark.parametrize(
    ("rule", "batch"), [("ddpg", TRANSITIONS), ("reinforce", WINDOWS), ("learned", WINDOWS)]
)
def test_every_rule_of_a_meta_test_is_continued(tmp_path: Path, rule: str, batch: str) -> None:
    config = config_of("cartpole", batch, kind="meta-test", rules=[rule])
    assert_lives_on_exactly(config, tmp_path)


@pytest.fixture(scope="module")
def life() -> Iterator[Life]:
    """One that has learned; not to be changed."""
    made = Life(config_of("pendulum", WINDOWS)).live(2 * WHOLE_ROUND + 5)
    yield made
    made.agent.close()


def restored(record: AgentRecord, life: Life, folder: Path) -> OffPolicyAgent:
    saved, log = kept(life, folder)
    fresh = Life(config_of("pendulum", WINDOWS)).agent
    fresh.close()
    restore_agent(fresh, saved._replace(record=record), log)
    return fresh


def test_what_was_saved_stays_as_it_was(tmp_path: Path) -> None:
    life = Life(config_of("pendulum", WINDOWS)).live(2 * WHOLE_ROUND + 5)
    saved = save_agent(life.agent)
    before = tensor_file_bytes(saved.tensors, saved.record.to_document())
    life.live(WHOLE_ROUND)
    life.agent.health.count_episode("stuck", SupervisionConfig())
    life.agent.close()
    assert tensor_file_bytes(saved.tensors, saved.record.to_document()) == before
    now = save_agent(life.agent)
    assert tensor_file_bytes(now.tensors, now.record.to_document()) != before


def test_a_restored_agent_shares_nothing_with_what_was_saved(life: Life, tmp_path: Path) -> None:
    saved, log = kept(life, tmp_path)
    fresh = Life(config_of("pendulum", WINDOWS))
    restore_agent(fresh.agent, saved, log)
    before = tensor_file_bytes(saved.tensors, saved.record.to_document())
    fresh.live(WHOLE_ROUND)
    fresh.agent.health.count_episode("stuck", SupervisionConfig())
    fresh.agent.close()
    assert tensor_file_bytes(saved.tensors, saved.record.to_document()) == before


def test_failures_in_a_row_and_quarantine_are_remembered(life: Life, tmp_path: Path) -> None:
    health = Health(failed_episodes=3, skipped_critic_updates=2, quarantine="it was stuck")
    record = save_agent(life.agent).record.model_copy(update={"health": health})
    agent = restored(AgentRecord.from_document(record.to_document()), life, tmp_path)
    assert agent.health == health
    assert agent.state == AgentState.QUARANTINED
    agent.health.failed_episodes = 0
    assert health.failed_episodes == 3


def record_with(statistics: RoundStatistics, **counters: Any) -> AgentRecord:
    return AgentRecord(
        agent_id=0,
        counters=Counters(**counters),
        statistics=statistics.record(),
        streams=Streams(0, 0).state(),
        replay_episodes=0,
        health=Health(),
    )


def through_text(record: AgentRecord) -> AgentRecord:
    return AgentRecord.from_document(json.loads(json.dumps(record.to_document(), allow_nan=False)))


def test_statistics_that_are_not_finite_survive() -> None:
    """A sum becomes infinite on the way to a divergence, and that is when one looks back."""
    statistics = RoundStatistics()
    for value in (np.inf, 1.0):
        statistics.add("critic_loss", value)
    statistics.add("policy_loss", -np.inf)
    statistics.add("gain", np.nan)
    statistics.count("skipped_updates")
    again = RoundStatistics(through_text(record_with(statistics)).statistics)
    assert repr(again.summary()) == repr(statistics.summary())
    for each in (statistics, again):
        each.add("critic_loss", 3.0)
        each.count("skipped_updates")
    assert repr(again.summary()) == repr(statistics.summary())
    assert again.summary()["critic_loss"] == np.inf


@settings(max_examples=100, deadline=None)
@given(
    sums=st.lists(st.floats(), min_size=1, max_size=4),
    returns=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=32),
    evaluation=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    count=st.integers(0, 2**63 - 1),
)
def test_a_record_is_the_same_after_json(
    sums: list[float], returns: list[float], evaluation: float | None, count: int
) -> None:
    statistics = RoundStatistics()
    for value in sums:
        statistics.add("gain", value)
    record = record_with(
        statistics, returns=returns, last_evaluation=evaluation, env_steps=count, has_played=True
    )
    assert repr(through_text(record)) == repr(record)


def test_the_largest_rewards_make_finite_returns(make_agent, scripted) -> None:
    """JSON has no infinity. A return needs none: rewards fit into float32, sums into float64."""
    env = EnvConfig(id="Scripted-v0", kwargs={"reward": float(np.finfo(np.float32).max)})
    agent = make_agent(env, "evaluation.interval=10", "evaluation.episodes=5")
    agent.begin_round()
    agent.play(50, 0)
    agent.evaluate_if_due()
    assert agent.counters.last_evaluation == pytest.approx(10 * 3.4028235e38)
    assert np.isfinite(agent.counters.returns).all()
    record = save_agent(agent).record
    assert through_text(record) == record


def test_a_record_of_another_agent_is_refused(life: Life, tmp_path: Path) -> None:
    record = save_agent(life.agent).record.model_copy(update={"agent_id": 1})
    with pytest.raises(ValueError, match="got agent 1, expected 0"):
        restored(record, life, tmp_path)


def changed_streams(life: Life, name: str, state: object) -> AgentRecord:
    streams = {**life.agent.streams.state(), name: state}
    return save_agent(life.agent).record.model_copy(update={"streams": streams})


def test_a_record_without_a_stream_or_with_one_too_many_is_refused(
    life: Life, tmp_path: Path
) -> None:
    record = changed_streams(life, "weather", {})
    with pytest.raises(ValueError, match="weather"):
        restored(record, life, tmp_path / "more")
    del record.streams["weather"], record.streams["replay"]
    with pytest.raises(ValueError, match="got random streams"):
        restored(record, life, tmp_path / "less")


GOOD = Streams(0, 0).state()["replay"]


@pytest.mark.parametrize(
    "state",
    [
        {},
        {**GOOD, "bit_generator": "MT19937"},
        {**GOOD, "state": None},
        {**GOOD, "state": {"state": "1", "inc": 1}},
        {**GOOD, "state": {"state": -1, "inc": 1}},
        {**GOOD, "state": {"state": 2**200, "inc": 1}},
        {**GOOD, "state": {"state": 1.5, "inc": 1}},
        {**GOOD, "uinteger": 2**40},
        {**GOOD, "has_uint32": "yes"},
        {**GOOD, "surprise": 1},
    ],
    ids=str,
)
def test_a_damaged_stream_is_refused_by_name(
    life: Life, tmp_path: Path, state: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match="random stream 'replay' is damaged"):
        restored(changed_streams(life, "replay", state), life, tmp_path)


def test_a_log_that_lacks_episodes_of_the_ring_is_refused(life: Life, tmp_path: Path) -> None:
    played = len(life.agent.new_episodes)
    record = save_agent(life.agent).record.model_copy(update={"replay_episodes": played + 1})
    with pytest.raises(FileError, match=f"holds {played} episodes, {played + 1}"):
        restored(record, life, tmp_path)


MISSING = object()


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("agent_id", -1),
        ("agent_id", "0"),
        ("agent_id", MISSING),
        ("replay_episodes", -1),
        ("replay_episodes", 1.0),
        ("surprise", 1),
        ("counters", None),
        ("counters.surprise", 1),
        ("counters.env_steps", "5"),
        ("counters.env_steps", 5.5),
        ("counters.env_steps", True),
        ("counters.env_steps", -1),
        ("counters.evaluations", -(10**18)),
        ("counters.has_played", 1),
        ("counters.last_evaluation", "high"),
        ("counters.returns", [1.0, None]),
        ("statistics", MISSING),
        ("statistics.surprise", {}),
        ("statistics.sums.surprise", 1.0),
        ("statistics.sums.gain", None),
        ("statistics.counts", MISSING),
        ("streams", []),
        ("streams.replay", None),
        ("health", MISSING),
        ("health.surprise", ""),
        ("health.failed_episodes", -1),
        ("health.quarantine", None),
    ],
)
def test_a_record_of_another_form_is_refused_in_one_line(
    life: Life, where: str, value: object
) -> None:
    document = save_agent(life.agent).record.to_document()
    *path, last = where.split(".")
    inner: dict[str, Any] = document
    for name in path:
        inner = inner[name]
    if value is MISSING:
        del inner[last]
    else:
        inner[last] = value
    with pytest.raises(ValueError, match=f"^'{re.escape(where)}") as caught:
        AgentRecord.from_document(document)
    assert not isinstance(caught.value, ValidationError)
    assert "\n" not in str(caught.value)


def test_a_record_is_refused_where_it_is_nothing_at_all() -> None:
    empty: Mapping[str, object] = {}
    with pytest.raises(ValueError, match="'agent_id'"):
        AgentRecord.from_document(empty)
