"""Whole runs: what they leave behind depends on nothing but their settings."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mgrl_cli.agents.learner import Learner
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.metrics import population_rows, read_agent_metrics
from mgrl_cli.run_dir.settings import read_settings
from mgrl_cli.runtime.exchange import Exchange
from mgrl_cli.runtime.launch import claim_run, meta_test, meta_train
from tests.runtime.conftest import Remembering, fingerprint, run_tiny, tiny_config


@pytest.fixture(scope="module")
def serial_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    runs_dir = tmp_path_factory.mktemp("serial")
    return fingerprint(run_tiny(tiny_config(agents=3), runs_dir, "run", workers=0))


def test_same_seed_gives_identical_files(serial_run: dict[str, object], tmp_path: Path) -> None:
    again = run_tiny(tiny_config(agents=3), tmp_path, "another-name", workers=0)
    assert fingerprint(again) == serial_run


def test_another_seed_gives_another_objective(
    serial_run: dict[str, object], tmp_path: Path
) -> None:
    other = fingerprint(run_tiny(tiny_config(agents=3, seed=1), tmp_path, "run", workers=0))
    assert other["objectives"] != serial_run["objectives"]
    assert other["replay"] != serial_run["replay"]


@pytest.fixture(scope="module")
def process_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, Remembering]:
    """The same run in processes, and what was shown of it."""
    progress, config = Remembering(), tiny_config(agents=3)
    run = claim_run(config, tmp_path_factory.mktemp("processes"), "run")
    meta_train(config, run, progress, workers=3)
    return run, progress


def test_only_what_needs_the_objective_waits_for_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []

    def noting(kind: type, method: str, word: str) -> None:
        original = getattr(kind, method)

        def note(*args: object, **options: object) -> object:
            happened.append(word)
            return original(*args, **options)

        monkeypatch.setattr(kind, method, note)

    noting(Learner, "update_critic", "critic")
    noting(Learner, "update_policy", "policy")
    noting(Exchange, "contribute", "gradient")
    noting(Exchange, "arrive", "arrive")
    noting(Exchange, "leave", "leave")
    run_tiny(tiny_config(("pendulum",), steps=120, agents=1), tmp_path, "run", workers=0)
    # An update with a meta-step, and one without. A round begins and ends with everyone.
    pair = ["leave", "critic", "policy", "gradient", "arrive", "critic"]
    assert happened == 2 * ["arrive", "leave", *30 * pair, "leave"]


def test_processes_give_what_the_serial_twin_gives(
    serial_run: dict[str, object], process_run: tuple[RunDirectory, Remembering]
) -> None:
    run, _ = process_run
    assert fingerprint(run) == serial_run


@pytest.mark.slow
def test_fewer_processes_than_agents_give_it_too(
    serial_run: dict[str, object], tmp_path: Path
) -> None:
    run = run_tiny(tiny_config(agents=3), tmp_path, "run", workers=2)
    assert fingerprint(run) == serial_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return run_tiny(tiny_config(), tmp_path_factory.mktemp("trained"), "run", workers=0)


def test_run_directory_is_complete(trained: RunDirectory) -> None:
    config, run = tiny_config(), trained
    assert read_settings(run) == config
    objective = LearnedObjective.load(run.objective)
    assert objective.metadata.environments == ("pendulum", "cartpole")
    # Rounds of 60 steps; updates in rounds that end at step 60 or later, every second one meets.
    assert objective.metadata.meta_steps == 90
    for agent_id in (0, 1):
        reader = ReplayReader(run.agent_buffer(agent_id))
        assert reader.verify() == []
        assert reader.committed_rows >= config.steps


def test_a_rounds_first_snapshot_shows_the_rounds_end(
    process_run: tuple[RunDirectory, Remembering],
) -> None:
    run, progress = process_run
    config = read_settings(run)
    rows = population_rows(read_agent_metrics(run.metrics))
    for round_index in range(1, config.num_rounds + 1):
        first = next(each for each in progress.snapshots if each.round_index == round_index)
        at_end = [row.env_steps for row in rows][round_index - 1 :: config.num_rounds]
        assert [agent.env_steps for agent in first.agents] == at_end


def test_rules_of_a_meta_test_share_seeds_and_first_networks(
    trained: RunDirectory, tmp_path: Path
) -> None:
    objective = LearnedObjective.load(trained.objective)
    config = tiny_config(
        envs=("cartpole",), kind="meta-test", rules=["learned", "ddpg", "untrained"], seeds=2
    )
    run = claim_run(config, tmp_path, "tested")
    meta_test(config, run, objective, Remembering(), workers=0)
    episodes = {
        agent_id: ReplayReader(run.agent_buffer(agent_id)).read_episode(0) for agent_id in range(6)
    }
    # Agents 0, 2, 4 are seed 0 of the three rules; 1, 3, 5 seed 1. The first episode is played
    # before any update, so only the seed can make a difference.
    assert (episodes[0].obs == episodes[2].obs).all()
    assert (episodes[0].action == episodes[4].action).all()
    assert not np.array_equal(episodes[0].obs, episodes[1].obs)
    last = [reader.read("action", 150, 180) for reader in map(reader_of(run), (0, 2, 4))]
    assert not (last[0] == last[1]).all()
    assert not (last[0] == last[2]).all()


def reader_of(run: RunDirectory) -> Callable[[int], ReplayReader]:
    return lambda agent_id: ReplayReader(run.agent_buffer(agent_id))
