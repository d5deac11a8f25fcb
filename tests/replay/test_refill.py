import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgrl_cli.errors import FileError
from mgrl_cli.replay.chunks import read_chunk
from mgrl_cli.replay.digest import ReplayPosition
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.replay.refill import refill
from mgrl_cli.replay.ring import ReplayRing
from mgrl_cli.replay.schema import EPISODE_FIELDS, STEP_FIELDS, BehaviourKind


def assert_same_draws(one, other):
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    for sample_by in ("start", "inside", "episode"):
        for steps in (1, 6):
            ours, theirs = (
                ring.sample_windows(rng, 32, steps, sample_by, with_behaviour=True)
                for ring, rng in ((one, first), (other, second))
            )
            pairs = zip(ours[:-1] + ours.behaviour, theirs[:-1] + theirs.behaviour, strict=True)
            assert all(np.array_equal(*pair) for pair in pairs)
    batches = (one.sample_transitions(first, 32), other.sample_transitions(second, 32))
    for ours, theirs in zip(*batches, strict=True):
        assert np.array_equal(ours, theirs)
    assert first.bit_generator.state == second.bit_generator.state


@pytest.fixture
def log(tmp_path):
    return ReplayLog.create(tmp_path / "agent-000", obs_size=3, act_size=2, attributes={})


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=30), capacity=st.integers(20, 70))
def test_a_refilled_ring_goes_on_as_the_one_that_was_lost(
    tmp_path_factory, make_episode, lengths, capacity
):
    path = tmp_path_factory.mktemp("refill") / "agent-000"
    log = ReplayLog.create(path, obs_size=3, act_size=2, attributes={})
    lost, found = (ReplayRing(capacity, 3, 2, exploration_noise=0.1) for _ in range(2))
    for number, length in enumerate(lengths):
        episode = make_episode(length, number, is_truncated=number % 3 == 0)
        log.append(episode)
        lost.append(episode)
    log.commit()
    refill(found, ReplayReader(path), lost.num_episodes)
    assert (found.num_steps, found.num_episodes) == (lost.num_steps, lost.num_episodes)
    assert_same_draws(lost, found)
    for number in range(5):
        for ring in (lost, found):
            ring.append(make_episode(15, 100 + number))
        assert_same_draws(lost, found)


def test_a_ring_that_was_cleared_in_between_gets_the_episodes_after_it(log, tmp_path, make_episode):
    lost, found = (ReplayRing(100, 3, 2, exploration_noise=0.1) for _ in range(2))
    for number in range(8):
        if number == 5:
            lost.clear()
        for each in (log, lost):
            each.append(make_episode(7, number))
    log.commit()
    refill(found, ReplayReader(tmp_path / "agent-000"), 3)
    assert_same_draws(lost, found)


def test_densities_come_back_whichever_way_each_step_was_drawn(log, tmp_path, make_episode):
    lost, found = (ReplayRing(100, 3, 2, exploration_noise=0.3) for _ in range(2))
    episode = make_episode(7)
    kinds = np.array([BehaviourKind.RANDOM, BehaviourKind.POLICY] * 4, np.uint8)[:7]
    episode = episode._replace(behaviour_kind=kinds)
    for each in (log, lost):
        each.append(episode)
    log.commit()
    refill(found, ReplayReader(tmp_path / "agent-000"), 1)
    density = found.sample_windows(
        np.random.default_rng(0), 1, 7, "inside", with_behaviour=True
    ).behaviour.log_density[0]
    is_random = kinds == BehaviourKind.RANDOM
    assert (density[is_random] == np.float32(-2 * np.log(2))).all()
    assert (density[~is_random] != density[0]).all()
    assert_same_draws(lost, found)


def test_a_position_ends_what_is_sampled(log, tmp_path, make_episode):
    for number in range(4):
        log.append(make_episode(5, number))
    log.commit()
    ring = ReplayRing(100, 3, 2)
    refill(ring, ReplayReader(tmp_path / "agent-000", ReplayPosition(15, 3, "")), 2)
    drawn = ring.sample_transitions(np.random.default_rng(0), 200).obs[:, 0]
    assert set(drawn.tolist()) == {1, 2}


@pytest.mark.parametrize("num_episodes", [-1, 3])
def test_more_episodes_than_committed_are_refused(log, tmp_path, make_episode, num_episodes):
    for number in range(2):
        log.append(make_episode(5, number))
    log.commit()
    ring = ReplayRing(100, 3, 2)
    with pytest.raises(FileError, match=f"holds 2 episodes, {num_episodes} are to be sampled"):
        refill(ring, ReplayReader(tmp_path / "agent-000"), num_episodes)
    assert ring.num_steps == 0


def test_no_episodes_leave_the_ring_empty(log, tmp_path):
    ring = ReplayRing(100, 3, 2)
    refill(ring, ReplayReader(tmp_path / "agent-000"), 0)
    assert ring.num_steps == 0


def test_a_damaged_chunk_is_named_and_not_sampled(log, tmp_path, make_episode):
    log.append(make_episode(5))
    log.commit()
    reward = np.memmap(tmp_path / "agent-000" / "reward" / "c" / "0", np.float32, "r+", shape=5)
    reward[2] = np.nan
    reward.flush()
    with pytest.raises(FileError, match="'reward' chunk 0 is damaged"):
        refill(ReplayRing(100, 3, 2), ReplayReader(tmp_path / "agent-000"), 1)


@pytest.mark.parametrize(
    ("ring", "message"), [((4, 3, 2), "5 steps does not fit"), ((100, 4, 2), "'obs' is float32")]
)
def test_a_log_that_does_not_fit_the_ring_is_refused(log, tmp_path, make_episode, ring, message):
    log.append(make_episode(5))
    log.commit()
    with pytest.raises(FileError, match=f"episode 0 cannot be used: .*{message}"):
        refill(ReplayRing(*ring), ReplayReader(tmp_path / "agent-000"), 1)


def test_many_episodes_come_back_by_chunks_not_one_by_one(log, tmp_path, make_episode, monkeypatch):
    episode = make_episode(20)
    for _ in range(600):
        log.append(episode)
    log.commit()
    ring, reader = ReplayRing(10_000, 3, 2), ReplayReader(tmp_path / "agent-000")
    opened = []

    def spy(group, field, array, chunk, stop):
        opened.append((field.name, chunk))
        return read_chunk(group, field, array, chunk, stop)

    monkeypatch.setattr("mgrl_cli.replay.reader.read_chunk", spy)
    refill(ring, reader, 500)  # rows 2,000 to 12,000: of chunks 0 to 2
    steps = [(field.name, chunk) for chunk in range(3) for field in STEP_FIELDS]
    assert sorted(opened) == sorted([*steps, *((field.name, 0) for field in EPISODE_FIELDS)])
    assert (ring.num_steps, ring.num_episodes) == (10_000, 500)
