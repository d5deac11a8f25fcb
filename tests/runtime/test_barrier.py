"""Waiting for each other: threads here, which share what processes are given at their start."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mgrl_cli.runtime.barrier import Barrier
from tests.faults.processes import LONG_ENOUGH_S, leaves_no_shared_memory

PARTIES, MEETINGS = 3, 200


def together(body: Callable[[int], None]) -> None:
    """Run a body in several threads to its end."""
    threads = [
        threading.Thread(target=body, args=(number,), daemon=True) for number in range(PARTIES)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_ENOUGH_S)
    assert not any(thread.is_alive() for thread in threads)


def test_everyone_is_there_when_the_last_acts_and_nobody_is_a_meeting_ahead() -> None:
    barrier = Barrier(PARTIES)
    arrived = [0] * PARTIES
    seen: list[list[int]] = []

    def body(number: int) -> None:
        for meeting in range(MEETINGS):
            arrived[number] += 1
            passage = barrier.arrive(lambda: seen.append(list(arrived)))
            if (meeting + number) % PARTIES == 0:
                time.sleep(1e-3)  # for whoever passes meanwhile, and arrives at the next one
            passage.wait()
            assert len(seen) == meeting + 1

    together(body)
    assert seen == [[meeting + 1] * PARTIES for meeting in range(MEETINGS)]


def test_nobody_goes_on_before_the_last_has_acted() -> None:
    barrier = Barrier(PARTIES)
    has_acted = threading.Event()
    early: list[int] = []

    def act() -> None:
        time.sleep(0.1)
        has_acted.set()

    def body(number: int) -> None:
        barrier.arrive(act).wait()
        if not has_acted.is_set():
            early.append(number)

    together(body)
    assert early == []


def test_who_has_arrived_may_do_something_else_before_waiting() -> None:
    barrier = Barrier(2)
    first = barrier.arrive(lambda: None)
    acted: list[bool] = []
    last = barrier.arrive(lambda: acted.append(True))  # by the same thread: nothing blocks
    assert acted == [True]
    first.wait()
    last.wait()


def test_nothing_of_it_has_a_name_that_a_kill_would_leave_behind() -> None:
    with leaves_no_shared_memory():
        barrier = Barrier(PARTIES)
    del barrier  # it was there all the time


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux does")
def test_it_closes_what_it_opened() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    barrier = Barrier(PARTIES)
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 6
    del barrier
    assert len(list(Path("/proc/self/fd").iterdir())) == before
