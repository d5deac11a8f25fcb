import numpy as np
import pytest
from gymnasium.error import Error as GymnasiumError

from envs.errors import EnvironmentFailure
from mgrl_cli.agents.episodes import Exploration
from mgrl_cli.agents.player import Player
from mgrl_cli.config import EnvConfig
from mgrl_cli.replay.schema import Episode, check_episode


def act(obs: np.ndarray) -> np.ndarray:
    return np.tanh(obs[:1])


def exploration(stream: int = 0) -> Exploration:
    return Exploration(np.random.default_rng(stream), random_steps=0, noise=0.2)


@pytest.fixture
def player_of():
    players = []

    def build(env_id: str, *, on_step=lambda: None, **kwargs) -> Player:
        players.append(Player(EnvConfig(id=env_id, kwargs=kwargs), on_step))
        return players[-1]

    yield build
    for player in players:
        player.close()


def assert_equal(first: Episode | None, second: Episode | None) -> None:
    assert first is not None
    assert second is not None
    for name, a, b in zip(Episode._fields, first, second, strict=True):
        assert np.array_equal(a, b), name


STEP_FAULTS = {
    "raise_step": "the motor burned out",
    "nan_reward": "reward is nan",
    "nan_obs": r"obs\[0\] is nan",
    "inf_obs": r"obs\[1\] is inf",
}


@pytest.mark.parametrize(("fault", "message"), STEP_FAULTS.items())
def test_an_episode_that_fails_in_a_step_is_dropped_and_the_next_is_whole(
    faulty, player_of, fault, message
):
    player = player_of(faulty, fault=fault, at=45, episode_steps=20)
    healthy = player_of(faulty, episode_steps=20)
    played = [player.play(act, exploration(seed), seed) for seed in range(4)]
    assert [episode is None for episode in played] == [False, False, True, False]
    for seed in (0, 1, 3):
        assert_equal(played[seed], healthy.play(act, exploration(seed), seed))
        check_episode(played[seed], 2, 1)
    with pytest.raises(EnvironmentFailure, match=message):
        raise EnvironmentFailure(player.last_failure)
    assert "episode step 5" in player.last_failure


def test_after_a_failure_the_environment_is_a_new_one(faulty, player_of):
    """The fault strikes at step 45 of an instance: every third episode, if each begins anew."""
    player = player_of(faulty, fault="raise_step", at=45, episode_steps=20)
    failed = [player.play(act, exploration(), 0) is None for _ in range(9)]
    assert failed == [False, False, True] * 3


def test_an_episode_that_fails_in_reset_is_dropped(faulty, player_of):
    player = player_of(faulty, fault="raise_reset", at=2)
    failed = [player.play(act, exploration(), 0) is None for _ in range(6)]
    assert failed == [False, True] * 3
    assert "the hinge is stuck" in player.last_failure


def test_nothing_has_failed_at_first(player_of, scripted):
    player = player_of("Scripted-v0")
    assert player.play(act, exploration(), 0) is not None
    assert player.last_failure == ""


def test_a_broken_environment_is_closed_before_the_next_is_made(player_of, scripted):
    scripted.failing_episodes = frozenset({1})
    player = player_of("Scripted-v0")
    assert scripted.made == 2  # one to train in, one to be evaluated in
    assert player.play(act, exploration(), 0) is None
    assert (scripted.made, scripted.closed) == (2, 1)
    assert player.play(act, exploration(), 0) is not None
    assert (scripted.made, scripted.closed) == (3, 1)
    player.close()
    assert (scripted.made, scripted.closed) == (3, 3)


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(1), GymnasiumError("no")])
def test_a_constructor_that_fails_is_a_failure_and_is_tried_again(player_of, scripted, error):
    scripted.failing_episodes = frozenset({1})
    scripted.constructor_errors = {3: error, 4: error}
    player = player_of("Scripted-v0")
    messages = []
    for _ in range(3):
        assert player.play(act, exploration(), 0) is None
        messages.append(player.last_failure)
    assert "the script says so" in messages[0]
    assert all("could not be made" in message for message in messages[1:])
    assert player.play(act, exploration(), 0) is not None
    assert scripted.made == 5


def test_a_constructor_that_fails_at_first_is_an_error(player_of, scripted):
    scripted.constructor_errors = {2: RuntimeError("no motor found")}
    with pytest.raises(EnvironmentFailure, match="no motor found"):
        player_of("Scripted-v0")


def test_an_evaluation_drops_failed_episodes_only(faulty, player_of):
    """Step 25 of an instance is the fifth of its second episode."""
    player = player_of(faulty, fault="raise_step", at=25, episode_steps=20)
    healthy = player_of(faulty, episode_steps=20).evaluate(act, range(5))
    assert len(set(healthy)) == 5
    # Episodes 1 and 3 fail; 2 and 4 are the first of new instances.
    assert player.evaluate(act, range(5)) == [healthy[0], healthy[2], healthy[4]]
    assert "the motor burned out" in player.last_failure


def test_an_evaluation_in_which_everything_fails_is_empty(faulty, player_of):
    player = player_of(faulty, fault="nan_reward", at=3)
    assert player.evaluate(act, range(3)) == []


def test_a_constructor_that_fails_costs_an_evaluation_one_episode(player_of, scripted):
    scripted.failing_episodes = frozenset({2})
    scripted.constructor_errors = {3: RuntimeError("no")}
    player = player_of("Scripted-v0")
    # Whole, failed, not made, whole, whole.
    assert player.evaluate(act, range(5)) == [10.0] * 3
    assert scripted.made == 4


def test_training_and_evaluation_break_apart_from_each_other(faulty, player_of):
    player = player_of(faulty, fault="raise_step", at=45, episode_steps=20)
    assert player.play(act, exploration(), 0) is not None
    assert len(player.evaluate(act, range(3))) == 2
    failed = [player.play(act, exploration(), 0) is None for _ in range(2)]
    assert failed == [False, True]  # the second and third of the first instance


def test_a_policy_that_overflows_drops_the_episode(player_of, scripted):
    """The environment may show numbers that float32 holds, but that no network bears."""
    player = player_of("Scripted-v0", obs=1e30)

    def overflows(obs: np.ndarray) -> np.ndarray:
        return obs[:1] * np.float32(np.nan)

    assert player.play(overflows, exploration(), 0) is None
    assert "the policy overflowed" in player.last_failure
    assert "\n" not in player.last_failure
    assert player.evaluate(overflows, range(2)) == []
    assert player.play(act, exploration(), 0) is not None


def test_every_step_is_a_sign_of_life(player_of, scripted):
    scripted.failing_episodes = frozenset({3})
    steps = []
    player = player_of("Scripted-v0", on_step=lambda: steps.append(1))
    player.play(act, exploration(), 0)
    assert len(steps) == 10
    player.evaluate(act, [0])
    assert len(steps) == 20
    player.play(act, exploration(), 0)  # fails in its third step
    assert len(steps) == 23


def test_the_player_tells_what_it_plays_in(player_of):
    player = player_of("pendulum")
    assert player.environment_id == "mgrl/Pendulum-v0"
    assert (player.obs_size, player.act_size) == (3, 1)
    assert player.action_low.tolist() == (-player.action_high).tolist()
