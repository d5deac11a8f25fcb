import pytest

from mgrl_cli.agents.health import DIVERGED, Health, patience_per_epoch
from mgrl_cli.config import SupervisionConfig

LIMITS = SupervisionConfig(max_failed_episodes=3, max_skipped_updates=4)

COUNT = {
    "critic updates": Health.count_critic_update,
    "policy updates": Health.count_policy_update,
    "meta-gradients": Health.count_meta_gradient,
}


def test_a_fresh_agent_is_healthy():
    assert Health() == Health(0, 0, 0, 0, "")


def test_failed_episodes_in_a_row_end_in_quarantine_and_the_last_is_named():
    health = Health()
    for reason in ("first", "second"):
        health.count_episode(reason, LIMITS)
        assert not health.quarantine
    health.count_episode("the motor burned out", LIMITS)
    assert health.quarantine == "3 episodes in a row failed, the last with: the motor burned out"
    assert not health.quarantine.startswith(DIVERGED)


def test_a_whole_episode_renews_patience():
    health = Health()
    for _ in range(10):
        health.count_episode("stuck", LIMITS)
        health.count_episode("stuck", LIMITS)
        health.count_episode("", LIMITS)
    assert health == Health()


@pytest.mark.parametrize("what", COUNT)
def test_what_is_not_finite_again_and_again_ends_in_quarantine(what):
    health = Health()
    for _ in range(3):
        COUNT[what](health, False, LIMITS)
        assert not health.quarantine
    COUNT[what](health, False, LIMITS)
    assert health.quarantine == f"{DIVERGED}: 4 {what} in a row were not finite"


@pytest.mark.parametrize("what", COUNT)
def test_one_success_renews_patience(what):
    health = Health()
    for _ in range(10):
        for is_finite in (False, False, False, True):
            COUNT[what](health, is_finite, LIMITS)
    assert health == Health()


@pytest.mark.parametrize("what", COUNT)
def test_no_kind_of_failure_hides_behind_successes_of_another(what):
    health = Health()
    for _ in range(4):
        COUNT[what](health, False, LIMITS)
        for other in COUNT.keys() - {what}:
            COUNT[other](health, True, LIMITS)
        health.count_episode("", LIMITS)
    assert what in health.quarantine


def test_agents_that_learn_once_per_epoch_have_less_patience_never_more():
    for given, expected in ((100, 3), (3, 3), (2, 2)):
        limits = SupervisionConfig(max_failed_episodes=7, max_skipped_updates=given)
        per_epoch = patience_per_epoch(limits)
        assert (per_epoch.max_skipped_updates, per_epoch.max_failed_episodes) == (expected, 7)


def test_quarantine_is_for_good():
    health = Health()
    for _ in range(4):
        health.count_critic_update(False, LIMITS)
    reason = health.quarantine
    for count in COUNT.values():
        count(health, True, LIMITS)
    health.count_episode("", LIMITS)
    assert health.quarantine == reason
