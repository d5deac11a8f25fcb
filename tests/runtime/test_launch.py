"""Claiming a run: one name, one run, however many processes want it."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from mgrl_cli.errors import RunLockedError, UsageError
from mgrl_cli.run_dir.layout import RunDirectory, create_run_directory
from mgrl_cli.run_dir.lock import lock_holder, locked
from mgrl_cli.run_dir.settings import read_settings
from mgrl_cli.runtime.launch import claim_run
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
