"""Validations on the way: they change nothing, and come out the same however a run was disturbed.

Tests of the objective are scripted here; real ones are in `tests/faults/test_validation_faults.py`.
"""

import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from mgrl_cli.cli import main
from mgrl_cli.config import RunConfig
from mgrl_cli.errors import FileError, Interrupted, UsageError
from mgrl_cli.inspection.run import inspect_run
from mgrl_cli.inspection.runs import list_runs
from mgrl_cli.inspection.verify_run import verify_run
from mgrl_cli.run_dir.checkpoints import checkpoint_paths
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.manifest import MANIFEST_NAME, Manifest, read_manifest
from mgrl_cli.runtime.launch import claim_run, meta_train
from mgrl_cli.runtime.resumption import resume, standing_of
from mgrl_cli.runtime.validation import Validator
from tests.runtime.conftest import Remembering, fingerprint, run_tiny, tiny_config
from tests.runtime.stopping import run_with_stops

SCORES = {1: 1.0, 2: 3.0, 3: 2.0, 4: 0.5}
"""Score of the objective after each round."""
SHORT = (
    "schedule.round_steps=20",
    "schedule.updates_start=20",
    "exploration.random_steps=20",
    "evaluation.interval=20",
)
WATCH = ("validation.envs=['reacher']", "validation.interval=1", "validation.seeds=1")


def config_of(*assignments: str) -> RunConfig:
    return tiny_config(envs=("cartpole",), agents=2, steps=80, assignments=(*SHORT, *assignments))


def scripted(
    scores: Mapping[int, float] = SCORES, disturb: Callable[[int], None] = lambda _: None
) -> Validator:
    """Return a validator that knows the scores beforehand, and is disturbed as it begins."""

    def validate(
        run: RunDirectory,
        round_index: int,
        stop_signal: Callable[[], int | None],
        show: Callable[[float], None],
    ) -> Mapping[str, Sequence[float]] | None:
        assert (run.validation_at(round_index) / "objective.safetensors").is_file()
        assert newest(run).rounds == round_index  # what is tested has been saved
        show(0.5)
        disturb(round_index)
        return None if stop_signal() is not None else {"reacher": [scores[round_index]]}

    return validate


def train(config: RunConfig, run: RunDirectory, validator: Validator, workers: int = 0) -> None:
    """Begin a run, or continue it where it has begun."""
    if run.checkpoints.exists():
        resume(run, Remembering(), workers=workers, say=lambda _: None, validator=validator)
    else:
        meta_train(config, run, Remembering(), workers=workers, validator=validator)


def newest(run: RunDirectory) -> Manifest:
    return read_manifest(checkpoint_paths(run)[-1] / MANIFEST_NAME)


def outcome(run: RunDirectory) -> dict[str, object]:
    """Everything that must not depend on how a run came to its end."""
    return {
        **fingerprint(run),
        "best": run.best_objective.read_bytes(),
        "record": newest(run).validation,
    }


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return config_of(*WATCH, "checkpoints.interval_s=0", "checkpoints.keep=20")


@pytest.fixture(scope="module")
def watched(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run that nothing disturbed."""
    run = claim_run(config, tmp_path_factory.mktemp("watched"), "run")
    train(config, run, scripted())
    return run


def test_training_is_what_it_is_without_validations(watched: RunDirectory, tmp_path: Path) -> None:
    alone = fingerprint(run_tiny(config_of(), tmp_path, "alone", workers=0))
    with_tests = fingerprint(watched)
    for part in ("objectives", "replay", "checkpoint"):
        assert with_tests[part] == alone[part]
    del with_tests["metrics"]["validation.jsonl"]  # type: ignore[attr-defined]
    assert with_tests["metrics"] == alone["metrics"]


def test_every_validation_is_recorded_and_the_best_objective_kept(watched: RunDirectory) -> None:
    rows = [json.loads(line) for line in watched.validation_metrics.read_text().splitlines()]
    assert [(row["round"], row["env_steps"], row["best_round"]) for row in rows] == [
        (1, 20, 1),
        (2, 40, 2),
        (3, 60, 2),
        (4, 80, 2),
    ]
    assert rows[2]["scores"] == {"reacher": 2.0}
    tested = watched.validation_at(2) / "objective.safetensors"
    assert watched.best_objective.read_bytes() == tested.read_bytes()
    assert tested.read_bytes() != watched.objective.read_bytes()
    record = newest(watched).validation
    assert record is not None
    assert (record.newest, record.best, record.is_over) == (4, 2, False)
    assert newest(watched).name == "round-000004-validated"
    assert standing_of(watched).is_finished


def test_processes_give_what_the_serial_twin_gives(
    config: RunConfig, watched: RunDirectory, tmp_path: Path
) -> None:
    run = claim_run(config, tmp_path, "run")
    train(config, run, scripted(), workers=2)
    assert outcome(run) == outcome(watched)


def test_a_run_stopped_again_and_again_ends_with_the_same_bits(
    config: RunConfig, watched: RunDirectory, tmp_path: Path
) -> None:
    run = claim_run(config, tmp_path, "run")
    rng = np.random.default_rng(0)
    beats = (int(rng.integers(1, 80 * 1.2**i)) for i in itertools.count())
    assert run_with_stops(lambda: train(config, run, scripted()), beats) >= 3
    assert outcome(run) == outcome(watched)


@pytest.mark.parametrize("round_index", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_a_stop_within_a_validation_is_continued_exactly(
    config: RunConfig, watched: RunDirectory, tmp_path: Path, round_index: int
) -> None:
    def stop(round_reached: int) -> None:
        if round_reached == round_index:
            os.kill(os.getpid(), signal.SIGINT)

    run = claim_run(config, tmp_path, "run")
    with pytest.raises(Interrupted, match=f"after round {round_index}"):
        train(config, run, scripted(disturb=stop))
    assert newest(run).name == f"round-{round_index:06d}"
    assert not standing_of(run).is_finished
    train(config, run, scripted())
    assert outcome(run) == outcome(watched)


@pytest.mark.parametrize("is_finished", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_crash_within_or_after_a_validation_is_continued_exactly(
    config: RunConfig, watched: RunDirectory, tmp_path: Path, is_finished: bool
) -> None:
    def crash(round_reached: int) -> None:
        if round_reached == 3:
            raise KeyError("power")

    run = claim_run(config, tmp_path, "run")
    with pytest.raises(KeyError):
        train(config, run, scripted(disturb=crash))
    if is_finished:  # as if it had died between the validation and the checkpoint after it
        shutil.copy(watched.validation_metrics, run.validation_metrics)
        shutil.copy(watched.objective, run.best_objective)
    train(config, run, scripted())
    assert outcome(run) == outcome(watched)


def test_a_run_cut_back_over_a_validation_judges_again(
    config: RunConfig, watched: RunDirectory, tmp_path: Path
) -> None:
    run = RunDirectory(shutil.copytree(watched.path, tmp_path / "run"))
    for path in checkpoint_paths(run):
        if path.name > "round-000003":
            shutil.rmtree(path)
    train(config, run, scripted())
    assert outcome(run) == outcome(watched)


def test_a_best_objective_that_is_another_one_is_refused(
    watched: RunDirectory, tmp_path: Path
) -> None:
    run = RunDirectory(shutil.copytree(watched.path, tmp_path / "run"))
    for path in checkpoint_paths(run):
        if path.name > "round-000003":
            shutil.rmtree(path)
    shutil.copy(run.objective, run.validation_at(2) / "objective.safetensors")
    with pytest.raises(FileError, match="is not the best objective that the checkpoint recorded"):
        resume(run, Remembering(), workers=0, say=lambda _: None, validator=scripted())


def test_a_run_that_gets_no_better_ends_early_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(*WATCH, "validation.patience=1")
    run, progress = claim_run(config, tmp_path, "run"), Remembering()
    meta_train(config, run, progress, workers=0, validator=scripted())
    why = "ended after round 3 of 4: none of the last 1 validations was better than that of round 2"
    assert progress.events[-1].startswith(why)
    # Round 3 is no multiple of 10, but the last one all the same.
    assert run.objective_at(3).read_bytes() == run.objective.read_bytes()
    assert [path.name for path in run.objectives.iterdir()] == ["round-000003.safetensors"]
    assert standing_of(run).is_finished
    before = outcome(run)
    assert main(["resume", str(run.path)]) == 0
    assert why in capsys.readouterr().err
    assert outcome(run) == before
    (line,) = list_runs(tmp_path)
    assert (line.state, line.rounds) == ("finished", 3)
    assert line.remark.startswith(why)
    report = inspect_run(run.path)
    assert report.keeping.early_end.startswith(why)
    assert [(line.round, line.is_best) for line in report.validations] == [
        (1, False),
        (2, True),
        (3, False),
    ]
    assert report.is_whole


def test_what_is_shown_tells_of_the_test_in_progress_and_the_best(
    config: RunConfig, tmp_path: Path
) -> None:
    run, progress = claim_run(config, tmp_path, "run"), Remembering()
    meta_train(config, run, progress, workers=0, validator=scripted())
    shown = [each.validation for each in progress.snapshots if each.validation is not None]
    assert {each.testing_round for each in shown if each.fraction == 0.5} >= {1, 2, 3, 4}
    last = shown[-1]
    assert (last.round_index, last.best_round, last.testing_round) == (4, 2, 0)
    assert (last.scores, last.best_scores) == ({"reacher": 0.5}, {"reacher": 3.0})
    assert "validation after round 4: reacher 0.5; the best so far is round 2" in progress.events


def test_verify_reads_the_best_objective(watched: RunDirectory, tmp_path: Path) -> None:
    run = RunDirectory(shutil.copytree(watched.path, tmp_path / "run"))
    assert not [problem for part in verify_run(run.path) for problem in part.problems]
    shutil.copy(run.objective, run.best_objective)
    (problem,) = [problem for part in verify_run(run.path) for problem in part.problems]
    assert "is not the best objective that round-000004-validated recorded" in problem


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        ((*WATCH, "evaluation.interval=0"), "leaves a validation of 1500"),
        ((*WATCH, "validation.steps=10"), "evaluation.interval=20 leaves a validation of 10"),
        (("validation.envs=['reacher', 'reacher']",), "name one twice"),
        ((*WATCH, "validation.interval=0"), "'validation.interval'"),
    ],
)
def test_settings_that_cannot_give_a_score_are_refused(
    assignments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        config_of(*assignments)
