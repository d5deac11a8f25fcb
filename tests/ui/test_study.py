"""What a study's progress looks like."""

import io
from dataclasses import replace

from rich.console import Console

from mgrl_cli.telemetry import JobSnapshot, StudySnapshot
from mgrl_cli.ui.live_frame import LiveFrame
from mgrl_cli.ui.study import PlainStudy, render_study
from tests.ui.test_live import Terminal, open_console, screen_of, shown_lines


def job(name: str, state: str, fraction: float = 0.0, problem: str = "") -> JobSnapshot:
    return JobSnapshot(name=name, state=state, fraction=fraction, problem=problem)


STUDY = StudySnapshot(
    name="first",
    kind="matrix",
    jobs=(
        job("train-a", "finished", 1.0),
        job("test-a.hopper", "running", 0.5),
        job("test-ddpg.hopper", "failed", 0.25, "exit code 5: it broke"),
        job("test-ppo.hopper", "waiting"),
    ),
    fraction=0.4375,
    elapsed_s=65.0,
    eta_s=3723.0,
)


def rendered(snapshot: StudySnapshot, width: int, height: int | None) -> list[str]:
    console = Console(file=io.StringIO(), width=width, legacy_windows=False)
    console.print(render_study(snapshot, width=width, height=height))
    return console.file.getvalue().splitlines()


def test_a_line_per_run_and_the_whole_below() -> None:
    lines = rendered(STUDY, 80, None)
    assert lines[0].startswith("matrix first  1/4 runs ")
    assert lines[3].split() == ["test-a.hopper", "━━━━━━━━┄┄┄┄┄┄┄┄", "50%", "running"]
    assert lines[4].rstrip().endswith("25% failed: exit code 5: it broke")
    assert lines[-1].endswith("43%  elapsed 1:05  ETA 1:02:03")


def test_a_low_terminal_keeps_what_is_urgent() -> None:
    many = replace(STUDY, jobs=(*STUDY.jobs, *(job(f"w{i}", "waiting") for i in range(40))))
    lines = rendered(many, 80, 10)
    assert len(lines) == 9
    text = "\n".join(lines)
    assert "test-a.hopper" in text
    assert "it broke" in text
    assert "train-a" not in text
    assert "… and 39 more: 38 waiting, 1 finished" in text


def test_nothing_is_wider_than_the_terminal() -> None:
    long = replace(STUDY, name="x" * 200, jobs=(job("y" * 200, "failed", 0.1, "z" * 200),))
    for width in (20, 40, 80):
        assert max(len(line) for line in rendered(long, width, 24)) <= width


def test_plain_lines_tell_changes_only() -> None:
    stream = io.StringIO()
    progress = PlainStudy(stream)
    progress.update(STUDY)
    progress.update(replace(STUDY, fraction=0.45))
    finished = [replace(it, state="finished", fraction=1.0) for it in STUDY.jobs[1:2]]
    progress.update(replace(STUDY, jobs=(STUDY.jobs[0], *finished, *STUDY.jobs[2:])))
    assert stream.getvalue().splitlines() == [
        "matrix first: 4 runs, 1 finished",
        "test-a.hopper running  1/4 runs  (43%)  ETA 1:02:03",
        "test-ddpg.hopper failed  1/4 runs  (43%)  ETA 1:02:03  exit code 5: it broke",
        "test-a.hopper finished  2/4 runs  (43%)  ETA 1:02:03",
    ]


def test_hostile_names_stay_on_their_line() -> None:
    stream = io.StringIO()
    PlainStudy(stream).update(
        replace(STUDY, jobs=(job("a\x1b[2J\nb", "running"),), eta_s=float("nan"))
    )
    assert stream.getvalue().splitlines()[1:] == [r"a\x1b[2J b running  0/1 runs  (43%)  ETA -"]


def test_the_live_table_stays_with_all_runs() -> None:
    terminal = Terminal()
    with LiveFrame(open_console(terminal, height=12), render_study) as view:
        view.update(STUDY)
        view.update(replace(STUDY, fraction=0.9))
    screen = screen_of(terminal.getvalue())
    lines = shown_lines(screen)
    assert sum("matrix first" in line for line in lines) == 1
    assert sum("hopper" in line for line in lines) == 3
    assert "90%" in lines[-1]
    assert not screen.cursor.hidden
