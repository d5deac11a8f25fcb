import shutil
from collections.abc import Callable
from pathlib import Path

from mgrl_cli.config import RunConfig
from mgrl_cli.inspection.describe_run import describe_run
from mgrl_cli.inspection.run import inspect_run
from mgrl_cli.inspection.sections import Facts, Table
from mgrl_cli.run_dir.layout import RunDirectory, create_run_directory
from mgrl_cli.run_dir.lock import locked
from mgrl_cli.run_dir.manifest import MANIFEST_NAME, read_manifest
from mgrl_cli.run_dir.settings import write_settings


def state_text(run: RunDirectory) -> object:
    facts, *_ = describe_run(inspect_run(run.path))
    assert isinstance(facts, Facts)
    return dict(facts.items)["state"]


def test_a_finished_run_shows_its_checkpoints_by_age(finished: RunDirectory) -> None:
    report = inspect_run(finished.path)
    lines = report.keeping.checkpoints
    assert report.is_whole
    assert report.keeping.state == "finished"
    assert [line.name for line in lines] == ["round-000000", "round-000001", "round-000002"]
    assert [line.age_rounds for line in lines] == [2, 1, 0]
    best = read_manifest(finished.checkpoints / "round-000002" / MANIFEST_NAME).best
    assert [line.name for line in lines if line.is_best] == [best]
    table = next(
        section
        for section in describe_run(report)
        if isinstance(section, Table) and section.title == "Checkpoints"
    )
    assert [row[-1] for row in table.rows].count("best") == 1


def test_a_run_without_its_last_checkpoint_was_interrupted(finished: RunDirectory) -> None:
    shutil.rmtree(finished.checkpoints / "round-000002")
    assert state_text(finished) == "interrupted, saved after round 1"


def test_a_locked_run_is_running(finished: RunDirectory) -> None:
    with locked(finished):
        report = inspect_run(finished.path)
        text = str(state_text(finished))
    assert report.keeping.state == "running"
    assert text.startswith("running (pid ")
    assert text.endswith("), saved after round 2")


def test_a_run_that_has_only_begun_has_nothing_to_show(
    tmp_path: Path, config: Callable[..., RunConfig]
) -> None:
    run = create_run_directory(tmp_path, "new", "unused")
    write_settings(run, config("meta-train"))
    assert inspect_run(run.path).keeping.checkpoints == ()
    assert state_text(run) == "not begun, no checkpoint"


def test_the_objective_is_due_once_a_checkpoint_has_a_round(finished: RunDirectory) -> None:
    finished.objective.unlink()
    rows = finished.population_metrics.read_text().splitlines(keepends=True)
    finished.population_metrics.write_text(rows[0])
    missing = f"{finished.objective} is missing; restore it from a copy"
    assert inspect_run(finished.path).problems == (missing,)
    for name in ("round-000001", "round-000002"):
        shutil.rmtree(finished.checkpoints / name)
    assert str(finished.objective) in inspect_run(finished.path).absent


def test_damaged_checkpoints_are_problems_of_the_run(
    finished: RunDirectory, damage: Callable[[Path], None]
) -> None:
    damage(finished.checkpoints / "round-000001" / "agent-000.safetensors")
    report = inspect_run(finished.path)
    assert not report.is_whole
    (problem,) = report.problems
    assert "round-000001/agent-000.safetensors" in problem
    assert len(report.keeping.checkpoints) == 2


def test_rounds_are_done_without_those_in_quarantine(finished: RunDirectory) -> None:
    path = finished.checkpoints / "round-000002" / MANIFEST_NAME
    changes = {"quarantined": {"agent-001": "it diverged"}}
    path.write_bytes(read_manifest(path).model_copy(update=changes).to_bytes())
    metrics = finished.agent_metrics(1)
    metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])
    report = inspect_run(finished.path)
    assert report.rounds_done == 2
    assert "agent-001 is out of the population: it diverged" in report.warnings


def test_a_part_that_the_system_refuses_to_read_hides_nothing(finished: RunDirectory) -> None:
    # The only refusal that root meets too: a directory where a chunk should be.
    reward = finished.agent_buffer(0) / "reward" / "c" / "0"
    reward.unlink()
    reward.mkdir()
    report = inspect_run(finished.path)
    assert not report.is_whole
    assert report.objective is not None
    assert report.buffer is not None
