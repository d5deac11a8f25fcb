import hashlib

import numpy as np
import pytest
import zarr

from mgrl_cli.errors import UsageError
from mgrl_cli.replay.digest import ReplayDigest, ReplayPosition, blank_tail
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.replay.schema import FIELDS, MAX_NUMBERS


def sha256_of_plain_arrays(path):
    """The definition, over whole arrays as any Zarr reader sees them."""
    group = zarr.open_group(path, mode="r")
    whole = hashlib.sha256()
    for field in FIELDS.values():
        whole.update(hashlib.sha256(group[field.path][:].tobytes()).digest())
    return whole.hexdigest()


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "buffer.zarr" / "agent-000"
    return ReplayLog.create(path, obs_size=3, act_size=2, attributes={})


def test_the_position_is_the_digest_of_the_committed_arrays(log, tmp_path, make_episode):
    path = tmp_path / "buffer.zarr" / "agent-000"
    assert log.position == ReplayPosition(0, 0, sha256_of_plain_arrays(path))
    rows = 0
    for number, length in enumerate((3000, 1, 1095, 5000, 20)):  # 4096 after the third
        log.append(make_episode(length, number))
        log.commit()
        rows += length
        assert log.position == ReplayPosition(rows, number + 1, sha256_of_plain_arrays(path))


def test_an_append_moves_no_position(log, make_episode):
    log.append(make_episode(5))
    log.commit()
    before = log.position
    log.append(make_episode(7, 1))
    assert log.position == before
    log.commit()
    assert log.position != before


def test_commits_in_between_do_not_change_the_digest(tmp_path, make_episode):
    digests = set()
    for name, every in (("agent-000", 1), ("agent-001", 3), ("agent-002", 9)):
        log = ReplayLog.create(tmp_path / name, obs_size=3, act_size=2, attributes={})
        for number in range(9):
            log.append(make_episode(700, number))
            if number % every == every - 1:
                log.commit()
        digests.add(log.position.sha256)
    assert len(digests) == 1


def test_nothing_has_the_digest_of_fifteen_empty_arrays():
    empty = hashlib.sha256(15 * hashlib.sha256(b"").digest()).hexdigest()
    digest = ReplayDigest()
    assert digest.hexdigest() == empty
    digest.add("obs", np.empty((0, 3), np.float32))
    assert digest.hexdigest() == empty


def test_only_the_rows_count_not_their_parts_or_their_layout_in_memory():
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    whole, parts, other = ReplayDigest(), ReplayDigest(), ReplayDigest()
    whole.add("obs", rows)
    for row in rows:
        parts.hexdigest()  # looking in between changes nothing
        parts.add("obs", row[None])
    other.add("obs", np.asfortranarray(rows.astype(">f4")))
    assert whole.hexdigest() == parts.hexdigest() == other.hexdigest()
    assert hashlib.sha256(rows.tobytes()).digest() != hashlib.sha256(rows.T.tobytes()).digest()


def test_equal_rows_of_different_arrays_differ():
    rows = np.ones((2, 2), np.float32)
    digests = set()
    for name in ("action", "raw_action", "behaviour_mean"):
        digest = ReplayDigest()
        digest.add(name, rows)
        digests.add(digest.hexdigest())
    assert len(digests) == 3


def test_a_blank_tail_has_what_comes_after_the_last_full_chunk():
    blank = blank_tail(ReplayPosition(rows=9200, episodes=4096, sha256=""), 3, 2)
    assert {name: rows.shape for name, rows in blank.items()} == {
        **dict.fromkeys(("reward", "terminated", "truncated", "behaviour_kind"), (1008,)),
        **dict.fromkeys(("action", "raw_action", "behaviour_mean"), (1008, 2)),
        **dict.fromkeys(("start", "length", "return", "seed", "life"), (0,)),
        "obs": (1008, 3),
        "objective_version": (1008,),
        "final_obs": (0, 3),
    }
    assert {str(rows.dtype) for rows in blank.values()} == {
        "bool", "uint8", "int64", "float32", "float64",
    }  # fmt: skip


@pytest.mark.parametrize("sizes", [(0, 2), (3, -1), (3, MAX_NUMBERS + 1)])
def test_a_tail_of_impossible_rows_is_refused(sizes):
    with pytest.raises(UsageError, match="sizes from 1 to 65536"):
        blank_tail(ReplayPosition(rows=5, episodes=1, sha256=""), *sizes)
