"""What a study says of runs that did not come to their end."""

import signal
from pathlib import Path

import pytest

from mgrl_cli.studies.directory import StudyDirectory
from mgrl_cli.studies.execution import StudyIncomplete, interruption, raise_failures
from mgrl_cli.studies.jobs import Job
from mgrl_cli.studies.queue import JobState, JobStatus

STUDY = StudyDirectory(Path("runs/m"), "matrix")


def status(name: str, state: JobState, exit_code: int = 0, problem: str = "") -> JobStatus:
    job = Job(
        name=name, run=Path(name), arguments=(), agents=1, agent_steps=1, num_rounds=1, needs=()
    )
    return JobStatus(
        job=job,
        state=state,
        fraction=0.5,
        was_finished=False,
        exit_code=exit_code,
        problem=problem,
    )


def test_an_interrupted_study_claims_that_all_is_saved_only_where_it_is() -> None:
    saved = [status("a", JobState.FINISHED), status("b", JobState.STOPPED)]
    error = interruption(saved, signal.SIGINT, "go on")
    assert error.exit_code == 130
    assert str(error) == (
        "SIGINT ended the study after 1 of 2 runs, all that had begun is saved; go on"
    )
    full = status("c", JobState.FAILED, 7, "exit code 7: no space left")
    error = interruption([*saved, full], signal.SIGTERM, "go on")
    assert error.exit_code == 143
    assert str(error) == (
        "SIGTERM ended the study after 1 of 3 runs, failed: c (exit code 7: no space left); go on"
    )


@pytest.mark.parametrize(
    ("codes", "expected"), [((4, 5), 4), ((1,), 1), ((7, 137), 7), ((137,), 5), ((130, 2), 5)]
)
def test_failures_end_a_study_with_an_exit_code_of_ours(
    codes: tuple[int, ...], expected: int
) -> None:
    failed = [status(f"r{i}", JobState.FAILED, code) for i, code in enumerate(codes)]
    statuses = [status("a", JobState.FINISHED), *failed, status("z", JobState.BLOCKED)]
    with pytest.raises(StudyIncomplete, match="--resume runs/m") as error:
        raise_failures(STUDY, statuses)
    assert error.value.exit_code == expected
    raise_failures(STUDY, statuses[:1])
