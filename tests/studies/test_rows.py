"""What a study's rows know of the runs behind them: how they ended, and what trained them."""

import json
from pathlib import Path

import numpy as np
import pytest

from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.objective_file import LearnedObjective, ObjectiveMetadata
from mgrl_cli.run_dir.build import this_build
from mgrl_cli.run_dir.file_record import FileRecord
from mgrl_cli.run_dir.layout import RunDirectory, create_run_directory
from mgrl_cli.run_dir.manifest import MANIFEST_NAME, Manifest, checkpoint_name
from mgrl_cli.run_dir.settings import write_settings
from mgrl_cli.studies.directory import StudyDirectory
from mgrl_cli.studies.matrix import completed, parse_matrix
from mgrl_cli.studies.plan import Cell, plan_matrix
from mgrl_cli.studies.rows import rows_of
from mgrl_cli.studies.table import cell_scores, planned_cells

STEPS = 500
RECORD = FileRecord.of(b"abc")


@pytest.fixture
def cells(tmp_path: Path) -> tuple[Cell, ...]:
    """A learned row and a hand-written one, two seeds each; their runs do not exist yet."""
    document = {
        "preset": "smoke",
        "train": [{"envs": ["cartpole"], "name": "a"}],
        "test": [{"env": "pendulum"}],
        "objectives": ["learned", "ddpg"],
        "seeds": 2,
        "steps": STEPS,
        "train_steps": 1000,
    }
    matrix = completed(parse_matrix(document, source="test"), tmp_path, None)
    return plan_matrix(matrix, StudyDirectory(tmp_path / "m", "matrix")).cells


def make(cell: Cell, ends: dict[int, int]) -> RunDirectory:
    """Write the run of a cell with an evaluation of each seed at its last env steps."""
    run = create_run_directory(cell.job.run.parent, cell.job.run.name, "stem")
    write_settings(run, cell.settings.resolved("test"))
    rule = cell.settings.rule
    for seed, env_steps in ends.items():
        record = {"rule": rule, "environment": "pendulum", "seed": seed, "env_steps": env_steps}
        record |= {"evaluation": 1.0, "mean_return": None}
        run.agent_metrics(seed).write_text(f"{json.dumps(record)}\n")
    return run


def save(run: RunDirectory, cell: Cell, *, rounds: int, quarantined: dict[str, str]) -> None:
    manifest = Manifest(
        kind="meta-test", rounds=rounds, updates=0, elapsed_s=1.0,
        settings_sha256=RECORD.sha256, build=this_build(), files={}, config=RECORD, metrics={},
        replay={}, quarantined=quarantined, barren_meetings=0, evaluations={},
        best=checkpoint_name(rounds, 0),
    )  # fmt: skip
    directory = run.checkpoints / manifest.name
    directory.mkdir(parents=True)
    (directory / MANIFEST_NAME).write_bytes(manifest.to_bytes())


def states(cell: Cell) -> list[tuple[int, str]]:
    return [(row.evaluation.seed, row.state) for row in rows_of([cell])]


def test_a_run_says_how_it_ended(cells: tuple[Cell, ...]) -> None:
    ddpg = cells[1]
    assert states(ddpg) == []
    run = make(ddpg, {0: STEPS, 1: 100})
    assert states(ddpg) == [(0, "unfinished"), (1, "unfinished")]  # nothing was saved
    save(run, ddpg, rounds=ddpg.job.num_rounds - 1, quarantined={})
    assert states(ddpg) == [(0, "unfinished"), (1, "unfinished")]
    save(run, ddpg, rounds=ddpg.job.num_rounds, quarantined={"agent-001": "diverged"})
    assert states(ddpg) == [(0, "finished"), (1, "quarantined")]


def test_an_early_end_near_the_planned_one_is_told_too(cells: tuple[Cell, ...]) -> None:
    ddpg = cells[1]
    run = make(ddpg, {0: STEPS, 1: STEPS - 1})
    save(run, ddpg, rounds=ddpg.job.num_rounds, quarantined={"agent-001": "diverged"})
    (cell,) = cell_scores(rows_of([ddpg]), planned_cells(cells))
    assert cell.has_early_ends
    assert (
        "1 of 2 runs quarantined, scored where they ended: at 499 of 500 env steps" in cell.remarks
    )


def test_env_steps_of_a_training_are_those_it_made(cells: tuple[Cell, ...]) -> None:
    learned = cells[0]
    run = make(learned, {0: STEPS})
    metadata = ObjectiveMetadata(
        window_steps=7, window_batch=4, inner_step="unit", inner_step_size=0.03,
        environments=("cartpole",), steps_per_agent=750, agents=1, meta_steps=1, seed=0,
        packages={},
    )  # fmt: skip
    params = ObjectiveNetwork(metadata.shape).initialise(np.random.default_rng(0))
    LearnedObjective(params, metadata).save(run.objective)
    assert learned.train_env_steps == 1000  # planned; patience ended it before
    assert [row.train_env_steps for row in rows_of([learned])] == [750]
