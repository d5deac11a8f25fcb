from dataclasses import replace

from mgrl_cli.agents.counters import Counters


def test_an_episode_counts_with_its_steps():
    counters = Counters()
    for steps in (20, 7):
        counters.add_episode(steps, -1.5)
    assert (counters.episodes, counters.env_steps, counters.returns) == (2, 27, [-1.5, -1.5])


def test_the_latest_returns_are_kept():
    counters = Counters()
    for number in range(40):
        counters.add_episode(1, float(number))
    assert counters.returns == [float(number) for number in range(8, 40)]
    assert counters.episodes == 40


def test_a_copy_keeps_its_returns():
    counters = Counters()
    counters.add_episode(1, 1.0)
    copy = replace(counters)
    counters.add_episode(1, 2.0)
    assert copy.returns == [1.0]
