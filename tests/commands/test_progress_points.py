"""Which test seed a point of `mgrl progress` stands for."""

import math
from pathlib import Path

from mgrl_cli.commands.progress import progress_points
from mgrl_cli.studies.along import parse_along, plan_along
from mgrl_cli.studies.directory import StudyDirectory


def test_a_seed_without_a_score_does_not_shift_the_others() -> None:
    along = parse_along(
        {
            "run": "trained",
            "trained_on": ["cartpole"],
            "envs": ["pendulum"],
            "rounds": [10, 20],
            "env_steps": [100, 200],
            "sha256": ["ab" * 32] * 2,
            "preset": "smoke",
            "against": ["ddpg"],
        }
    )
    plan = plan_along(along, StudyDirectory(Path("runs/p"), "progress"))
    scores = {("learned: round 10", "pendulum"): {0: 1.0, 2: 3.0}}
    points = progress_points(plan, scores)
    assert [(it.train_env_steps, it.seed) for it in points] == [
        (100, 0), (100, 1), (100, 2), (200, 0), (200, 1), (200, 2),
    ]  # fmt: skip
    assert [points[0].score, points[2].score] == [1.0, 3.0]
    assert all(math.isnan(points[it].score) for it in (1, 3, 4, 5))
