"""What a matrix is made of, and the runs that follow from it."""

import shutil
from pathlib import Path

import pytest

from mgrl_cli.config import RunConfig
from mgrl_cli.errors import FileError, UsageError
from mgrl_cli.presets import META_TEST_STEPS, PRESETS
from mgrl_cli.run_dir.atomic import write_atomically
from mgrl_cli.run_dir.build import this_build
from mgrl_cli.run_dir.file_record import FileRecord
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.manifest import MANIFEST_NAME, Manifest, ValidationRecord
from mgrl_cli.run_dir.settings import write_settings
from mgrl_cli.studies.directory import StudyDirectory
from mgrl_cli.studies.matrix import (
    check_copies,
    completed,
    import_runs,
    parse_matrix,
    training_of,
)
from mgrl_cli.studies.plan import plan_matrix
from mgrl_cli.studies.settings import TEST_SEED_OFFSET
from tests.commands.tiny_runs import objective_file
from tests.runtime.conftest import tiny_config

STUDY = StudyDirectory(Path("runs/m"), "matrix")


def plan_of(**settings: object):
    document = {"preset": "smoke", "test": [{"env": "reacher"}], **settings}
    return plan_matrix(completed(parse_matrix(document, source="test"), Path("runs"), None), STUDY)


def test_every_row_is_tested_on_every_column_and_rules_once_per_column() -> None:
    plan = plan_of(
        train=[{"envs": ["pendulum", "cartpole"]}, {"envs": ["reacher"], "name": "own"}],
        test=[{"env": "reacher"}, {"env": "pendulum"}],
        objectives=["ddpg", "learned", "reinforce"],
    )
    assert [(cell.row, cell.environment, cell.is_seen) for cell in plan.cells] == [
        ("ddpg", "reacher", False),
        ("ddpg", "pendulum", False),
        ("learned: pendulum,cartpole", "reacher", False),
        ("learned: pendulum,cartpole", "pendulum", True),
        ("learned: own", "reacher", True),
        ("learned: own", "pendulum", False),
        ("reinforce", "reacher", False),
        ("reinforce", "pendulum", False),
    ]
    assert plan.environments == ("pendulum", "cartpole", "reacher")
    commands = [job.arguments[0] for job in plan.jobs]
    assert commands == ["meta-train"] * 2 + ["meta-test"] * 4 + ["baseline"] * 4
    assert len({job.name for job in plan.jobs}) == len({job.run for job in plan.jobs}) == 10


def test_a_test_needs_its_own_training_and_takes_its_objective() -> None:
    plan = plan_of(train=[{"envs": ["pendulum"]}, {"envs": ["cartpole"]}], meta_seeds=2, seed=5)
    trainings = {job.name: job for job in plan.jobs if job.arguments[0] == "meta-train"}
    assert len(trainings) == 4
    for cell in plan.cells:
        (need,) = cell.job.needs
        training = trainings[need]
        objective = cell.job.arguments[cell.job.arguments.index("--objective") + 1]
        assert objective == str(training.run / "objective.safetensors")
        seed = int(training.arguments[training.arguments.index("--seed") + 1])
        test_seed = int(cell.job.arguments[cell.job.arguments.index("--seed") + 1])
        assert test_seed == seed + TEST_SEED_OFFSET  # no agent that it was trained with
        assert cell.meta_seed == seed
    assert [cell.meta_seed for cell in plan.cells] == [5, 6, 5, 6]


def test_settings_reach_the_runs_they_are_meant_for() -> None:
    plan = plan_of(
        train=[
            {"envs": ["pendulum"], "name": "three", "set": ["meta.inner_steps=3"]},
            {"envs": ["pendulum"], "name": "wide", "test_set": ["policy.hidden=16"]},
        ],
        test=[{"env": "reacher", "set": ["evaluation.episodes=1"]}],
        objectives=["learned", "ddpg"],
        set=["critic.hidden=8"],
    )
    by_name = {job.name: job.arguments for job in plan.jobs}

    def sets(name: str) -> list[str]:
        words = by_name[name]
        return [words[i + 1] for i, word in enumerate(words) if word == "--set"]

    assert sets("train-three.seed-0") == ["critic.hidden=8", "meta.inner_steps=3"]
    assert sets("test-three.seed-0.reacher") == ["critic.hidden=8", "evaluation.episodes=1"]
    assert sets("test-wide.seed-0.reacher")[-1] == "policy.hidden=16"
    assert sets("test-ddpg.reacher") == ["critic.hidden=8", "evaluation.episodes=1"]


def test_work_is_counted_as_the_runs_will_make_it() -> None:
    plan = plan_of(train=[{"envs": ["pendulum:3", "cartpole:1"]}], seeds=4, train_steps=1000)
    training, test = plan.jobs
    assert (training.agents, training.agent_steps, training.num_rounds) == (4, 4000, 4)
    assert (test.agents, test.agent_steps) == (4, 4 * META_TEST_STEPS["smoke"])
    assert PRESETS["smoke"]["agents"] == 2  # which the counts override
    assert plan.cells[0].train_env_steps == 1000


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"objectives": ["dpg"], "train": []}, "Did you mean 'ddpg'?"),
        ({"objectives": ["learned"]}, "learned objectives need a --train"),
        ({"objectives": ["ddpg"], "train": [{"envs": ["pendulum"]}]}, "no cell would use"),
        ({"train": [{"envs": ["pendulum"]}] * 2}, "two rows are called 'pendulum'"),
        ({"train": [{"envs": ["pendulum"]}], "test": [{"env": "a"}] * 2}, "are called 'a'"),
        ({"train": [{}]}, "a row needs envs or the name of a run"),
        ({"train": [{"envs": ["pendulum"], "run": "x"}]}, "takes envs or a run"),
        ({"train": [{"run": "x", "set": ["a=1"]}]}, "is trained already"),
        ({"train": [{"envs": ["pendulum"], "typo": 1}]}, "'train.0.typo'"),
        ({"train": [{"envs": ["pendulum"]}], "seeds": 0}, "'seeds'"),
        ({"train": [{"envs": ["pendulum"]}], "set": ["meta.no=1"]}, "train-pendulum.seed-0: "),
        ({"train": [{"envs": ["pendulum"], "set": ["meta.inner_steps=x"]}]}, "meta.inner_steps"),
        ({"train": [{"envs": ["lunar:0"]}]}, "got 'lunar:0', expected at least one agent"),
        ({"train": [{"envs": ["pendulum"], "sha256": "0" * 64}]}, "found out; leave them out"),
        ({"train": [{"run": "x", "sha256": "0" * 64, "envs": ["a"]}]}, "found out; leave them out"),
        ({"train": [{"envs": ["a"], "name": "a\x1b[2J"}]}, r"got 'a\x1b[2J'"),
        ({"train": [{"envs": ["a"], "name": "a" * 101}]}, "at most 100 char"),
        ({"train": [{"envs": ["a\nb"]}]}, "printable characters on one line"),
        ({"train": [{"run": "a\nb"}]}, "printable characters on one line"),
        ({"train": [{"envs": ["a"], "ty\x1bpo\n": 1}]}, r"ty\x1bpo\n"),
        ({"objectives": ["ddpg"], "set": ["evaluation.interval=1501"]}, "a test of 1500 env steps"),
        ({"objectives": ["ddpg"], "set": ["evaluation.interval=0"]}, "without a score"),
        ({"objectives": ["ddpg"], "steps": 400}, "interval=500 leaves a test of 400"),
    ],
)
def test_a_mistake_is_refused_before_anything_runs(settings: dict[str, object], part: str) -> None:
    with pytest.raises(UsageError) as error:
        plan_of(**settings)
    assert part in str(error.value)
    assert str(error.value).isprintable()


def test_train_names_a_run_where_there_is_one_and_environments_elsewhere(tmp_path: Path) -> None:
    for name in ("first", "pendulum"):
        (tmp_path / name / "metrics").mkdir(parents=True)
        (tmp_path / name / "config.toml").touch()
    assert training_of("first", tmp_path, None) == {"run": "first"}
    assert training_of("pendulum", tmp_path, None) == {"envs": ["pendulum"]}
    assert training_of(str(tmp_path / "pendulum"), tmp_path, None)["run"].endswith("pendulum")
    assert training_of("lunar:3, cheetah:1", tmp_path, None) == {"envs": ["lunar:3", "cheetah:1"]}


DECIDED = (
    *("rules=['ddpg']", "seeds=9", "steps=9", "seed=9", "envs=[]", "agents=9", "kind='x'"),
    *("preset='paper'", " rules = ['ddpg']", "envs.id='x'"),
)


@pytest.mark.parametrize("assignment", DECIDED)
def test_what_the_study_decides_is_no_setting(assignment: str) -> None:
    key = assignment.split("=")[0].strip().split(".")[0]
    row, column = {"envs": ["pendulum"]}, {"env": "reacher"}
    for settings in (
        {"train": [row], "set": [assignment]},
        {"train": [{**row, "set": [assignment]}]},
        {"train": [{**row, "test_set": [assignment]}]},
        {"train": [row], "test": [{**column, "set": [assignment]}]},
        {"objectives": ["ddpg"], "set": [assignment]},
    ):
        with pytest.raises(UsageError, match=f"expected no '{key}'"):
            plan_of(**settings)


def test_validations_are_a_setting_of_trainings_alone_whose_best_objective_is_tested() -> None:
    watch = "validation.envs=['reacher']"
    plan = plan_of(train=[{"envs": ["pendulum"]}], objectives=["learned", "ddpg"], set=[watch])
    training, test, baseline = plan.jobs
    assert watch in training.arguments
    assert watch not in (*test.arguments, *baseline.arguments)
    objective = test.arguments[test.arguments.index("--objective") + 1]
    assert objective == str(training.run / "objective-best.safetensors")
    assert (plan.cells[0].row, plan.cells[0].training) == (
        "learned: pendulum (best)",
        "pendulum (best)",
    )
    for settings in (
        {"train": [{"envs": ["pendulum"], "test_set": [watch]}]},
        {"train": [{"envs": ["pendulum"]}], "test": [{"env": "reacher", "set": [watch]}]},
    ):
        with pytest.raises(UsageError, match="only trainings are validated"):
            plan_of(**settings)


def test_a_row_without_a_name_gets_one_that_fits() -> None:
    envs = [f"module:Environment{number:03d}-v0:1" for number in range(8)]
    name = plan_of(train=[{"envs": envs}]).cells[0].training
    assert (len(name), name[-1]) == (100, "…")
    assert ",".join(envs).startswith(name[:-1])


def finished_run(path: Path, config: RunConfig) -> RunDirectory:
    """A training as far as a matrix reads it."""
    run = RunDirectory(path)
    run.metrics.mkdir(parents=True)
    write_settings(run, config)
    objective_file(run.objective)
    is_tested = bool(config.validation.envs)
    manifest = Manifest(
        kind="meta-train",
        rounds=config.num_rounds,
        updates=0,
        elapsed_s=0.0,
        settings_sha256="0" * 64,
        build=this_build(),
        files={},
        config=FileRecord.of(b""),
        metrics={},
        replay={},
        quarantined={},
        barren_meetings=0,
        evaluations={},
        best="",
        validation=ValidationRecord(newest=config.num_rounds, best=0, objective=None, is_over=False)
        if is_tested
        else None,
    )
    write_atomically(run.checkpoints / manifest.name / MANIFEST_NAME, manifest.to_bytes())
    return run


def test_a_matrix_goes_on_with_its_copy_when_the_run_of_a_row_is_gone(tmp_path: Path) -> None:
    study = StudyDirectory(tmp_path / "m", "matrix")
    run = finished_run(tmp_path / "first", tiny_config())
    row = training_of("first", tmp_path, None)
    given = parse_matrix({"train": [row], "test": [{"env": "reacher"}]}, source="test")
    begun = completed(given, tmp_path, None)
    import_runs(begun, study, tmp_path)
    check_copies(begun, study)
    shutil.rmtree(run.path)
    with pytest.raises(FileError, match="no run 'first'"):
        completed(given, tmp_path, None)
    assert training_of("first", tmp_path, begun) == row
    assert completed(given, tmp_path, begun) == begun
    (copy,) = study.objectives.iterdir()
    copy.write_bytes(copy.read_bytes() + b" ")
    with pytest.raises(FileError, match="is not what the study began with"):
        check_copies(begun, study)


def test_a_run_with_validations_is_tested_by_its_best_objective(tmp_path: Path) -> None:
    study = StudyDirectory(tmp_path / "m", "matrix")
    config = tiny_config(assignments=("validation.envs=['reacher']",))
    run = finished_run(tmp_path / "first", config)
    given = parse_matrix({"train": [{"run": "first"}], "test": [{"env": "a"}]}, source="test")
    with pytest.raises(UsageError, match=r"has no objective-best\.safetensors"):
        completed(given, tmp_path, None)
    run.best_objective.write_bytes(run.objective.read_bytes())
    run.objective.write_bytes(b"the last one")
    begun = completed(given, tmp_path, None)
    import_runs(begun, study, tmp_path)
    check_copies(begun, study)
    (copy,) = study.objectives.iterdir()
    assert copy.read_bytes() == run.best_objective.read_bytes()
    assert begun.train[0].is_best
