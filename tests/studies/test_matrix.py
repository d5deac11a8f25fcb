"""What a matrix is made of, and the runs that follow from it."""

from pathlib import Path

import pytest

from mgrl_cli.errors import UsageError
from mgrl_cli.presets import META_TEST_STEPS, PRESETS
from mgrl_cli.studies.directory import StudyDirectory
from mgrl_cli.studies.matrix import completed, parse_matrix, training_of
from mgrl_cli.studies.plan import plan_matrix

STUDY = StudyDirectory(Path("runs/m"), "matrix")


def plan_of(**settings: object):
    document = {"preset": "smoke", "test": [{"env": "reacher"}], **settings}
    return plan_matrix(completed(parse_matrix(document, source="test"), Path("runs")), STUDY)


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
        seed = training.arguments[training.arguments.index("--seed") + 1]
        assert seed == cell.job.arguments[cell.job.arguments.index("--seed") + 1]
        assert cell.meta_seed == int(seed)
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
    ],
)
def test_a_mistake_is_refused_before_anything_runs(settings: dict[str, object], part: str) -> None:
    with pytest.raises(UsageError) as error:
        plan_of(**settings)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_train_names_a_run_where_there_is_one_and_environments_elsewhere(tmp_path: Path) -> None:
    for name in ("first", "pendulum"):
        (tmp_path / name / "metrics").mkdir(parents=True)
        (tmp_path / name / "config.toml").touch()
    assert training_of("first", tmp_path) == {"run": "first"}
    assert training_of("pendulum", tmp_path) == {"envs": ["pendulum"]}
    assert training_of(str(tmp_path / "pendulum"), tmp_path)["run"].endswith("pendulum")
    assert training_of("lunar:3, cheetah:1", tmp_path) == {"envs": ["lunar:3", "cheetah:1"]}
