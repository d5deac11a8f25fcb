import copy
import json
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

from mgrl_cli.errors import StorageError, UsageError
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.replay.reader import ReplayReader, agent_groups
from mgrl_cli.replay.schema import FIELDS, Episode


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "buffer.zarr" / "agent-000"


def create(path):
    return ReplayLog.create(
        path, obs_size=3, act_size=2, attributes={"environment": "Hopper-v5", "kwargs": {"a": 1}}
    )


def assert_same_episode(actual, expected):
    for name in Episode._fields:
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name), name)


def test_episodes_survive_several_commits_across_chunk_borders(path, make_episode):
    log = create(path)
    lengths = [3000, 1, 1095, 5000, 4096, 20, 1]  # 4096 rows exactly after the third
    episodes = [make_episode(length, number) for number, length in enumerate(lengths)]
    for number, episode in enumerate(episodes):
        log.append(episode)
        if number in (0, 2, 3, 6):
            log.commit()
            reader = ReplayReader(path)
            assert reader.committed_rows == sum(lengths[: number + 1])
            assert reader.committed_episodes == number + 1
            for index in range(number + 1):  # also what earlier commits wrote
                assert_same_episode(reader.read_episode(index), episodes[index])
            assert reader.verify() == []
    table = ReplayReader(path).episodes()
    assert table.length.tolist() == lengths
    assert table.start.tolist() == [0, 3000, 3001, 4096, 9096, 13192, 13212]
    assert table.episode_return[1] == 1001
    assert table.life.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert table.seed.tolist() == list(range(100, 107))


def test_many_short_episodes_cross_a_chunk_of_the_episode_arrays(path, make_episode):
    log = create(path)
    for number in range(4100):
        log.append(make_episode(1, number % 7))
        if number in (4000, 4095):
            log.commit()
    log.commit()
    reader = ReplayReader(path)
    assert reader.verify() == []
    assert reader.read("final_obs", 4094, 4098)[:, 0].tolist() == [6, 0, 1, 2]
    assert (path / "episodes" / "start" / "c" / "1").is_file()


def test_a_reader_sees_only_what_was_committed_when_it_was_made(path, make_episode):
    log = create(path)
    log.append(make_episode(10, 0))
    log.commit()
    log.append(make_episode(20, 1))
    old = ReplayReader(path)
    assert (old.committed_rows, old.committed_episodes) == (10, 1)
    log.commit()
    assert len(old.episodes().length) == 1
    assert old.verify() == []
    with pytest.raises(UsageError, match=r"expected rows within \[0, 10\)"):
        old.read("reward", 0, 11)
    with pytest.raises(UsageError, match="not all committed"):
        old.read_episode(1)
    assert ReplayReader(path).committed_rows == 30


def test_a_plain_zarr_reader_sees_exactly_the_committed_rows(path, make_episode):
    log = create(path)
    log.append(make_episode(5000, 2))
    log.commit()
    group = zarr.open_group(path.parent, mode="r")["agent-000"]
    np.testing.assert_array_equal(group["reward"][:], make_episode(5000, 2).reward)
    assert group["episodes/return"].shape == (1,)
    assert dict(group.attrs) == {
        "environment": "Hopper-v5",
        "kwargs": {"a": 1},
        "format": "mgrl-replay",
        "format_version": 1,
        "obs_size": 3,
        "act_size": 2,
        "committed_rows": 5000,
        "committed_episodes": 1,
    }


def test_chunks_of_nothing_but_zeros_are_written(path, make_episode):
    log = create(path)
    episode = make_episode(4096)
    log.append(episode._replace(terminated=np.zeros(4096, np.bool_)))
    log.commit()
    assert (path / "terminated" / "c" / "0").is_file()
    assert ReplayReader(path).verify() == []


def test_an_empty_log_is_whole(path):
    log = create(path)
    log.commit()
    reader = ReplayReader(path)
    assert (reader.committed_rows, reader.committed_episodes, reader.verify()) == (0, 0, [])
    assert reader.episodes().start.shape == (0,)
    assert reader.read("obs", 0, 0).shape == (0, 3)
    assert reader.attributes["environment"] == "Hopper-v5"


def test_the_log_keeps_its_own_copy_of_an_episode(path, make_episode):
    log = create(path)
    episode = make_episode(5, 1)
    log.append(episode)
    episode.obs[:] = 9
    episode.reward[:] = 9
    log.commit()
    assert_same_episode(ReplayReader(path).read_episode(0), make_episode(5, 1))


def test_an_unsound_episode_never_reaches_the_log(path, make_episode):
    log = create(path)
    with pytest.raises(UsageError, match="NaN"):
        log.append(make_episode(5)._replace(reward=np.full(5, np.nan, np.float32)))
    log.commit()
    assert ReplayReader(path).committed_rows == 0


def test_a_second_create_is_refused(path, make_episode):
    log = create(path)
    log.append(make_episode(3))
    log.commit()
    with pytest.raises(UsageError, match="exists"):
        create(path)
    assert ReplayReader(path).committed_rows == 3


@pytest.mark.parametrize("sizes", [(0, 2), (3, -1), (3, 2**16 + 1)])
def test_impossible_sizes_are_refused(path, sizes):
    with pytest.raises(UsageError, match="sizes from 1 to 65536"):
        ReplayLog.create(path, obs_size=sizes[0], act_size=sizes[1], attributes={})
    assert not path.parent.exists()


@pytest.mark.parametrize("attributes", [{"committed_rows": 5}, {"obs_size": 3}])
def test_attributes_of_the_format_cannot_be_given(path, attributes):
    with pytest.raises(UsageError, match=next(iter(attributes))):
        ReplayLog.create(path, obs_size=3, act_size=2, attributes=attributes)
    assert not path.exists()


def test_a_half_made_log_of_a_killed_process_is_swept(path):
    litter = path.parent / ".agent-000.partial"
    zarr.open_group(litter, mode="w", zarr_format=3)
    (litter / "stale").write_text("half")
    create(path)
    assert not litter.exists()
    assert not (path / "stale").exists()
    assert agent_groups(path.parent) == [path]


def test_agents_may_be_created_at_the_same_time(path):
    names = [f"agent-{number:03}" for number in (0, 1, 2, 10, 1000)]
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda name: create(path.with_name(name)), names))
    assert [group.name for group in agent_groups(path.parent)] == names


def test_a_commit_that_ran_out_of_space_leaves_what_was_committed_before(path, make_episode):
    log = create(path)
    log.append(make_episode(10, 0))
    log.commit()
    position, tail = log.position, copy.deepcopy(log.tail)
    log.append(make_episode(9000, 1))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        with pytest.raises(StorageError, match=r"agent-000: File too large \(errno 27\)"):
            log.commit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert log.position == position
    np.testing.assert_equal(log.tail, tail)
    reader = ReplayReader(path, position)
    assert reader.committed_rows == 10
    assert reader.verify() == []


def test_a_file_in_the_way_is_a_storage_error(path):
    path.parent.parent.mkdir(parents=True)
    path.parent.write_text("not a directory")
    with pytest.raises(StorageError, match=r"agent-000.*errno 20"):
        create(path)


def test_the_tail_is_what_was_committed_after_the_last_full_chunk(path, make_episode):
    log = create(path)
    assert {len(rows) for rows in log.tail.values()} == {0}
    for number, length in enumerate((3000, 1, 1095, 5000)):  # 4096 after the third
        log.append(make_episode(length, number))
        before = log.position
        assert len(log.tail["reward"]) == before.rows % 4096  # the episode is not committed yet
        log.commit()
        reader = ReplayReader(path)
        for name, field in FIELDS.items():
            count = log.position.count(field)
            rows = reader.read(name, count - count % 4096, count)
            np.testing.assert_array_equal(log.tail[name], rows, name)
            assert log.tail[name].dtype == rows.dtype
    assert len(log.tail["reward"]) == 9096 - 2 * 4096


def test_a_tail_stays_as_it_is_although_the_log_goes_on(path, make_episode):
    log = create(path)
    taken = []
    for number, length in enumerate((100, 300, 4000, 1, 5000)):
        taken.append((log.tail, copy.deepcopy(log.tail)))
        log.append(make_episode(length, number))
        taken.append((log.tail, copy.deepcopy(log.tail)))
        log.commit()
    for tail, as_it_was in taken:
        np.testing.assert_equal(tail, as_it_was)


def test_sync_touches_every_written_file_once(path, make_episode):
    log = create(path)
    log.append(make_episode(5000))
    log.commit()
    log.sync()
    shutil.rmtree(path)  # nothing is left to be synced, so nothing is looked for
    log.sync()


def test_a_crash_before_the_count_is_set_leaves_the_old_count_valid(path, make_episode):
    log = create(path)
    log.append(make_episode(100, 0))
    log.commit()
    before = (path / "zarr.json").read_text()
    log.append(make_episode(5000, 1))
    log.commit()
    (path / "zarr.json").write_text(before)  # all chunks written, the count not yet
    reader = ReplayReader(path)
    assert (reader.committed_rows, reader.verify()) == (100, [])
    assert_same_episode(reader.read_episode(0), make_episode(100, 0))
    assert json.loads(before)["attributes"]["committed_rows"] == 100
