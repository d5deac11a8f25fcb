"""Who is in a run: environments, seeds, first lives and the first objective."""

import pytest
import torch

from mgrl_cli.agents.population import agent_specs, fresh_objective, objective_shape
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.config import RunConfig
from mgrl_cli.presets import resolve_config


def config(*envs: object, kind: str = "meta-train", **options: object) -> RunConfig:
    return resolve_config(
        kind=kind,
        preset="smoke",
        options={
            "envs": [env if isinstance(env, dict) else {"id": env} for env in envs],
            **options,
        },
    )


def test_agent_i_trains_on_environment_i_mod_e_with_streams_of_its_own() -> None:
    specs = agent_specs(config("a", "b", "c", agents=7))
    assert "".join(spec.env.id for spec in specs) == "abcabca"
    assert [spec.agent_id for spec in specs] == list(range(7))
    assert [spec.seed_index for spec in specs] == list(range(7))
    assert {spec.rule for spec in specs} == {"learned"}


def test_counts_decide_where_they_are_given() -> None:
    specs = agent_specs(config({"id": "a", "agents": 3}, {"id": "b", "agents": 1}))
    assert "".join(spec.env.id for spec in specs) == "aaab"


def test_settings_of_an_environment_reach_its_agents() -> None:
    env = {"id": "a", "kwargs": {"x": 1}, "randomise": {"mass_kg": [1, 2]}}
    assert {repr(spec.env.kwargs) for spec in agent_specs(config(env, agents=2))} == {"{'x': 1}"}
    assert agent_specs(config(env, agents=2))[1].env.randomise == {"mass_kg": (1.0, 2.0)}


@pytest.mark.parametrize(
    ("lifetime", "agents", "ends"),
    [
        (100, 4, [25, 50, 75, 100]),
        (100, 3, [34, 67, 100]),  # rounded up
        (1, 3, [1, 1, 1]),
        (0, 3, [0, 0, 0]),
    ],
)
def test_first_lives_end_evenly_spread_over_the_population(
    lifetime: int, agents: int, ends: list[int]
) -> None:
    specs = agent_specs(config("a", agents=agents, meta={"lifetime": lifetime}))
    assert [spec.first_life_steps for spec in specs] == ends


def test_first_lives_are_spread_over_counted_agents_too() -> None:
    counted = config({"id": "a", "agents": 1}, {"id": "b", "agents": 3}, meta={"lifetime": 100})
    assert [spec.first_life_steps for spec in agent_specs(counted)] == [25, 50, 75, 100]


def test_all_rules_of_a_meta_test_share_their_seeds() -> None:
    rules = ["learned", "ddpg", "untrained"]
    specs = agent_specs(config("a", kind="meta-test", rules=rules, seeds=2))
    assert [(spec.agent_id, spec.rule, spec.seed_index) for spec in specs] == [
        (0, "learned", 0),
        (1, "learned", 1),
        (2, "ddpg", 0),
        (3, "ddpg", 1),
        (4, "untrained", 0),
        (5, "untrained", 1),
    ]
    assert {spec.env.id for spec in specs} == {"a"}


def test_nobody_dies_in_a_meta_test() -> None:
    tested = config("a", kind="meta-test", meta={"lifetime": 100})
    assert {spec.first_life_steps for spec in agent_specs(tested)} == {0}


def test_the_first_objective_depends_on_the_seed_alone() -> None:
    first = fresh_objective(config("a"))
    assert torch.equal(first, fresh_objective(config("b", "c", agents=9)))
    assert not torch.equal(first, fresh_objective(config("a", seed=1)))


def test_the_first_objective_may_ask_for_nothing() -> None:
    for last_layer, is_zero in (("zero", True), ("plain", False)):
        settings = config("a", objective={"last_layer": last_layer})
        layout = ObjectiveNetwork(objective_shape(settings)).layout
        output = layout.views(fresh_objective(settings))["head.output.weight"]
        assert (not output.any()) is is_zero


def test_the_architecture_follows_the_settings() -> None:
    switches = {"bound": 10.0, "terminal_value": "mean", "padding_first": True}
    shape = objective_shape(config("a", objective=switches))
    assert (shape.bound, shape.terminal_value, shape.padding_first) == (10.0, "mean", True)
    assert (shape.width, shape.signal_features) == (32, 8)
