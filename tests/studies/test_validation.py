"""What the end of a validation's test tells of the objective, and what only of the machine."""

from pathlib import Path

import pytest

from mgrl_cli.cores import usable_cores
from mgrl_cli.errors import (
    FileError,
    MgrlError,
    RunLockedError,
    StorageError,
    UsageError,
    WorkerError,
)
from mgrl_cli.run_dir.atomic import write_atomically
from mgrl_cli.run_dir.build import this_build
from mgrl_cli.run_dir.file_record import FileRecord
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.manifest import MANIFEST_NAME, Manifest
from mgrl_cli.run_dir.validations import WORKER_LOST
from mgrl_cli.studies.jobs import Job
from mgrl_cli.studies.queue import JobState, JobStatus
from mgrl_cli.studies.validation import (
    forget_decimated,
    is_score,
    refuse_decimated,
    refuse_hopeless,
    validation_queue,
)

FAILING = "no agent is left (agent-000: 20 episodes in a row failed, the last with: KeyError)"
KILLED = f"no agent is left (agent-000: {WORKER_LOST} 4 times in a row, the last time: killed)"


def job(run: Path) -> Job:
    return Job(name=run.name, run=run, arguments=(), agents=1, agent_steps=1, num_rounds=1)


def status(run: Path, exit_code: int, problem: str) -> JobStatus:
    return JobStatus(
        job=job(run),
        state=JobState.FAILED,
        fraction=0.5,
        was_finished=False,
        exit_code=exit_code,
        problem=problem,
    )


def save(run: RunDirectory, quarantined: dict[str, str]) -> None:
    manifest = Manifest(
        kind="meta-test",
        rounds=1,
        updates=0,
        elapsed_s=0.0,
        settings_sha256="0" * 64,
        build=this_build(),
        files={},
        config=FileRecord.of(b""),
        metrics={},
        replay={},
        quarantined=quarantined,
        barren_meetings=0,
        evaluations={},
        best="",
    )
    write_atomically(run.checkpoints / manifest.name / MANIFEST_NAME, manifest.to_bytes())


def test_what_the_machine_did_is_no_score(tmp_path: Path) -> None:
    assert is_score(status(tmp_path, 6, "training diverged, no agent is left"))
    assert is_score(status(tmp_path, 5, FAILING))
    assert not is_score(status(tmp_path, 5, KILLED))
    for code in (1, 2, 3, 4, 7, 137):
        assert not is_score(status(tmp_path, code, FAILING))
    save(RunDirectory(tmp_path), {"agent-001": f"{WORKER_LOST} 4 times in a row"})
    assert not is_score(status(tmp_path, 5, FAILING))


def test_a_test_that_lost_an_agent_to_the_machine_is_refused_and_made_anew(tmp_path: Path) -> None:
    one = job(tmp_path / "one")
    run = RunDirectory(one.run)
    save(run, {"agent-001": "20 episodes in a row failed"})
    refuse_decimated(one)
    forget_decimated(run)
    assert run.path.exists()
    save(run, {"agent-001": f"{WORKER_LOST} 4 times in a row"})
    with pytest.raises(WorkerError, match=r"one: an agent was left out: its worker was lost"):
        refuse_decimated(one)
    forget_decimated(run)
    assert not run.path.exists()


@pytest.mark.parametrize("kind", [UsageError, RunLockedError, FileError, WorkerError, StorageError])
def test_a_failure_keeps_its_exit_code(tmp_path: Path, kind: type[MgrlError]) -> None:
    with pytest.raises(kind, match="mend that and continue with mgrl resume"):
        refuse_hopeless(status(tmp_path, kind.exit_code, "no"), is_last_try=False)


@pytest.mark.parametrize("exit_code", [1, 137])
def test_a_sudden_death_is_forgiven_until_the_last_try(tmp_path: Path, exit_code: int) -> None:
    refuse_hopeless(status(tmp_path, exit_code, "killed"), is_last_try=False)
    with pytest.raises(WorkerError):
        refuse_hopeless(status(tmp_path, exit_code, "killed"), is_last_try=True)


@pytest.mark.parametrize(("workers", "expected"), [(3, 3), (0, None), (None, None)])
def test_tests_take_no_more_workers_than_the_training(
    tmp_path: Path, workers: int | None, expected: int | None
) -> None:
    queue = validation_queue(RunDirectory(tmp_path), 1, [], workers)
    assert queue.workers == (expected or usable_cores())
