"""Real tests of an objective on the way: stopped and killed while they go on, then continued.

The logic around them, with scripted tests, is in `tests/runtime/test_validation.py`.
"""

import json
import signal
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from mgrl_cli.cli import main
from mgrl_cli.inspection.verify_run import verify_run
from mgrl_cli.run_dir.checkpoints import checkpoint_paths
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.metrics import read_agent_metrics
from tests.faults.processes import litter, running, session_of, wait_until
from tests.runtime.conftest import TINY, fingerprint

WATCH = ("validation.envs=['cartpole']", "validation.seeds=1", "validation.steps=120")


def watching(runs_dir: Path) -> list[str]:
    """The command line of a run of two rounds with a validation at its end."""
    words = ["meta-train", "--envs", "pendulum", "--agents", "1", "--preset", "smoke", "--quiet"]
    words += ["--steps", "120", "--runs-dir", str(runs_dir), "--run", "run", "--workers", "0"]
    for setting in (*TINY, *WATCH):
        words += ["--set", setting]
    return words


def outcome(run: RunDirectory) -> dict[str, object]:
    """Everything that must not depend on how the run came to its end."""
    test = RunDirectory(run.validation_at(2) / "cartpole")
    rows = [{**row, "elapsed_s": 0} for row in read_agent_metrics(test.metrics)]
    return {**fingerprint(run), "best": run.best_objective.read_bytes(), "test": rows}


@cache
def undisturbed() -> dict[str, object]:
    """What such a run leaves if nothing happens to it."""
    with tempfile.TemporaryDirectory() as directory:
        assert main(watching(Path(directory))) == 0
        run = RunDirectory(Path(directory) / "run")
        assert not [problem for part in verify_run(run.path) for problem in part.problems]
        (row,) = map(json.loads, run.validation_metrics.read_text().splitlines())
        assert (row["round"], row["best_round"]) == (2, 2)
        assert row["seed_scores"]["cartpole"] == [row["scores"]["cartpole"]]
        assert run.best_objective.read_bytes() == run.objective.read_bytes()
        return outcome(run)


@pytest.mark.parametrize(
    ("number", "is_far_enough"),
    [
        (signal.SIGINT, lambda test: test.config.is_file()),
        pytest.param(
            signal.SIGKILL, lambda test: any(checkpoint_paths(test)), marks=pytest.mark.slow
        ),
        pytest.param(
            signal.SIGTERM, lambda test: any(checkpoint_paths(test)), marks=pytest.mark.slow
        ),
        pytest.param(signal.SIGKILL, lambda test: test.path.exists(), marks=pytest.mark.slow),
    ],
)
def test_a_run_disturbed_within_a_validation_is_continued_exactly(
    tmp_path: Path, number: signal.Signals, is_far_enough: Callable[[RunDirectory], bool]
) -> None:
    run = RunDirectory(tmp_path / "run")
    test = RunDirectory(run.validation_at(2) / "cartpole")
    with running(watching(tmp_path)) as process:
        wait_until(lambda: is_far_enough(test), process)
        process.send_signal(number)
        _, said = process.communicate()
        if number != signal.SIGKILL:
            assert process.returncode == 128 + number, said
            assert "continue with: mgrl resume" in said
        wait_until(lambda: not session_of(process.pid))
    assert checkpoint_paths(run)[-1].name == "round-000002"
    assert main(["resume", str(run.path), "--workers", "0", "--quiet"]) == 0
    assert outcome(run) == undisturbed()
    assert litter(run) == []
