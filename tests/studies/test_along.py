"""Which objectives of a meta-training are tested, with which settings."""

from pathlib import Path

import pytest

from mgrl_cli.errors import FileError, UsageError
from mgrl_cli.presets import META_TEST_STEPS
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.settings import write_settings
from mgrl_cli.studies.along import (
    along_of,
    check_copies,
    evenly_spaced,
    import_objectives,
    parse_along,
    plan_along,
    with_rounds_of,
)
from mgrl_cli.studies.directory import StudyDirectory
from mgrl_cli.studies.settings import TEST_SEED_OFFSET
from tests.runtime.conftest import tiny_config

GIVEN = {
    "run": "runs/r",
    "trained_on": ["pendulum"],
    "envs": ["reacher"],
    "rounds": [10, 20],
    "env_steps": [600, 1200],
    "sha256": ["0" * 64, "1" * 64],
    "preset": "smoke",
}


@pytest.mark.parametrize(
    ("rounds", "points", "chosen"),
    [
        ([10, 20, 30, 40, 50, 60, 70, 80, 90, 100], 5, [20, 40, 60, 80, 100]),
        ([10, 20, 30, 40, 50, 60, 65], 3, [20, 40, 65]),
        ([10, 20, 30], 1, [30]),
        ([10, 20, 30], 9, [10, 20, 30]),
        ([7], 5, [7]),
    ],
)
def test_points_are_even_and_the_last_is_one(
    rounds: list[int], points: int, chosen: list[int]
) -> None:
    assert evenly_spaced(rounds, points) == chosen


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"envs": []}, "'envs'"),
        ({"envs": ["reacher", "reacher"]}, "name one twice"),
        ({"against": ["learned"]}, "leave it out"),
        ({"env_steps": [600]}, "differ in length"),
        ({"sha256": []}, "differ in length"),
        ({"envs": ["a\x1b[2J"]}, "printable"),
        ({"points": 0}, "'points'"),
    ],
)
def test_a_mistake_is_refused(change: dict[str, object], part: str) -> None:
    assert parse_along(GIVEN).seeds == 3
    with pytest.raises(UsageError, match=part):
        parse_along({**GIVEN, **change})


def test_what_is_written_down_reads_back_the_same() -> None:
    along = parse_along({**GIVEN, "against": ["ddpg"], "steps": 120})
    assert parse_along(along.document) == along


@pytest.fixture
def training(tmp_path: Path) -> RunDirectory:
    """A training as far as a study reads it."""
    run = RunDirectory(tmp_path / "first")
    run.metrics.mkdir(parents=True)
    run.objectives.mkdir()
    write_settings(run, tiny_config(seed=5))
    run.objective_at(10).write_bytes(b"objective")
    return run


def test_tests_begin_from_the_settings_of_the_training(
    training: RunDirectory, tmp_path: Path
) -> None:
    study = StudyDirectory(tmp_path / "study", "progress")
    along = along_of(str(training.path), {"envs": ["reacher"], "against": ["ddpg"]}, tmp_path)
    import_objectives(along, study)
    for cell in plan_along(along, study).cells:
        config = cell.settings.resolved("test")
        assert config.policy.hidden == tiny_config().policy.hidden == 8  # the preset's is 32
        assert (config.kind, [env.id for env in config.envs]) == ("meta-test", ["reacher"])
        assert (config.steps, config.seeds) == (META_TEST_STEPS["smoke"], 3)
        assert config.seed == TEST_SEED_OFFSET
        words = cell.job.arguments
        assert words[words.index("--config") + 1] == str(study.objectives / "training.toml")


def test_a_preset_that_is_given_is_all_that_tests_begin_from(
    training: RunDirectory, tmp_path: Path
) -> None:
    study = StudyDirectory(tmp_path / "study", "progress")
    along = along_of(str(training.path), {"envs": ["reacher"], "preset": "smoke"}, tmp_path)
    import_objectives(along, study)
    (cell,) = plan_along(along, study).cells
    assert cell.settings.resolved("test").policy.hidden == 32
    assert "--config" not in cell.job.arguments


def test_copies_are_compared_with_what_the_study_began_with(
    training: RunDirectory, tmp_path: Path
) -> None:
    study = StudyDirectory(tmp_path / "study", "progress")
    begun = along_of(str(training.path), {"envs": ["reacher"]}, tmp_path)
    import_objectives(begun, study)
    check_copies(begun, study)
    training.objective_at(10).write_bytes(b"another")  # the study keeps its own
    write_settings(training, tiny_config(seed=6))
    again = with_rounds_of(along_of(str(training.path), {"envs": ["reacher"]}, tmp_path), begun)
    assert again == begun
    check_copies(again, study)
    for copy in sorted(study.objectives.iterdir()):
        content = copy.read_bytes()
        copy.write_bytes(content + b"#")
        with pytest.raises(FileError, match="is not what the study began with"):
            check_copies(begun, study)
        copy.write_bytes(content)
