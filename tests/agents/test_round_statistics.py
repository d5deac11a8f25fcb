from typing import get_args

from mgrl_cli.agents.round_statistics import Count, Mean, RoundStatistics


def test_a_mean_of_nothing_is_none_and_a_count_of_nothing_zero():
    summary = RoundStatistics().summary()
    assert list(summary) == [*get_args(Mean), *get_args(Count)]
    assert {summary[name] for name in get_args(Mean)} == {None}
    assert {summary[name] for name in get_args(Count)} == {0}


def test_means_are_over_what_was_added():
    statistics = RoundStatistics()
    for value in (1.0, 2.0, 6.0):
        statistics.add("critic_loss", value)
    statistics.add("gain", -1.0)
    # (1 + 2 + 6) / 3 = 3
    assert statistics.summary()["critic_loss"] == 3.0
    assert statistics.summary()["gain"] == -1.0
    assert statistics.summary()["cosine"] is None


def test_the_latest_value_is_kept_for_the_live_view():
    statistics = RoundStatistics()
    statistics.add("gain", 1.0)
    statistics.add("gain", 2.5)
    assert statistics.latest == {"gain": 2.5}


def test_only_what_happened_is_counted():
    statistics = RoundStatistics()
    for happened in (True, False, True):
        statistics.count("skipped_updates", happened)
    summary = statistics.summary()
    assert summary["skipped_updates"] == 2
    assert summary["skipped_gradients"] == 0


def test_statistics_continue_in_the_middle_of_a_round():
    first = RoundStatistics()
    first.add("critic_loss", 1.0)
    first.count("failed_episodes")
    second = RoundStatistics(first.record())
    for statistics in (first, second):
        statistics.add("critic_loss", 3.0)
        statistics.add("gain", 5.0)
        statistics.count("failed_episodes")
    assert second.summary() == first.summary()
    assert second.summary()["critic_loss"] == 2.0
    assert second.summary()["failed_episodes"] == 2


def test_a_record_does_not_change_with_what_it_was_taken_of():
    statistics = RoundStatistics()
    record = statistics.record()
    statistics.add("gain", 1.0)
    statistics.count("skipped_updates")
    assert RoundStatistics(record).summary() == RoundStatistics().summary()
