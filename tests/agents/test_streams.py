import json
from typing import get_args

import numpy as np
import pytest

from mgrl_cli.agents.streams import Purpose, Streams, draw_seed, random_stream

PURPOSES = get_args(Purpose)


def test_the_order_of_purposes_is_frozen():
    """It is part of what a seed means: new purposes go to the end."""
    assert PURPOSES[:7] == (
        "objective",
        "networks",
        "environment",
        "exploration",
        "replay",
        "target_noise",
        "evaluation",
    )


@pytest.mark.parametrize(("purpose", "position"), [("objective", 0), ("replay", 4)])
def test_a_stream_is_a_child_of_the_root_seed(purpose, position):
    expected = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(position, 3)))
    got = random_stream(7, purpose, 3)
    assert got.random(4).tolist() == expected.random(4).tolist()


def test_streams_of_different_purposes_agents_and_roots_differ():
    draws = {
        (root, purpose, index): random_stream(root, purpose, index).integers(2**63)
        for root in (0, 1)
        for purpose in PURPOSES
        for index in (0, 1, 19)
    }
    assert len(set(draws.values())) == len(draws)


def test_streams_are_uncorrelated():
    draws = np.stack(
        [random_stream(0, "replay", index).standard_normal(2000) for index in range(8)]
    )
    off_diagonal = np.corrcoef(draws) - np.eye(8)
    # Standard deviation 1/sqrt(2000) = 0.022 each.
    assert np.abs(off_diagonal).max() < 0.11


def test_what_one_purpose_draws_does_not_shift_another():
    untouched = random_stream(0, "replay").random(5)
    random_stream(0, "exploration").random(1000)
    assert random_stream(0, "replay").random(5).tolist() == untouched.tolist()


def test_the_index_is_zero_unless_given():
    assert random_stream(5, "networks").random() == random_stream(5, "networks", 0).random()


def test_episode_seeds_are_reproducible_plain_integers():
    seeds = [draw_seed(rng) for rng in [random_stream(0, "environment")] for _ in range(100)]
    again = random_stream(0, "environment")
    assert seeds == [draw_seed(again) for _ in range(100)]
    assert all(type(seed) is int and 0 <= seed < 2**31 for seed in seeds)
    assert len(set(seeds)) == 100


def test_an_agent_draws_for_each_purpose_from_the_stream_of_that_name():
    streams = Streams(7, 3)
    assert set(vars(streams)) == set(PURPOSES) - {"objective"}  # which belongs to the population
    for name, rng in vars(streams).items():
        assert rng.random(3).tolist() == random_stream(7, name, 3).random(3).tolist()


def test_streams_go_on_where_others_stood():
    first = Streams(0, 0)
    for count, rng in enumerate(vars(first).values()):
        rng.random(count)
    first.exploration.integers(2**31, dtype=np.uint32)  # leaves half of what it drew for later
    state = first.state()
    assert state["exploration"]["has_uint32"] == 1
    second = Streams(1, 5)
    second.set_state(json.loads(json.dumps(state)))
    assert second.state() == state
    for name, rng in vars(first).items():
        twin = getattr(second, name)
        assert rng.integers(2**31, dtype=np.uint32) == twin.integers(2**31, dtype=np.uint32)
        assert rng.standard_normal(5).tolist() == twin.standard_normal(5).tolist()


def test_a_state_is_a_copy():
    streams = Streams(0, 0)
    state = streams.state()
    before = json.dumps(state)
    streams.replay.random(100)
    assert json.dumps(state) == before
    assert json.dumps(streams.state()) != before


@pytest.mark.parametrize("names", [set(), {"replay"}, {*vars(Streams(0, 0)), "objective"}])
def test_a_state_has_exactly_the_streams_there_are(names):
    state = Streams(0, 0).state()["replay"]
    with pytest.raises(ValueError, match=r"expected .*'environment'"):
        Streams(0, 0).set_state(dict.fromkeys(names, state))
