from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgrl_cli.algorithm.batches import Windows
from mgrl_cli.errors import UsageError
from mgrl_cli.replay.ring import ReplayRing


def slow_window(episode, start, steps, *, timeout_is_terminal=False):
    """One window by a loop over time, as lists."""
    length = len(episode.reward)
    window = {name: [] for name in Windows._fields if name != "behaviour"}
    window["obs"].append(episode.obs[start])
    for step in range(start, start + steps):
        is_valid = step < length
        ends = is_valid and bool(
            episode.terminated[step] or (timeout_is_terminal and episode.truncated[step])
        )
        window["obs"].append(episode.obs[min(step + 1, length)])
        window["action"].append(episode.action[step] if is_valid else np.zeros(2, np.float32))
        window["reward"].append(episode.reward[step] if is_valid else np.float32(0))
        window["terminated"].append(ends)
        window["is_valid"].append(is_valid)
    return {name: np.array(values) for name, values in window.items()}


def assert_windows_match(windows, episodes, steps, **options):
    """Every window equals the slow one of the episode and step it claims to start at."""
    for row in range(len(windows.obs)):
        number, start = windows.obs[row, 0, :2].astype(int).tolist()
        expected = slow_window(episodes[number], start, steps, **options)
        for name, values in expected.items():
            np.testing.assert_array_equal(getattr(windows, name)[row], values, name)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 25), min_size=1, max_size=40),
    capacity=st.integers(25, 60),
    steps=st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
    compiled=st.booleans(),
)
def test_the_ring_behaves_as_a_queue_of_episodes(
    make_episode, lengths, capacity, steps, seed, compiled
):
    ring, model = ReplayRing(capacity, 3, 2, compiled=compiled), deque()
    rng = np.random.default_rng(seed)
    for number, length in enumerate(lengths):
        episode = make_episode(length, number, is_truncated=number % 3 == 0)
        ring.append(episode)
        while sum(len(kept.reward) for kept in model) + length > capacity:
            model.popleft()
        model.append(episode)
        assert ring.num_steps == sum(len(kept.reward) for kept in model)
        assert ring.num_episodes == len(model)
    by_number = {int(kept.obs[0, 0]): kept for kept in model}
    for sample_by in ("start", "inside", "episode"):
        assert_windows_match(ring.sample_windows(rng, 16, steps, sample_by), by_number, steps)
    transitions = ring.sample_transitions(rng, 16)
    for row, (number, step) in enumerate(transitions.obs[:, :2].astype(int).tolist()):
        kept = by_number[number]
        np.testing.assert_array_equal(transitions.next_obs[row], kept.obs[step + 1])
        np.testing.assert_array_equal(transitions.action[row], kept.action[step])
        assert transitions.reward[row] == kept.reward[step]
        assert transitions.terminated[row] == kept.terminated[step]
    assert transitions.is_valid.all()


def test_episodes_of_one_step_fill_the_whole_capacity_after_many_wraps(make_episode):
    ring = ReplayRing(7, 3, 2)
    for number in range(50):
        ring.append(make_episode(1, number))
    assert (ring.num_steps, ring.num_episodes) == (7, 7)
    transitions = ring.sample_transitions(np.random.default_rng(0), 300)
    assert set(transitions.obs[:, 0].tolist()) == set(map(float, range(43, 50)))
    assert np.array_equal(transitions.next_obs[:, 0], transitions.obs[:, 0])
    assert (transitions.next_obs[:, 1] == 1).all()


def test_an_episode_of_eight_steps_is_padded_at_the_end(make_episode):
    ring = ReplayRing(100, 3, 2)
    ring.append(make_episode(8))
    windows = ring.sample_windows(np.random.default_rng(0), 5, 20, "inside")
    assert windows.obs.shape == (5, 21, 3)
    assert windows.obs[0, :, 1].tolist() == [*range(8), *[8] * 13]
    assert windows.is_valid.tolist() == [[True] * 8 + [False] * 12] * 5
    assert np.flatnonzero(windows.terminated[0]).tolist() == [7]
    assert windows.reward[0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, *[0] * 12]
    assert (windows.action[:, 8:] == 0).all()


def test_the_last_step_may_start_a_window_of_one_valid_step(make_episode):
    ring = ReplayRing(100, 3, 2)
    ring.append(make_episode(8))
    windows = ring.sample_windows(np.random.default_rng(0), 200, 3, "start")
    assert set(windows.is_valid.sum(1).tolist()) == {1, 2, 3}
    at_end = windows.obs[:, 0, 1] == 7
    assert (windows.terminated[at_end] == [True, False, False]).all()


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_time_limit_is_terminal_only_on_request(make_episode, counts, compiled):
    ring = ReplayRing(100, 3, 2, compiled=compiled)
    episode = make_episode(6, is_truncated=True)
    ring.append(episode)
    rng = np.random.default_rng(0)
    windows = ring.sample_windows(rng, 50, 4, timeout_is_terminal=counts)
    assert_windows_match(windows, {0: episode}, 4, timeout_is_terminal=counts)
    assert bool(windows.terminated.any()) is counts
    transitions = ring.sample_transitions(rng, 50, timeout_is_terminal=counts)
    assert np.array_equal(transitions.terminated, (transitions.obs[:, 1] == 5) & counts)


def test_draws_depend_only_on_the_contents_and_the_generator(make_episode):
    fresh, used = ReplayRing(30, 3, 2), ReplayRing(30, 3, 2)
    for number in range(9):
        used.append(make_episode(7, 50 + number))
    for number, length in enumerate((11, 2, 9, 8)):
        fresh.append(make_episode(length, number))
        used.append(make_episode(length, number))
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    for sample_by in ("start", "inside", "episode"):
        for ours, theirs in zip(
            fresh.sample_windows(first, 32, 5, sample_by)[:-1],
            used.sample_windows(second, 32, 5, sample_by)[:-1],
            strict=True,
        ):
            assert np.array_equal(ours, theirs)
    assert first.bit_generator.state == second.bit_generator.state


def test_inside_starts_follow_new_episodes_and_window_lengths(make_episode):
    ring, rng = ReplayRing(100, 3, 2), np.random.default_rng(0)
    ring.append(make_episode(3, 0))
    ring.sample_windows(rng, 8, 3, "inside")
    ring.append(make_episode(3, 1))
    assert set(ring.sample_windows(rng, 64, 3, "inside").obs[:, 0, 0].tolist()) == {0, 1}
    assert set(ring.sample_windows(rng, 64, 2, "inside").obs[:, 0, 1].tolist()) == {0, 1}


def test_batches_share_no_memory_with_the_ring_or_each_other(make_episode):
    ring = ReplayRing(10, 3, 2)
    ring.append(make_episode(4, 1))
    for array in ring.sample_windows(np.random.default_rng(0), 8, 6)[:-1]:
        array[:] = 0
    for array in ring.sample_transitions(np.random.default_rng(0), 8):
        array[:] = 0
    windows = ring.sample_windows(np.random.default_rng(0), 8, 6)
    assert_windows_match(windows, {1: make_episode(4, 1)}, 6)


def test_batches_are_float32_and_bool(make_episode):
    ring = ReplayRing(10, 3, 2)
    ring.append(make_episode(4))
    rng = np.random.default_rng(0)
    for batch in (ring.sample_windows(rng, 2, 6), ring.sample_transitions(rng, 2)):
        for name, array in batch._asdict().items():
            if name == "behaviour":
                assert array is None
                continue
            is_mask = name in ("terminated", "is_valid")
            assert array.dtype == (np.bool_ if is_mask else np.float32), name
            assert array.flags.c_contiguous, name


def test_too_long_an_episode_is_refused_and_evicts_nothing(make_episode):
    ring = ReplayRing(10, 3, 2)
    ring.append(make_episode(6))
    with pytest.raises(UsageError, match="11 steps does not fit a replay of 10"):
        ring.append(make_episode(11))
    assert ring.num_steps == 6
    ring.append(make_episode(10))
    assert (ring.num_steps, ring.num_episodes) == (10, 1)


def test_a_cleared_ring_is_empty_and_usable(make_episode):
    ring = ReplayRing(10, 3, 2)
    ring.append(make_episode(6, 1))
    ring.clear()
    assert (ring.num_steps, ring.num_episodes) == (0, 0)
    with pytest.raises(UsageError, match="empty"):
        ring.sample_windows(np.random.default_rng(0), 1, 1)
    with pytest.raises(UsageError, match="empty"):
        ring.sample_transitions(np.random.default_rng(0), 1)
    ring.append(make_episode(3, 2))
    assert (ring.sample_transitions(np.random.default_rng(0), 9).obs[:, 0] == 2).all()


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_a_ring_without_size_is_refused(sizes):
    with pytest.raises(UsageError, match="at least 1"):
        ReplayRing(*sizes)


# --- How actions came about ----------------------------------------------------------------------

NOISE = 0.3


@pytest.fixture
def wrapped(make_episode):
    """A ring with behaviour whose episodes 2, 3 and 4 are left, the last one across the wrap."""
    ring = ReplayRing(20, 3, 2, exploration_noise=NOISE)
    episodes = [make_episode(length, n) for n, length in enumerate((9, 8, 7, 1, 11))]
    for episode in episodes:
        ring.append(episode)
    assert ring.num_episodes == 3
    return ring, episodes


def test_behaviour_is_that_of_the_windows_steps(wrapped):
    ring, episodes = wrapped
    windows = ring.sample_windows(np.random.default_rng(1), 40, 5, with_behaviour=True)
    assert_windows_match(windows._replace(behaviour=None), episodes, 5)
    raw_action, log_density = windows.behaviour
    assert raw_action.dtype == log_density.dtype == np.float32
    # The episodes of these tests have raw_action = 2 action and mean = action / 2.
    assert np.array_equal(raw_action, 2 * windows.action)
    tensors = windows.tensors()
    gaussian = torch.distributions.Normal(tensors.action / 2, NOISE)
    expected = gaussian.log_prob(tensors.behaviour.raw_action).sum(-1).numpy()
    is_valid = windows.is_valid
    assert not is_valid.all()
    np.testing.assert_allclose(log_density[is_valid], expected[is_valid], rtol=1e-5, atol=1e-5)
    assert not log_density[~is_valid].any()
    assert not raw_action[~is_valid].any()


@pytest.mark.parametrize("sample_by", ["start", "inside", "episode"])
def test_asking_for_behaviour_changes_no_draw(wrapped, sample_by):
    ring, _ = wrapped
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    plain = ring.sample_windows(first, 32, 4, sample_by)
    with_behaviour = ring.sample_windows(second, 32, 4, sample_by, with_behaviour=True)
    assert plain.behaviour is None
    assert all(np.array_equal(*pair) for pair in zip(plain[:-1], with_behaviour[:-1], strict=True))
    assert first.bit_generator.state == second.bit_generator.state


def test_a_ring_may_keep_raw_actions_without_densities(make_episode):
    ring, bare = ReplayRing(20, 3, 2, keeps_raw_actions=True), ReplayRing(20, 3, 2)
    for each in (ring, bare):
        each.append(make_episode(5))
        with pytest.raises(UsageError, match="keeps no behaviour"):
            each.sample_windows(np.random.default_rng(0), 1, 1, with_behaviour=True)
    (stored,) = ring.read_all()
    assert (stored.raw_action == make_episode(5).raw_action).all()
    with pytest.raises(UsageError, match="keeps no raw actions"):
        bare.read_all()


@pytest.mark.parametrize("noise", [0.0, -0.1, float("nan")])
def test_without_noise_there_is_no_density(noise):
    with pytest.raises(UsageError, match="exploration_noise above 0"):
        ReplayRing(20, 3, 2, exploration_noise=noise)


def test_episodes_can_be_read_back_whole_and_in_order(wrapped):
    ring, episodes = wrapped
    stored = ring.read_all()
    assert len(stored) == 3
    for got, expected in zip(stored, episodes[2:], strict=True):
        for name in got._fields:
            np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), name)


def test_what_was_read_back_is_a_copy(wrapped):
    ring, _ = wrapped
    for array in ring.read_all()[0]:
        array[...] = 0
    assert ring.read_all()[0].reward.all()
    ring.clear()
    assert ring.read_all() == []
