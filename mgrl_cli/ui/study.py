"""The progress of a study: a table of its runs on a terminal, a line per change elsewhere.

Knows nothing of what the runs are for, of processes or of files.
"""

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol, TextIO, cast, final

from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from mgrl_cli.telemetry import JobSnapshot, StudySnapshot
from mgrl_cli.ui.columns import bar_text
from mgrl_cli.ui.event_text import event_text
from mgrl_cli.ui.guarded_stream import GuardedStream
from mgrl_cli.ui.live_frame import LiveFrame
from mgrl_cli.ui.number_text import MISSING, duration_text, percent_text
from mgrl_cli.ui.progress import can_show_live

_STATE_STYLES = {
    "waiting": "dim",
    "running": "green",
    "finished": "bold blue",
    "stopped": "yellow",
    "failed": "bold red",
    "blocked": "red",
}
_URGENCY = ("running", "failed", "blocked", "stopped", "waiting", "finished")
"""Where not all runs have room, those in the first of these states are shown."""
_BAR_WIDTH = 16
_MAX_BAR_WIDTH = 60
_NARROW_BELOW = 60
_OTHER_LINES = 5
"""Of a frame besides runs: title, table head, the line about hidden runs, the overall bar, one
that stays free so that the frame does not scroll."""


class StudyProgress(Protocol):
    """Takes snapshots of a study while it goes on."""

    def update(self, snapshot: StudySnapshot) -> None:
        """Show `snapshot`, as far as it is news."""
        ...


@contextmanager
def open_study_progress(*, quiet: bool, console: Console) -> Generator[StudyProgress]:
    """Open the progress that fits stderr: a live table, plain lines or nothing.

    Args:
        quiet: nothing.
        console: stderr.
    """
    with ExitStack() as stack:
        if quiet:
            yield _Silence()
        elif can_show_live(console):
            yield stack.enter_context(LiveFrame(console, render_study))
        else:
            yield PlainStudy(cast("TextIO", console.file))


@final
class _Silence:
    def update(self, snapshot: StudySnapshot) -> None:
        """Show nothing."""


@final
class PlainStudy:
    """Writes a line of plain ASCII for each run that changes its state."""

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`; what is finished at the first update gets one line together."""
        self._stream = GuardedStream(stream)
        self._states: dict[str, str] | None = None

    def update(self, snapshot: StudySnapshot) -> None:
        """Write a line for each run whose state is another than at the last update.

        Raises:
            StorageError: the stream cannot be written for another reason than a closed pipe.
        """
        if self._states is None:
            finished = sum(job.state == "finished" for job in snapshot.jobs)
            self._write(
                f"{snapshot.kind} {snapshot.name}: {len(snapshot.jobs)} runs, {finished} finished"
            )
            self._states = {
                job.name: "finished" if job.state == "finished" else "waiting"
                for job in snapshot.jobs
            }
        for job in snapshot.jobs:
            if self._states[job.name] != job.state:
                self._states[job.name] = job.state
                self._write(job_line(job, snapshot))

    def _write(self, text: str) -> None:
        line = event_text(text).replace(MISSING, "-")
        self._stream.write(line.encode("ascii", "backslashreplace").decode("ascii") + "\n")


def job_line(job: JobSnapshot, snapshot: StudySnapshot) -> str:
    """Return one line about a run whose state has changed."""
    finished = sum(other.state == "finished" for other in snapshot.jobs)
    line = (
        f"{job.name} {job.state}  {finished}/{len(snapshot.jobs)} runs  "
        f"({percent_text(snapshot.fraction)})  ETA {duration_text(snapshot.eta_s)}"
    )
    return f"{line}  {job.problem}" if job.problem else line


def render_study(snapshot: StudySnapshot, *, width: int, height: int | None) -> RenderableType:
    """Return the whole view: a line per run, overall progress below.

    Args:
        snapshot: what to show.
        width: cells per line.
        height: lines of the terminal; None shows every run.
    """
    max_rows = len(snapshot.jobs) if height is None else max(1, height - _OTHER_LINES)
    shown = _most_urgent(snapshot.jobs, max_rows)
    lines: list[RenderableType] = [_title(snapshot), _jobs_table(shown, width)]
    if hidden := len(snapshot.jobs) - len(shown):
        counts = Counter(job.state for job in snapshot.jobs if job not in shown)
        states = ", ".join(f"{counts[state]} {state}" for state in _URGENCY if counts[state])
        text = Text(f"… and {hidden} more: {states}", style="dim")
        text.truncate(width, overflow="ellipsis")
        lines.append(text)
    return Group(*lines, _overall(snapshot, width))


def _title(snapshot: StudySnapshot) -> Rule:
    finished = sum(job.state == "finished" for job in snapshot.jobs)
    title = f"{snapshot.kind} {snapshot.name}  {finished}/{len(snapshot.jobs)} runs"
    return Rule(
        Text(title, style="bold", no_wrap=True, overflow="ellipsis"), align="left", style="dim"
    )


def _most_urgent(jobs: Sequence[JobSnapshot], max_rows: int) -> list[JobSnapshot]:
    """Return as many runs as have room, in their own order."""
    order = sorted(range(len(jobs)), key=lambda index: (_URGENCY.index(jobs[index].state), index))
    return [jobs[index] for index in sorted(order[:max_rows])]


def _jobs_table(jobs: Sequence[JobSnapshot], width: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    is_wide = width >= _NARROW_BELOW
    table.add_column(Text("run", style="dim"), no_wrap=True, overflow="ellipsis")
    if is_wide:
        table.add_column("", no_wrap=True)
    table.add_column(Text("%", style="dim"), justify="right", no_wrap=True, min_width=len("100%"))
    table.add_column(Text("state", style="dim"), no_wrap=True, overflow="ellipsis")
    for job in jobs:
        state = Text(job.state, style=_STATE_STYLES[job.state])
        if job.problem:
            state.append(f": {event_text(job.problem)}", style="default")
        bar = [Text(bar_text(job.fraction, _BAR_WIDTH), style="cyan")] if is_wide else []
        table.add_row(Text(event_text(job.name)), *bar, percent_text(job.fraction), state)
    return table


def _overall(snapshot: StudySnapshot, width: int) -> Text:
    figures = (
        f" {percent_text(snapshot.fraction)}  elapsed {duration_text(snapshot.elapsed_s)}"
        f"  ETA {duration_text(snapshot.eta_s)}"
    )
    bar_width = min(_MAX_BAR_WIDTH, max(0, width - len(figures)))
    bar = Text(bar_text(snapshot.fraction, bar_width), style="cyan", no_wrap=True, overflow="crop")
    return bar.append(figures, style="bold default")
