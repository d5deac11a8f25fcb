"""Claiming a run: one name, one run, however many processes want it."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from mgrl_cli.agents.population import agent_specs, fresh_objective, objective_shape
from mgrl_cli.errors import RunLockedError, UsageError
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.run_dir.layout import RunDirectory, create_run_directory
from mgrl_cli.run_dir.lock import lock_holder, locked
from mgrl_cli.run_dir.settings import read_settings
from mgrl_cli.runtime.exchange import ExchangeStatus
from mgrl_cli.runtime.launch import check_objective_fits, claim_run, settings_of_objective
from mgrl_cli.runtime.recorder import Recorder
from tests.runtime.conftest import tiny_config

CLAIMS, CLAIMANTS = 10, 4


def test_of_those_who_claim_a_name_at_once_one_gets_it(tmp_path: Path) -> None:
    for number in range(CLAIMS):
        name, won = f"run-{number}", list[int]()
        create_run_directory(tmp_path, name, "stem")  # left by one that was killed
        start = threading.Barrier(CLAIMANTS)
        threads = [
            threading.Thread(target=claim, args=(tmp_path, name, seed, start.wait, won))
            for seed in range(CLAIMANTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (seed,) = won
        run = RunDirectory(tmp_path / name)
        assert read_settings(run).seed == seed
        assert lock_holder(run) is None


def claim(runs_dir: Path, name: str, seed: int, wait: Callable[[], object], won: list[int]) -> None:
    config = tiny_config(seed=seed)
    wait()
    with suppress(UsageError, RunLockedError):
        claim_run(config, runs_dir, name)
        won.append(seed)


def test_a_name_that_somebody_else_claims_at_this_moment_is_left_to_them(tmp_path: Path) -> None:
    run = create_run_directory(tmp_path, "run", "stem")
    with locked(run), pytest.raises(RunLockedError):
        claim_run(tiny_config(), tmp_path, "run")
    assert not run.config.exists()


# --- What a frozen objective brings along --------------------------------------------------------

ABLATED = ("objective.without=['value', 'time']", "objective.normalise=false")


def recorded_objective(tmp_path: Path, *assignments: str) -> LearnedObjective:
    """What a meta-training with these settings writes down."""
    config = tiny_config(assignments=assignments)
    run = create_run_directory(tmp_path, "run", "stem")
    recorder = Recorder(run, config, objective_shape(config), agent_specs(config), None)
    status = ExchangeStatus(3, gradient_norm=1.0, skipped_gradients=0, barren_meetings=0)
    return recorder.objective(fresh_objective(config), status, 2)


@pytest.mark.parametrize("assignments", [(), ABLATED], ids=["whole", "ablated"])
def test_a_meta_test_computes_what_was_trained(tmp_path: Path, assignments) -> None:
    trained = recorded_objective(tmp_path, *assignments)
    brought = settings_of_objective(trained)["objective"]
    tested = tiny_config(("pendulum",), kind="meta-test", objective=brought)
    check_objective_fits(tested, trained)
    assert objective_shape(tested) == trained.metadata.shape
    assert objective_shape(tested) == objective_shape(tiny_config(assignments=assignments))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("objective.without=[]", r"objective.without=\[\] contradicts .*\['time', 'value'\]"),
        ("objective.normalise=true", "objective.normalise=True contradicts .* False"),
    ],
)
def test_an_ablation_belongs_to_the_objective(tmp_path: Path, assignment, message) -> None:
    trained = recorded_objective(tmp_path, *ABLATED)
    other = [each for each in ABLATED if each.split("=")[0] != assignment.split("=")[0]]
    tested = tiny_config(("pendulum",), kind="meta-test", assignments=(*other, assignment))
    with pytest.raises(UsageError, match=message):
        check_objective_fits(tested, trained)
