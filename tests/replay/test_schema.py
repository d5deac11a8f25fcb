import numpy as np
import pytest

from mgrl_cli.errors import UsageError
from mgrl_cli.replay.schema import FIELDS, Episode, check_episode


def test_a_sound_episode_is_accepted(make_episode):
    check_episode(make_episode(5), 3, 2)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "obs",
            np.zeros((5, 3), np.float32),
            r"'obs' is float32\[5, 3\], expected .*6, 3",
        ),
        ("action", np.zeros((5, 2), np.float64), "'action' is float64"),
        ("reward", np.zeros((5, 1), np.float32), "'reward' is"),
        ("behaviour_kind", np.full(5, 2, np.uint8), "BehaviourKind"),
        ("action", np.full((5, 2), 1.01, np.float32), r"leaves \[-1, 1\]"),
        ("obs", np.full((6, 3), np.nan, np.float32), "'obs' holds NaN"),
        ("reward", np.full(5, -np.inf, np.float32), "'reward' holds NaN or infinity"),
        ("terminated", np.array([0, 1, 0, 0, 1], np.bool_), "before its last step"),
        ("truncated", np.array([1, 0, 0, 0, 0], np.bool_), "before its last step"),
        ("seed", -1, "seed and life"),
        ("life", 2**63, "seed and life"),
    ],
)
def test_an_unsound_episode_is_refused(make_episode, field, value, message):
    with pytest.raises(UsageError, match=message):
        check_episode(make_episode(5)._replace(**{field: value}), 3, 2)


def test_an_episode_without_steps_is_refused(make_episode):
    with pytest.raises(UsageError, match="at least one step"):
        check_episode(make_episode(0), 3, 2)


def test_every_per_step_field_of_an_episode_has_an_array():
    per_episode = {"start", "length", "return", "seed", "life", "final_obs"}
    assert set(FIELDS) == set(Episode._fields) | per_episode


def test_a_chunk_of_three_float32_is_their_bytes_and_a_checksum():
    assert FIELDS["obs"].chunk_bytes((3,)) == 4096 * 3 * 4 + 4
    assert FIELDS["final_obs"].chunk_path(5) == "episodes/final_obs/c/5/0"
    assert FIELDS["reward"].chunk_path(5) == "reward/c/5"
