"""Signs of life: who is taken for dead, and who never is."""

from collections.abc import Collection

import pytest

from mgrl_cli.runtime.pulse import Pulse, PulseBoard, Watchdog

TIMEOUT_S = 3.0
TICK_S = 0.25
HOUR_S = 3600.0


@pytest.fixture
def board() -> PulseBoard:
    return PulseBoard([4, 5, 6])


@pytest.fixture
def pulses(board: PulseBoard) -> list[Pulse]:
    return [Pulse(board, worker) for worker in range(3)]


@pytest.fixture
def watchdog(board: PulseBoard) -> Watchdog:
    """A watchdog of three workers that have reported once."""
    return started(Watchdog(board, TIMEOUT_S))


def started(watchdog: Watchdog) -> Watchdog:
    for worker in range(3):
        watchdog.note_report(worker)
    return watchdog


def look_for(
    watchdog: Watchdog,
    seconds: float,
    alive: Collection[Pulse] = (),
    at_rest: Collection[int] = (),
) -> int | None:
    """Look a few times a second while some give signs of life; return the first that is blamed."""
    for _ in range(round(seconds / TICK_S)):
        for pulse in alive:
            pulse.beat()
        blamed = watchdog.look(TICK_S, at_rest)
        if blamed is not None:
            return blamed
    return None


def test_a_worker_that_is_busy_without_a_sign_of_life_is_blamed_after_the_timeout(
    watchdog: Watchdog, pulses: list[Pulse]
) -> None:
    for pulse in pulses:
        pulse.work_on(0)
    assert look_for(watchdog, TIMEOUT_S, alive=[pulses[0], pulses[2]]) is None
    assert look_for(watchdog, 2 * TICK_S, alive=[pulses[0], pulses[2]]) == 1


def test_a_worker_that_gives_signs_of_life_is_never_blamed(
    watchdog: Watchdog, pulses: list[Pulse]
) -> None:
    assert look_for(watchdog, 10 * TIMEOUT_S, alive=pulses) is None


def test_those_who_wait_for_a_busy_one_are_not_blamed(
    watchdog: Watchdog, pulses: list[Pulse]
) -> None:
    pulses[0].wait()
    pulses[2].wait()
    assert look_for(watchdog, 10 * TIMEOUT_S, alive=[pulses[1]]) is None


def test_those_who_wait_for_a_silent_one_are_not_blamed_for_it(
    watchdog: Watchdog, pulses: list[Pulse]
) -> None:
    pulses[0].wait()
    pulses[1].wait()
    assert look_for(watchdog, 2 * TIMEOUT_S) == 2


def test_if_all_wait_for_each_other_the_one_that_has_arrived_least_often_is_blamed(
    watchdog: Watchdog, pulses: list[Pulse]
) -> None:
    """Worker 1 never noticed that the others went on to the next meeting."""
    for pulse in pulses:
        pulse.wait()
    for pulse in (pulses[0], pulses[2]):
        pulse.work_on(0)
        pulse.wait()
    assert look_for(watchdog, 2 * TIMEOUT_S) == 1


def test_nobody_at_rest_is_blamed(watchdog: Watchdog) -> None:
    assert look_for(watchdog, 10 * TIMEOUT_S, at_rest={0, 1, 2}) is None


def test_one_that_waits_while_all_others_rest_is_blamed(
    watchdog: Watchdog, pulses: list[Pulse]
) -> None:
    pulses[1].wait()
    assert look_for(watchdog, 2 * TIMEOUT_S, at_rest={0, 2}) == 1


def test_silence_at_rest_does_not_count_afterwards(watchdog: Watchdog, pulses: list[Pulse]) -> None:
    assert look_for(watchdog, 10 * TIMEOUT_S, at_rest={0, 1, 2}) is None
    assert look_for(watchdog, TIMEOUT_S) is None


def test_before_its_first_report_a_worker_may_be_silent_for_two_minutes(
    board: PulseBoard, pulses: list[Pulse]
) -> None:
    watchdog = Watchdog(board, TIMEOUT_S)
    assert look_for(watchdog, 120.0, alive=pulses[1:]) is None
    assert look_for(watchdog, 2 * TICK_S, alive=pulses[1:]) == 0


def test_a_longer_timeout_holds_for_starting_workers_too(
    board: PulseBoard, pulses: list[Pulse]
) -> None:
    watchdog = Watchdog(board, 200.0)
    assert look_for(watchdog, 200.0, alive=pulses[1:]) is None
    assert look_for(watchdog, 2 * TICK_S, alive=pulses[1:]) == 0


def test_time_in_which_everything_stood_still_does_not_count(
    board: PulseBoard, pulses: list[Pulse]
) -> None:
    """As after Ctrl-Z and fg, or in a suspended laptop; with the shortest timeout."""
    watchdog = started(Watchdog(board, 1.0))
    for pulse in pulses:
        pulse.work_on(0)
    assert look_for(watchdog, 2 * TICK_S) is None
    assert watchdog.look(HOUR_S, at_rest=()) is None
    assert look_for(watchdog, 1.0, alive=pulses) is None


def test_a_loss_is_blamed_on_the_agent_that_the_worker_was_busy_with(
    board: PulseBoard, pulses: list[Pulse]
) -> None:
    watchdog = Watchdog(board, TIMEOUT_S)
    assert [watchdog.agent_of(worker) for worker in range(3)] == [4, 5, 6]
    pulses[1].work_on(8)
    pulses[1].wait()
    assert [watchdog.agent_of(worker) for worker in range(3)] == [4, 8, 6]
