import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mgrl_cli.config import RunConfig
from mgrl_cli.errors import FileError
from mgrl_cli.inspection.run import inspect_run
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.run_dir.layout import RunDirectory, create_run_directory
from mgrl_cli.run_dir.settings import write_settings


def test_settings_and_progress_are_those_of_the_run(run: RunDirectory) -> None:
    report = inspect_run(run.path)

    assert (report.name, report.kind, report.preset, report.seed) == ("a", "meta-train", "smoke", 0)
    assert report.environments == ("pendulum", "cartpole")
    assert (report.num_agents, report.steps_per_agent) == (2, 1500)
    assert (report.rounds_done, report.num_rounds) == (2, 6)
    assert report.is_whole
    assert report.absent == ()
    assert report.warnings == ()


def test_agents_show_their_last_figures_and_their_courses(run: RunDirectory) -> None:
    agent = inspect_run(run.path).agents[1]
    assert (agent.agent_id, agent.environment, agent.round) == (1, "cartpole", 2)
    assert (agent.env_steps, agent.episodes) == (500, 4)
    assert agent.returns == (11.0, 21.0)
    assert agent.mean_return == 21.0
    assert agent.evaluations == ((500, 11.0),)
    assert agent.evaluation == 11.0
    assert agent.gain == 0.125


def test_objective_and_replay_are_looked_into(run: RunDirectory) -> None:
    report = inspect_run(run.path)
    assert report.objective is not None
    assert report.objective.metadata["meta_steps"] == 5
    assert report.buffer is not None
    assert [agent.env_steps for agent in report.buffer.agents] == [2, 2]


def test_rounds_are_done_when_every_agent_has_recorded_them(
    run: RunDirectory, row: Callable[..., dict[str, object]], append: Callable[..., None]
) -> None:
    append(run.agent_metrics(0), row(0, 3))
    with run.agent_metrics(1).open("a") as file:
        file.write('{"round": 3, "env_st')  # still being written
    report = inspect_run(run.path)
    assert report.rounds_done == 2
    assert report.is_whole


def test_a_run_that_has_only_begun_is_not_damaged(
    tmp_path: Path, config: Callable[..., RunConfig]
) -> None:
    run = create_run_directory(tmp_path, "new", "unused")
    write_settings(run, config("meta-train"))
    report = inspect_run(run.path)
    assert report.is_whole
    assert report.rounds_done == 0
    assert math.isnan(report.agents[0].evaluation)
    assert report.absent == tuple(
        str(file)
        for file in (
            run.objective,
            run.population_metrics,
            run.agent_metrics(0),
            run.agent_metrics(1),
            run.buffer,
        )
    )
    assert report.warnings == ("no agent has recorded a round yet",)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    "part",
    [
        "objective.safetensors",
        "metrics/population.jsonl",
        "metrics/agent-001.jsonl",
        "buffer.zarr",
        "buffer.zarr/agent-001",
    ],
)
def test_a_file_that_must_be_there_by_now_is_missed(run: RunDirectory, part: str) -> None:
    remove(run.path / part)
    report = inspect_run(run.path)
    assert not report.is_whole
    assert report.problems == (f"{run.path / part} is missing; restore it from a copy",)
    assert report.absent == ()


def test_agents_of_a_meta_test_that_wait_for_their_turn_are_not_missed(
    tmp_path: Path, config: Callable[..., RunConfig], row: Callable[..., dict[str, object]],
    objective: Callable[..., LearnedObjective], replay_at: Callable[..., Path],
    append: Callable[..., None],
) -> None:  # fmt: skip
    run = create_run_directory(tmp_path, "test", "unused")
    rules = ["learned", "ddpg"]
    settings = config("meta-test", envs=[{"id": "pendulum"}], rules=rules, seeds=2, agents=4)
    write_settings(run, settings)
    objective().save(run.objective)
    for index in (1, 2, 3):
        append(run.agent_metrics(0), row(0, index, evaluation=2.0 * index))
    replay_at(run.agent_buffer(0), [])

    report = inspect_run(run.path)

    assert report.is_whole
    assert report.rules == ("learned", "ddpg")
    assert [(agent.rule, agent.seed) for agent in report.agents] == [
        ("learned", 0),
        ("learned", 1),
        ("ddpg", 0),
        ("ddpg", 1),
    ]
    assert report.agents[0].evaluation == 6.0
    assert len(report.absent) == 7  # the population's rows, and two files of three agents


def test_damaged_parts_are_named_and_the_rest_still_read(
    run: RunDirectory, damage: Callable[[Path], None]
) -> None:
    damage(run.objective)
    damage(run.agent_buffer(0) / "reward" / "c" / "0")
    run.agent_metrics(1).write_text("nonsense\n")

    report = inspect_run(run.path)

    metrics, objective, replay, *_ = report.problems
    assert "agent-001.jsonl: line 1" in metrics
    assert "SHA-256" in objective
    assert replay.startswith("agent-000: ")
    assert report.objective is None
    assert report.agents[0].mean_return == 20.0
    assert report.buffer is not None
    assert report.buffer.agents[1].is_whole


@pytest.mark.parametrize("content", ["kind = ", "kind = 'meta-train'", "title = 'my homepage'"])
def test_settings_that_are_not_ours_are_a_bad_file(run: RunDirectory, content: str) -> None:
    run.config.write_text(content)
    with pytest.raises(FileError, match=r"config\.toml"):
        inspect_run(run.path)


def test_missing_settings_are_a_bad_file(run: RunDirectory) -> None:
    run.config.unlink()
    with pytest.raises(FileError, match=r"config\.toml"):
        inspect_run(run.path)


def test_stuck_policies_and_skipped_updates_are_odd(
    run: RunDirectory, row: Callable[..., dict[str, object]], append: Callable[..., None]
) -> None:
    append(run.agent_metrics(0), row(0, 3, action_slack=0.001, skipped_updates=4))
    assert inspect_run(run.path).warnings == (
        "agent-000: 4 updates were not finite and left out",
        "agent-000: the policy is stuck at its bounds (action slack 0.001)",
    )
