import numpy as np
import pytest
from scipy import stats

from mgrl_cli.errors import UsageError
from mgrl_cli.replay.ring import ReplayRing
from mgrl_cli.replay.sampling import StartTable, check_request

LENGTHS = [8, 1, 5, 3, 4, 12]
STEPS = 4
BATCH = 20_000


def expected_probabilities(sample_by):
    """Probability of each (episode, step) as a window start, by loops."""
    inside = [
        [step for step in range(length) if step + STEPS <= length] or [0] for length in LENGTHS
    ]
    weights = {}
    for number, length in enumerate(LENGTHS):
        for step in range(length):
            fits = step in inside[number]
            weights[number, step] = {
                "start": 1.0,
                "inside": float(fits),
                "episode": fits / len(inside[number]),
            }[sample_by]
    total = sum(weights.values())
    return {key: weight / total for key, weight in weights.items()}


@pytest.fixture
def wrapped_ring(make_episode):
    """Holds exactly LENGTHS, physically wrapped inside the third episode."""
    ring = ReplayRing(sum(LENGTHS), 3, 2)
    ring.append(make_episode(sum(LENGTHS) - 11, 99))
    for number, length in enumerate(LENGTHS):
        ring.append(make_episode(length, number))
    assert (ring.num_steps, ring.num_episodes) == (sum(LENGTHS), len(LENGTHS))
    return ring


@pytest.mark.parametrize("sample_by", ["start", "inside", "episode"])
def test_starts_have_the_documented_distribution(wrapped_ring, sample_by):
    windows = wrapped_ring.sample_windows(np.random.default_rng(5), BATCH, STEPS, sample_by)
    starts = windows.obs[:, 0, :2].astype(int).tolist()
    probabilities = expected_probabilities(sample_by)
    counts = dict.fromkeys(probabilities, 0)
    for number, step in starts:
        counts[number, step] += 1
    possible = [key for key, probability in probabilities.items() if probability > 0]
    assert all(counts[key] == 0 for key in set(counts) - set(possible))
    result = stats.chisquare(
        [counts[key] for key in possible], [BATCH * probabilities[key] for key in possible]
    )
    assert result.pvalue > 0.01


def test_transitions_are_uniform_over_stored_steps(wrapped_ring):
    transitions = wrapped_ring.sample_transitions(np.random.default_rng(6), BATCH)
    steps = (1000 * transitions.obs[:, 0] + transitions.obs[:, 1]).astype(int)
    _, counts = np.unique(steps, return_counts=True)
    assert len(counts) == sum(LENGTHS)
    assert stats.chisquare(counts).pvalue > 0.01


def test_episodes_as_short_as_a_window_have_one_start():
    table = StartTable(np.array([4, 2, 6]), 4)
    drawn = table.draw_inside(np.random.default_rng(0), 500)
    assert set(drawn.tolist()) == {0, 4, 6, 7, 8}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ((0, 1, "start"), "at least 1"),
        ((1, 0, "start"), "at least 1"),
        ((1, 1, "insider"), "Did you mean 'inside'"),
    ],
)
def test_impossible_requests_are_refused(request_, message):
    with pytest.raises(UsageError, match=message):
        check_request(*request_)
