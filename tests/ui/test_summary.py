import math
from dataclasses import replace

import pytest

from mgrl_cli.telemetry import AgentState, RunSnapshot
from mgrl_cli.ui.summary import (
    count_states,
    mean_returns,
    num_quarantined,
    run_fraction,
    total_env_steps,
)


def test_fraction_is_the_mean_over_agents(meta_train: RunSnapshot):
    # (12,300 + 1,500) / 2 / 30,000
    assert run_fraction(meta_train) == pytest.approx(0.23)
    assert total_env_steps(meta_train) == 13_800


def test_quarantined_agents_do_not_hold_the_fraction_back(meta_train: RunSnapshot):
    finished = replace(meta_train.agents[0], env_steps=30_000)
    lost = replace(meta_train.agents[1], state=AgentState.QUARANTINED)
    assert run_fraction(replace(meta_train, agents=(finished, lost))) == 1.0
    assert run_fraction(replace(meta_train, agents=(lost,))) == 0.0


def test_overlong_episodes_do_not_exceed_the_whole(meta_train: RunSnapshot):
    beyond = replace(meta_train.agents[0], env_steps=30_900)
    assert run_fraction(replace(meta_train, agents=(beyond,))) == 1.0


def test_mean_returns_by_environment_skip_unknown(meta_train: RunSnapshot):
    more = replace(meta_train.agents[0], mean_return=-71.6)
    means = mean_returns(replace(meta_train, agents=(*meta_train.agents, more)))
    assert means["lunar"] == pytest.approx(-121.6)
    assert math.isnan(means["cheetah"])


def test_mean_returns_of_a_meta_test_are_by_rule(meta_test: RunSnapshot):
    # learned: 100 and 200; reinforce: 101 and 201.
    assert mean_returns(meta_test) == {"hopper/learned": 150.0, "hopper/reinforce": 151.0}


def test_states_are_counted_in_the_order_of_a_life(meta_train: RunSnapshot):
    assert count_states(meta_train.agents) == "1 exploring, 1 learning"


def test_quarantined_agents_are_counted(meta_train: RunSnapshot, crowd: RunSnapshot):
    assert num_quarantined(meta_train) == 0
    assert num_quarantined(crowd) == 1
