"""Where settings come from: each later source wins, key by key; a preset fits any environments."""

from pathlib import Path
from typing import Any

import pytest

from mgrl_cli.config import RunConfig
from mgrl_cli.errors import FileError, UsageError
from mgrl_cli.presets import META_TEST_STEPS, PRESETS, resolve_config
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.settings import write_settings


def resolve(*assignments: str, **arguments: Any) -> RunConfig:
    given = {"kind": "meta-train", "preset": "smoke", "options": {"envs": [{"id": "pendulum"}]}}
    return resolve_config(**{**given, "assignments": assignments, **arguments})


def file_of(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "settings.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 400
    return message


def test_each_later_source_wins(tmp_path: Path) -> None:
    """windows.steps: smoke 10 < base 11 < file 12 < --set 13; options win over all."""
    base = {"windows": {"steps": 11}, "seed": 1}
    file = file_of(tmp_path, "seed = 2\nwindows.steps = 12\n")
    options = {"envs": [{"id": "pendulum"}]}
    sets = ("seed=3", "windows.steps=13")

    assert resolve().windows.steps == 10
    assert resolve(base=base).windows.steps == 11
    assert resolve(base=base, config_file=file).windows.steps == 12
    assert resolve(*sets, base=base, config_file=file).windows.steps == 13
    everything = resolve(*sets, base=base, config_file=file, options={**options, "seed": 4})
    assert (everything.seed, everything.windows.steps) == (4, 13)


def test_sources_are_merged_key_by_key(tmp_path: Path) -> None:
    file = file_of(tmp_path, "[windows]\nsteps = 12\n")
    assert resolve("windows.sample_by=inside", config_file=file).windows.model_dump() == {
        "batch": 8,
        "steps": 12,
        "sample_by": "inside",
        "mean_over_padding": False,
    }


def test_the_later_of_two_assignments_wins() -> None:
    assert resolve("seed=1", "seed=2").seed == 2


def test_an_option_that_is_not_given_changes_nothing() -> None:
    options = {"envs": [{"id": "pendulum"}], "steps": None, "seed": None}
    assert resolve("seed=5", options=options).seed == 5


def test_resolving_leaves_the_presets_as_they_are() -> None:
    before = repr(PRESETS)
    resolve("policy.hidden=7", "meta.anneal_steps=1", "windows.batch=3")
    assert repr(PRESETS) == before


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("windows.sample_by=inside", "inside"),
        ("windows.sample_by='inside'", "inside"),
        (' windows.sample_by = "inside"', "inside"),
    ],
)
def test_text_may_go_without_quotes(assignment: str, value: str) -> None:
    assert resolve(assignment).windows.sample_by == value


def test_an_assignment_takes_any_toml_value() -> None:
    entry = '[{id = "cartpole", randomise = {mass_kg = [1, 2]}, kwargs = {a = true}}]'
    (env,) = resolve(f"envs={entry}", options={}).envs
    assert env.randomise == {"mass_kg": (1.0, 2.0)}
    assert env.kwargs == {"a": True}


@pytest.mark.parametrize("nonsense", ["", "=", "=1", "seed", "a..b=1", ".seed=1", "policy.=1"])
def test_an_assignment_that_is_none_is_refused(nonsense: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(nonsense)
    assert one_line(caught) == f"--set got '{nonsense}', expected section.key=value"


@pytest.mark.parametrize(
    "hostile",
    [
        "seed=" + "9" * 5000,
        "seed=1e400",
        "seed=" + "[" * 5000,
        "seed=1\nsteps=7",
        "seed=",
        ".".join("a" * 5000) + "=1",
        "policy=1",
        "policy.hidden.deeper=1",
        "seed=\udcff",
        "seed=2000-01-01",
    ],
)
def test_a_hostile_assignment_is_one_usage_error(hostile: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(hostile)
    one_line(caught)


def test_an_unknown_key_of_an_assignment_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"'critic\.lerning_rate'\. Did you mean 'learning_rate'"):
        resolve("critic.lerning_rate=1e-3")


@pytest.mark.parametrize(
    "text",
    [
        b"seed =",
        b"x = " + b"[" * 20_000,
        b"seed = " + b"9" * 5000,
        b"[a." + b".".join([b"b"] * 3000) + b"]",
        b"nonsense = 1",
        b"[windows.steps]\nx = 1",
        b"seed = nan",
    ],
)
def test_a_hostile_file_is_one_usage_error(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(config_file=file_of(tmp_path, text))
    one_line(caught)


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot read configuration file .*settings\.toml") as got:
        resolve(config_file=file_of(tmp_path, b"seed = 1 # \xff"))
    one_line(got)


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_a_file_that_is_none_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match="configuration file") as caught:
        resolve(config_file=tmp_path / name)
    assert str(tmp_path) in one_line(caught)


@pytest.mark.parametrize("assignment", ["kind=meta-test", "preset=paper"])
def test_what_command_and_preset_decide_cannot_be_contradicted(assignment: str) -> None:
    key, _, value = assignment.partition("=")
    with pytest.raises(UsageError, match=f"got {key} = '{value}', expected '") as caught:
        resolve(assignment)
    one_line(caught)


def test_an_unknown_preset_gets_a_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        resolve(preset="laptpo")
    assert one_line(caught) == (
        "unknown preset 'laptpo', expected one of paper, laptop, smoke. Did you mean 'laptop'?"
    )


@pytest.mark.parametrize("kind", ["meta-train", "meta-test"])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "envs", [["pendulum"], ["lunar", "cheetah"], ["module:Anything-v0", "hopper"]]
)
def test_a_preset_fits_any_environments(kind: str, preset: str, envs: list[str]) -> None:
    if kind == "meta-test":
        envs = envs[-1:]
    config = resolve(kind=kind, preset=preset, options={"envs": [{"id": env} for env in envs]})
    assert (config.kind, config.preset) == (kind, preset)
    assert [env.id for env in config.envs] == envs
    # Agents learn within the run, whole windows fit into the replay, evaluations take place.
    assert config.schedule.updates_start < config.steps
    assert config.exploration.random_steps < config.steps
    assert config.replay.capacity >= config.windows.steps
    assert 0 < config.evaluation.interval <= config.steps


@pytest.mark.parametrize("preset", PRESETS)
def test_a_meta_test_has_steps_of_its_own_and_a_file_may_change_them(
    preset: str, tmp_path: Path
) -> None:
    assert resolve(kind="meta-test", preset=preset).steps == META_TEST_STEPS[preset]
    file = file_of(tmp_path, "steps = 77")
    assert resolve(kind="meta-test", preset=preset, config_file=file).steps == 77


def test_the_paper_preset_is_the_papers_table_4() -> None:
    """Kirsch et al. 2020, arXiv 1910.04098, tables 3 and 4, and section 4."""
    config = resolve(preset="paper")
    assert (config.agents, config.steps) == (20, 1_000_000)
    assert (config.policy.hidden, config.critic.hidden) == (350, 350)
    assert (config.windows.batch, config.windows.steps) == (100, 20)
    assert (config.meta.inner_steps, config.meta.inner_step) == (1, "sum")
    assert config.meta.inner_step_size == 1e-3
    rates = (
        config.policy.learning_rate,
        config.critic.learning_rate,
        config.objective.learning_rate,
    )
    assert rates == (1e-3, 1e-3, 1e-3)
    assert (config.policy.clip_norm, config.meta.clip_norm) == (1.0, 1.0)
    assert (config.critic.discount, config.critic.polyak) == (0.99, 0.005)
    assert (config.critic.target_noise, config.critic.target_noise_clip) == (0.2, 0.5)
    assert (config.exploration.noise, config.exploration.random_steps) == (0.1, 10_000)
    assert (config.schedule.updates_start, config.schedule.policy_interval) == (0, 2)
    assert config.schedule.round_steps == 1000
    assert config.meta.anneal_steps == 10_000
    assert config.objective.bound == 1000.0
    assert config.replay.capacity == 1_000_000
    assert (config.evaluation.interval, config.evaluation.episodes) == (5000, 10)


def test_the_paper_preset_has_none_of_our_own_knobs_on() -> None:
    config = resolve(preset="paper")
    assert config.meta.gradient_scale == "clip"
    assert config.meta.lifetime == 0
    assert config.policy.pre_activation_limit == 0.0
    assert config.policy.last_layer_scale == 1.0
    assert config.critic.batch == "windows"
    assert config.objective.last_layer == "plain"
    reproduced_mistakes = (
        config.critic.terminal_bonus,
        config.critic.timeout_is_terminal,
        config.objective.padding_first,
        config.windows.mean_over_padding,
    )
    assert reproduced_mistakes == (False, False, False, False)


def test_smoke_is_far_smaller_than_laptop_and_laptop_than_paper() -> None:
    smoke, laptop, paper = (resolve(preset=preset) for preset in ("smoke", "laptop", "paper"))
    for bigger, smaller in ((paper, laptop), (laptop, smoke)):
        assert smaller.steps * smaller.agents * 5 < bigger.steps * bigger.agents
        assert smaller.policy.hidden < bigger.policy.hidden
        assert smaller.windows.batch < bigger.windows.batch


def test_counts_in_a_file_decide_the_population(tmp_path: Path) -> None:
    file = tmp_path / "population.toml"
    file.write_text(
        '[[envs]]\nid = "hopper"\nagents = 3\n[[envs]]\nid = "lunar"\nagents = 2\n', "utf-8"
    )
    assert resolve(config_file=file, options={}).agents == 5


def test_a_meta_test_has_an_agent_for_every_rule_and_seed() -> None:
    options = {"envs": [{"id": "hopper"}], "rules": ["learned", "ddpg"], "seeds": 3}
    assert resolve(kind="meta-test", options=options).agents == 6


def test_a_run_s_own_settings_can_be_used_for_another_run(tmp_path: Path) -> None:
    config = resolve(preset="smoke", options={"envs": [{"id": "hopper"}], "seed": 7})
    run = RunDirectory(tmp_path)
    write_settings(run, config)
    again = resolve(kind="meta-train", preset="laptop", config_file=run.config, options={})
    assert again == config.model_copy(update={"preset": "laptop"})
