"""What a configuration may hold, and the one line that refuses anything else."""

from typing import get_args

import pytest
from pydantic import ValidationError

from mgrl_cli.algorithm.objective_network import OptionalInput
from mgrl_cli.algorithm.parameters import Initialisation
from mgrl_cli.config import BASELINES, RULES, RunConfig, sections, validate_config
from mgrl_cli.errors import UsageError

SMALLEST = {"kind": "meta-train", "preset": "paper", "steps": 1000, "envs": [{"id": "pendulum"}]}


def config(**settings: object) -> RunConfig:
    return validate_config({**SMALLEST, **settings})


def refusal(**settings: object) -> str:
    with pytest.raises(UsageError) as caught:
        config(**settings)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 300
    return message


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("ppo", "rollout_steps", 65_600, "less than or equal to 65536"),
        ("critic", "discount", float("nan"), "less than or equal to 1"),
        ("critic", "discount", 1.001, "less than or equal to 1"),
        ("critic", "polyak", 0, "greater than 0"),
        ("policy", "learning_rate", -1e-3, "greater than 0"),
        ("policy", "learning_rate", float("inf"), "less than or equal to 1"),
        ("policy", "clip_norm", float("inf"), "finite"),
        ("policy", "clip_norm", float("nan"), "finite"),
        ("policy", "clip_norm", -1.0, "greater than or equal to 0"),
        ("policy", "layer_norm", 1, "valid boolean"),
        ("critic", "initialisation", "zero", "'glorot' or 'fan_in'"),
        ("policy", "pre_activation_limit", float("inf"), "finite"),
        ("policy", "hidden", 0, "greater than or equal to 1"),
        ("policy", "hidden", 10**10, "less than or equal to 16384"),
        ("policy", "hidden", 10**400, "less than or equal to 16384"),
        ("policy", "hidden", True, "valid integer"),
        ("policy", "hidden", "64", "valid integer"),
        ("policy", "hidden", 64.5, "valid integer"),
        ("policy", "hidden", None, "valid integer"),
        ("policy", "hidden", {"x": 1}, "valid integer"),
        ("critic", "terminal_bonus", 1, "valid boolean"),
        ("critic", "terminal_bonus", "yes", "valid boolean"),
        ("windows", "steps", 1, "greater than or equal to 2"),
        ("windows", "sample_by", "inisde", "'start', 'inside' or 'episode'"),
        ("exploration", "random_steps", -1, "greater than or equal to 0"),
        ("objective", "bound", float("inf"), "finite"),
        ("objective", "without", "time", "valid list"),
        ("meta", "anneal_by", "nothing", "'critic' or 'learning_rate'"),
        ("meta", "inner_steps", 11, "less than or equal to 10"),
        ("meta", "reset", False, "'policy' or 'agent'"),
        ("replay", "capacity", 0, "greater than or equal to 1"),
        ("evaluation", "episodes", 0, "greater than or equal to 1"),
    ],
)
def test_a_wrong_value_is_told_with_key_got_and_expected(
    section: str, key: str, value: object, expected: str
) -> None:
    message = refusal(**{section: {key: value}})
    assert f"'{section}.{key}': " in message
    assert expected in message
    assert f"got {value!r}"[:40] in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 2**63, "less than or equal to 9223372036854775807"),
        ("agents", 10**9, "less than or equal to 4096"),
        ("agents", 0, "greater than or equal to 1"),
        ("steps", 0, "greater than or equal to 1"),
        ("steps", 1e6, "valid integer"),
        ("seeds", 10**6, "less than or equal to 1000"),
        ("kind", "train", "'meta-train' or 'meta-test'"),
        ("policy", 3, "dictionary"),
        ("envs", [], "at least 1 item"),
        ("envs", "pendulum", "valid list"),
        ("envs", {"0": {"id": "pendulum"}}, "valid list"),
        ("rules", [], "at least 1 item"),
        ("rules", "learned", "valid list"),
    ],
)
def test_a_wrong_top_level_value_is_told_the_same_way(
    key: str, value: object, expected: str
) -> None:
    message = refusal(**{key: value})
    assert message.startswith(f"invalid configuration: '{key}': ")
    assert expected in message
    assert "got " in message


@pytest.mark.parametrize(
    ("settings", "unknown", "suggestion"),
    [
        ({"polcy": {"hidden": 3}}, "polcy", "policy"),
        ({"policy": {"hiden": 3}}, "policy.hiden", "hidden"),
        ({"meta": {"aneal_steps": 3}}, "meta.aneal_steps", "anneal_steps"),
        ({"envs": [{"id": "a"}, {"id": "b", "agnts": 1}]}, "envs.1.agnts", "agents"),
    ],
)
def test_an_unknown_key_at_any_depth_gets_a_suggestion(
    settings: dict[str, object], unknown: str, suggestion: str
) -> None:
    assert refusal(**settings) == (
        f"invalid configuration: unknown key '{unknown}'. Did you mean '{suggestion}'?"
    )


def test_an_unknown_key_that_resembles_nothing_gets_no_suggestion() -> None:
    assert refusal(policy={"zzz": 1}) == "invalid configuration: unknown key 'policy.zzz'."


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(UsageError, match=r"^invalid configuration: 'steps' is missing; "):
        validate_config({key: value for key, value in SMALLEST.items() if key != "steps"})
    assert "'envs.0.id' is missing" in refusal(envs=[{}])


def test_the_source_of_the_settings_is_named() -> None:
    with pytest.raises(UsageError, match=r"^invalid 'runs/a/config\.toml': "):
        validate_config({}, source="'runs/a/config.toml'")


def test_a_huge_value_is_not_echoed_whole() -> None:
    assert "got '999" in refusal(steps="9" * 10_000)


def test_whole_numbers_are_taken_where_fractions_are_expected() -> None:
    assert config(critic={"discount": 1}).critic.discount == 1.0


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"kwargs": {"x": [1]}}, "envs.0.kwargs.x"),
        ({"randomise": {"x": [1.0]}}, "envs.0.randomise.x"),
        ({"randomise": {"x": [1.0, 2.0, 3.0]}}, "envs.0.randomise.x"),
        ({"randomise": {"x": [1.0, float("nan")]}}, "envs.0.randomise.x.1"),
        ({"randomise": {"x": ["1", 2.0]}}, "envs.0.randomise.x.0"),
        ({"agents": -1}, "envs.0.agents"),
    ],
)
def test_a_wrong_environment_is_named_by_its_place(entry: dict[str, object], problem: str) -> None:
    assert problem in refusal(envs=[{"id": "pendulum", **entry}])


def test_keyword_arguments_keep_their_kinds() -> None:
    kwargs = {"a": True, "b": 1, "c": 1.5, "d": "1"}
    got = config(envs=[{"id": "pendulum", "kwargs": kwargs}]).envs[0].kwargs
    assert [(type(value), value) for value in got.values()] == [
        (bool, True),
        (int, 1),
        (float, 1.5),
        (str, "1"),
    ]


def test_bounds_may_be_an_array_of_whole_numbers() -> None:
    (env,) = config(envs=[{"id": "pendulum", "randomise": {"mass_kg": [1, 2]}}]).envs
    assert env.randomise == {"mass_kg": (1.0, 2.0)}


@pytest.mark.parametrize("kind", ["meta-train", "meta-test"])
def test_counts_of_agents_cannot_ask_for_a_population_beyond_the_limit(kind: str) -> None:
    envs = [{"id": "a", "agents": 2048}, {"id": "b", "agents": 2049}]
    assert "4097 agents, expected at most 4096" in refusal(kind=kind, envs=envs)


def test_each_rule_is_named_once() -> None:
    assert "ddpg" in refusal(kind="meta-test", rules=["ddpg", "learned", "ddpg"])


def test_every_environment_needs_an_agent() -> None:
    envs = [{"id": "a"}, {"id": "b"}, {"id": "c"}]
    assert "agents=2 for 3 environments" in refusal(agents=2, envs=envs)
    assert config(agents=3, envs=envs).agents == 3


def test_counts_are_for_all_environments_or_for_none() -> None:
    message = refusal(envs=[{"id": "a", "agents": 1}, {"id": "b"}])
    assert "for every environment or for none" in message


def test_agent_i_is_on_environment_i_mod_e() -> None:
    population = config(envs=[{"id": "a"}, {"id": "b"}, {"id": "c"}])
    assert "".join(population.environment_of(i).id for i in range(7)) == "abcabca"


def test_counts_give_each_environment_its_agents_in_order() -> None:
    envs = [{"id": "a", "agents": 1}, {"id": "b", "agents": 3}]
    assert "agents=2 contradicts envs, which make 4" in refusal(agents=2, envs=envs)
    population = config(agents=4, envs=envs)
    assert "".join(population.environment_of(i).id for i in range(4)) == "abbb"


@pytest.mark.parametrize(("steps", "rounds"), [(1, 1), (250, 1), (251, 2), (500, 2)])
def test_the_last_round_may_be_shorter(steps: int, rounds: int) -> None:
    assert config(steps=steps, schedule={"round_steps": 250}).num_rounds == rounds


def test_settings_cannot_be_changed_afterwards() -> None:
    settings = config()
    with pytest.raises(ValidationError, match="frozen"):
        settings.policy.hidden = 3  # type: ignore[misc]


def test_the_rules_are_those_of_the_documentation() -> None:
    assert (
        *("learned", "ddpg", "td3", "reinforce", "reinforce-is", "reinforce-is-clipped"),
        *("vpg", "ppo", "untrained"),
    ) == RULES
    assert RULES[1:] == BASELINES


def test_importance_weights_need_exploration_noise() -> None:
    message = refusal(kind="meta-test", rules=["reinforce-is"], exploration={"noise": 0.0})
    assert "exploration.noise=0 leaves actions without a density" in message
    assert config(kind="meta-test", rules=["reinforce"], exploration={"noise": 0.0})


@pytest.mark.parametrize(
    ("kind", "rules", "needs"),
    [
        ("meta-train", ["learned"], True),
        ("meta-test", ["ddpg", "learned"], True),
        ("meta-test", ["untrained", "ppo"], False),
    ],
)
def test_only_a_run_of_baselines_needs_no_objective(kind, rules, needs) -> None:
    assert config(kind=kind, rules=rules).needs_objective is needs


def test_every_round_holds_a_policy_update() -> None:
    message = refusal(schedule={"round_steps": 10, "policy_interval": 11})
    assert "schedule.policy_interval=11 is longer than a round" in message


def test_inputs_left_out_are_told_in_one_order_and_once() -> None:
    names = ["value", "time", "value"]
    assert config(objective={"without": names}).objective.without == ["time", "value"]
    assert "'objective.without.1': " in refusal(objective={"without": ["time", "reward"]})


def test_words_that_settings_share_with_networks_are_the_same() -> None:
    """Copied, because settings are read where torch must not be imported."""
    assert get_args(sections._Initialisation) == get_args(Initialisation)
    assert get_args(sections._OptionalInput) == get_args(OptionalInput)
