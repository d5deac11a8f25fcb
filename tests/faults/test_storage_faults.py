"""Every operation of a small commit fails once in each way; what is on disk then must be whole."""

import errno
import itertools
import shutil

import numpy as np
import pytest

from mgrl_cli.errors import StorageError
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.run_dir.atomic import write_atomically
from tests.faults.io_faults import count_operations, crash_at, fail_at
from tests.faults.power_loss import power_loss
from tests.replay.conftest import ACT_SIZE, OBS_SIZE, build_episode

ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES)
OLD, NEW = b"old content", b"the new content"
EPISODES = [build_episode(30, 0), build_episode(4050, 1), build_episode(50, 2)]
"""The third crosses into a second chunk, so that a commit of it rewrites one chunk, adds one."""


def places(stride):
    """Marks a test with the operations to hit: every one if slow, else every `stride`-th."""
    return pytest.mark.parametrize(
        ("first", "stride"),
        [
            pytest.param(1, stride, id="some"),
            pytest.param(1, 1, id="all", marks=pytest.mark.slow),
        ],
    )


# ---- one file, written atomically


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run" / "state.json"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


def others(file):
    return [path for path in file.parent.iterdir() if path != file]


def test_a_crash_leaves_the_old_file_or_the_new(file):
    seen = []
    for n in itertools.count(1):
        file.write_bytes(OLD)
        with crash_at(file.parent, n) as crash:
            write_atomically(file, NEW)
        seen.append(file.read_bytes())
        if not crash.fired:
            break
    # create, write, fsync, rename, fsync of the directory: the fourth makes it visible.
    assert seen == [OLD, OLD, OLD, OLD, NEW, NEW]


@pytest.mark.parametrize("errno_value", ERRORS)
@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
def test_a_failure_leaves_the_old_file_or_the_new_and_says_so(file, errno_value, sticky):
    for n in range(1, 6):
        file.write_bytes(OLD)
        with (
            fail_at(file.parent, n, errno_value, sticky=sticky),
            pytest.raises(StorageError, match="cannot write"),
        ):
            write_atomically(file, NEW)
        assert file.read_bytes() == (NEW if n == 5 else OLD)
        if not sticky or errno_value == errno.ENOSPC:
            assert others(file) == []
        for path in others(file):
            path.unlink()


def test_a_written_file_survives_every_power_loss(file, tmp_path, rng):
    for number in range(20):
        with power_loss(file.parent) as journal:
            write_atomically(file, NEW)
        journal.cut(tmp_path / f"cut-{number}", rng if number else None)
        assert (tmp_path / f"cut-{number}" / file.name).read_bytes() == NEW


def test_a_power_loss_while_writing_leaves_the_old_file_or_the_new(file, tmp_path, rng):
    for n in range(1, 6):
        file.write_bytes(OLD)
        with power_loss(file.parent, stop_at=n) as journal:
            write_atomically(file, NEW)
        assert journal.fired
        for number in range(10):
            cut = tmp_path / f"cut-{n}-{number}"
            journal.cut(cut, rng if number else None)
            assert (cut / file.name).read_bytes() in ((OLD,) if n <= 4 else (OLD, NEW))


# ---- the replay on disk


def new_log(path, episodes):
    """A log with the first episodes committed."""
    log = ReplayLog.create(
        path / "buffer.zarr" / "agent-000", obs_size=OBS_SIZE, act_size=ACT_SIZE, attributes={}
    )
    for episode in EPISODES[:episodes]:
        log.append(episode)
    log.commit()
    return log


def reopen(path, moment):
    """The log as a checkpoint has it."""
    return ReplayLog.reopen(path / "buffer.zarr" / "agent-000", *moment, {})


def tree_of(path):
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


def assert_holds(path, episodes):
    """The replay shows the first episodes, whole, and nothing else."""
    reader = ReplayReader(path / "buffer.zarr" / "agent-000")
    assert reader.verify() == []
    assert reader.committed_episodes == episodes
    assert reader.committed_rows == sum(len(episode.reward) for episode in EPISODES[:episodes])
    for number in range(episodes):
        read = reader.read_episode(number)
        for name in read._fields:
            np.testing.assert_array_equal(getattr(read, name), getattr(EPISODES[number], name))


def test_a_commit_makes_its_rows_visible_last(tmp_path):
    log = new_log(tmp_path, 2)
    log.append(EPISODES[2])
    with count_operations(tmp_path) as operations:
        log.commit()
    renamed = [operation for operation in operations if operation.startswith("rename")]
    assert renamed[-1] == "rename buffer.zarr/agent-000/zarr.json"
    assert operations[-1] == renamed[-1]


@places(stride=17)
def test_a_crash_in_a_commit_leaves_the_old_rows_or_the_new(tmp_path, first, stride):
    for n in itertools.count(first, stride):
        path = tmp_path / str(n)
        log = new_log(path, 2)
        log.append(EPISODES[2])
        with crash_at(path, n) as crash:
            log.commit()
        assert_holds(path, 2 if crash.fired else 3)  # the last operation makes them visible
        if not crash.fired:
            break


@pytest.mark.parametrize(
    ("errno_value", "first", "stride"),
    [
        *((errno_value, 1 + 11 * number, 31) for number, errno_value in enumerate(ERRORS)),
        *(pytest.param(errno_value, 1, 1, marks=pytest.mark.slow) for errno_value in ERRORS),
    ],
)
def test_a_log_opened_again_after_a_failed_commit_has_all_rows(
    tmp_path, errno_value, first, stride
):
    for n in itertools.count(first, stride):
        path = tmp_path / str(n)
        log = new_log(path, 1)
        log.append(EPISODES[1])
        with fail_at(path, n, errno_value) as failure:
            try:
                log.commit()
            except StorageError:
                assert failure.fired
                assert_holds(path, 1)
            else:
                assert not failure.fired
        log = reopen(path, (log.position, log.tail))
        for episode in EPISODES[1 if failure.fired else 2 :]:
            log.append(episode)
        log.commit()
        assert_holds(path, 3)
        if not failure.fired:
            break


@places(stride=29)
def test_synced_rows_survive_if_nothing_of_the_next_commit_reaches_the_disk(
    tmp_path, first, stride
):
    for n in itertools.count(first, stride):
        path = tmp_path / str(n)
        log = new_log(path, 2)
        log.sync()
        log.append(EPISODES[2])
        with power_loss(path, stop_at=n) as journal:
            log.commit()
        journal.cut(tmp_path / f"cut-{n}")
        assert_holds(tmp_path / f"cut-{n}", 2)
        if not journal.fired:
            break


@places(stride=67)
def test_synced_rows_survive_if_some_of_the_next_commit_reaches_the_disk(
    tmp_path, rng, first, stride
):
    for n in itertools.count(first, stride):
        path = tmp_path / str(n)
        log = new_log(path, 2)
        log.sync()
        moment = log.position, log.tail
        held = tree_of(path)
        log.append(EPISODES[2])
        with power_loss(path, stop_at=n) as journal:
            log.commit()
        for number in range(3):
            cut = tmp_path / f"cut-{n}-{number}"
            journal.cut(cut, rng)
            log = reopen(cut, moment)
            assert tree_of(cut) == held
        log.append(EPISODES[2])
        log.commit()
        assert_holds(cut, 3)
        if not journal.fired:
            break


@places(stride=43)
def test_a_crash_while_the_log_is_opened_again_can_be_repeated_and_mended(
    tmp_path, rng, first, stride
):
    source = tmp_path / "source"
    log = new_log(source, 1)
    moment, held = (log.position, log.tail), tree_of(source)
    for episode in EPISODES[1:]:
        log.append(episode)
    log.commit()
    for n in itertools.count(first, stride):
        path, cut = tmp_path / str(n), tmp_path / f"cut-{n}"
        shutil.copytree(source, path)
        with power_loss(path, stop_at=n) as journal:
            reopen(path, moment)
        journal.cut(cut, rng)
        for left in (path, cut):
            reopen(left, moment)
            assert tree_of(left) == held
        if not journal.fired:
            break


def test_after_a_sync_every_power_loss_leaves_the_committed_rows(tmp_path, rng):
    path = tmp_path / "run"
    path.mkdir()
    with power_loss(path) as journal:
        log = new_log(path, 1)
        log.sync()
        journal.cut(tmp_path / "first")
        assert_holds(tmp_path / "first", 1)
        for episode in EPISODES[1:]:
            log.append(episode)
            log.commit()
        log.sync()
        for number in range(8):
            journal.cut(tmp_path / f"cut-{number}", rng if number else None)
            assert_holds(tmp_path / f"cut-{number}", 3)
