"""Jobs as real processes: failures, what depends on them, signals, and death of the study."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.lock import locked
from mgrl_cli.studies.child import Child
from mgrl_cli.studies.jobs import Job, command_of, forget_unsaved, fraction_of, is_finished
from mgrl_cli.studies.queue import JobState, JobStatus, Queue, failures
from tests.faults.processes import assert_soon_gone, wait_until


def job(name: str, runs: Path, *arguments: str, needs: tuple[str, ...] = ()) -> Job:
    return Job(
        name=name,
        run=runs / name,
        arguments=arguments,
        agents=2,
        agent_steps=100,
        num_rounds=4,
        needs=needs,
    )


def test_a_failure_stops_only_what_needs_it(tmp_path: Path) -> None:
    failing = job("fails", tmp_path, "meta-train", "--envs", "pendulm")
    dependent = job("waits", tmp_path, "meta-test", needs=("fails",))
    other = job("other", tmp_path, "meta-test", "--env", "pendulum", "--objective", "absent.x")
    shown: list[list[JobState]] = []
    queue = Queue([failing, dependent, other], tmp_path / "log", workers=2)
    queue.execute(lambda statuses: shown.append([it.state for it in statuses]), lambda: None)
    first, second, third = queue.statuses
    assert (first.state, first.exit_code) == (JobState.FAILED, 2)
    assert "Did you mean 'pendulum'" in first.problem
    assert str(tmp_path / "log" / "fails.log") in first.problem
    assert (second.state, second.problem) == (
        JobState.BLOCKED,
        "needs fails, which has not finished",
    )
    assert (third.state, third.exit_code) == (JobState.FAILED, 4)
    assert list(failures(queue.statuses)) == ["fails", "waits", "other"]
    assert not queue.is_finished
    assert shown[-1] == [JobState.FAILED, JobState.BLOCKED, JobState.FAILED]


def test_nothing_starts_once_a_stop_is_asked_for(tmp_path: Path) -> None:
    queue = Queue([job("one", tmp_path, "envs")], tmp_path / "log")
    queue.execute(lambda _: None, lambda: signal.SIGINT)
    assert queue.statuses[0].state is JobState.WAITING
    assert not (tmp_path / "log").exists()


def test_children_are_gone_when_something_is_raised(tmp_path: Path) -> None:
    def fail(statuses: list[JobStatus]) -> None:
        raise KeyboardInterrupt

    queue = Queue([job("one", tmp_path, "doctor")], tmp_path / "log", workers=1)
    with pytest.raises(KeyboardInterrupt):
        queue.execute(fail, lambda: None)
    assert not [it for it in psutil.Process().children() if "doctor" in " ".join(it.cmdline())]


def test_a_new_run_gets_its_command_and_a_begun_one_is_resumed(tmp_path: Path) -> None:
    one = job("one", tmp_path, "meta-train", "--envs", "pendulum")
    words = command_of(one, workers=2)[3:]
    assert words[:3] == ["meta-train", "--envs", "pendulum"]
    assert words[3:] == [
        *("--run", "one", "--runs-dir", str(tmp_path), "--workers", "2", "--quiet"),
    ]
    (one.run / "metrics").mkdir(parents=True)
    (one.run / "config.toml").touch()
    assert command_of(one, 1)[3:] == ["resume", str(one.run), "--workers", "1", "--quiet"]
    assert not is_finished(one)


def test_a_run_that_had_saved_nothing_is_begun_anew(tmp_path: Path) -> None:
    one = job("one", tmp_path, "meta-test", "--env", "pendulum", "--objective", "absent.x")
    settle(one)
    queue = Queue([one], tmp_path / "log")
    queue.execute(lambda _: None, lambda: None)
    # The command that begins it was given, not resume, which would say that it has no objective.
    assert "'absent.x'" in queue.statuses[0].problem
    assert not one.run.exists()


def settle(one: Job) -> None:
    """Leave what a run has that was killed right after it had claimed its directory."""
    (one.run / "metrics").mkdir(parents=True)
    (one.run / "metrics" / "agent-000.jsonl").touch()
    (one.run / "config.toml").write_text("kind = 'meta-test'")


def test_a_run_with_anything_to_lose_is_kept(tmp_path: Path) -> None:
    one = job("one", tmp_path)
    settle(one)
    with locked(RunDirectory(one.run)):  # somebody resumes it by hand
        forget_unsaved(one)
    assert one.run.exists()
    checkpoint = one.run / "checkpoints" / "round-000001"  # damaged, and not ours to judge
    checkpoint.mkdir(parents=True)
    forget_unsaved(one)
    assert one.run.exists()
    checkpoint.rmdir()
    metrics = one.run / "metrics" / "agent-000.jsonl"
    metrics.write_text("{}\n")  # of rounds whose checkpoints are gone
    forget_unsaved(one)
    assert one.run.exists()
    metrics.write_text("")
    forget_unsaved(one)
    assert not one.run.exists()


def test_a_fraction_is_that_of_the_last_whole_line(tmp_path: Path) -> None:
    one = job("one", tmp_path)
    metrics = one.run / "metrics" / "population.jsonl"
    assert fraction_of(one) == 0.0
    metrics.parent.mkdir(parents=True)
    for content, fraction in (
        ("", 0.0),
        ('{"round": 1}\n', 0.25),
        ('{"round": 1}\n{"round": 2}\n{"rou', 0.5),
        ('{"round": 9}\n', 1.0),
        ("nonsense\n", 0.0),
        ("[]\n", 0.0),
    ):
        metrics.write_text(content)
        assert fraction_of(one) == fraction


def test_a_child_says_how_it_ended_and_what_it_said_last(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("from before\n")
    silent = Child([sys.executable, "-c", ""], log)
    wait_until(lambda: silent.poll() is not None)
    assert (silent.poll(), silent.last_words()) == (0, "")
    program = "import sys; print('first'); print('last', file=sys.stderr); sys.exit(7)"
    child = Child([sys.executable, "-uc", program], log)
    wait_until(lambda: child.poll() is not None)
    assert (child.poll(), child.last_words()) == (7, "last")
    killed = Child([sys.executable, "-c", "import time; time.sleep(100)"], log)
    killed.kill()
    assert killed.poll() == 128 + signal.SIGKILL


def test_nobody_is_left_when_the_study_is_killed(tmp_path: Path) -> None:
    program = f"""
import sys, time
from pathlib import Path
from mgrl_cli.studies.child import Child
sleeping = [sys.executable, "-c", "import time; time.sleep(100)"]
child = Child(sleeping, Path({str(tmp_path)!r}, "log"))
print("started", flush=True)
time.sleep(100)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as study:
        assert study.stdout is not None
        assert study.stdout.readline() == "started\n"
        os.kill(study.pid, signal.SIGKILL)
        study.wait()
        assert_soon_gone(study.pid)
