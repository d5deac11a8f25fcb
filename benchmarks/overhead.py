"""What keeping and showing a run costs: the same meta-training with everything and with nothing.

*Everything*: replay log, metrics, TensorBoard events where installed, objective files, checkpoints
at their default interval besides the first and last one, status board, and the live view on a
pseudo-terminal. *Nothing*: the same run with each of them replaced by something that does nothing.

All agents run in one process, so that nothing hides on an idle core. There, a run shows itself
at round ends only; here it does so every second, as beside worker processes.

Two figures: the share of its time that a run with everything spends in what the other leaves out,
and how much longer than the other it takes. A busy host changes the second by more than it is. The
first leaves out the snapshots between round ends, which are those of the round's end here.

A run this short has its first and last checkpoint within seconds, not one a minute, so the share
is rather too high.
"""

import os
import pty
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, final
from unittest.mock import patch

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.measure import Effort, Result, in_turns, median_and_quartiles
from mgrl_cli.agents.agent import Agent
from mgrl_cli.config import RunConfig
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.presets import resolve_config
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.run_dir.checkpoints import checkpoint_paths
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.runtime.board import StatusBoard
from mgrl_cli.runtime.generation import Generation
from mgrl_cli.runtime.kernel_cache import prepare_kernels
from mgrl_cli.runtime.launch import claim_run, meta_train
from mgrl_cli.runtime.recorder import Recorder
from mgrl_cli.runtime.worker import Worker
from mgrl_cli.telemetry import RunSnapshot
from mgrl_cli.ui.live import LiveView

_FRAME_S = 1.0
"""Between two frames, as in `mgrl_cli.runtime.crew`."""
_EVERYTHING, _NOTHING = "everything", "nothing"
_KEEPING: tuple[tuple[type, str], ...] = (
    (ReplayLog, "append"),
    (ReplayLog, "commit"),
    (Worker, "_moment"),
    (Worker, "_save"),
    (Generation, "_make_draft"),
    (Generation, "commit"),
    (Recorder, "record_round"),
    (Recorder, "objective"),
    (Recorder, "save_objective"),
)
"""What takes the time of keeping a run, besides its board; showing it is the progress's part."""


@final
class Silence:
    """A progress that shows nothing."""

    def update(self, snapshot: RunSnapshot) -> None:
        """Do nothing."""

    def announce(self, event: str) -> None:
        """Do nothing."""


@final
class FullRate:
    """A live view that draws the newest snapshot again every second, if it is asked often."""

    def __init__(self, view: LiveView) -> None:
        self._view = view
        self._newest: RunSnapshot | None = None
        self._shown_s = 0.0
        self.frames = 0

    def update(self, snapshot: RunSnapshot) -> None:
        """Draw it now."""
        self._newest = snapshot
        self._shown_s = time.monotonic()
        self._view.update(snapshot)
        self.frames += 1

    def update_if_due(self) -> None:
        """Draw the newest again, a second after the last time."""
        if self._newest is not None and time.monotonic() - self._shown_s >= _FRAME_S:
            self.update(self._newest)

    def announce(self, event: str) -> None:
        """Pass on."""
        self._view.announce(event)


@final
class Account:
    """Adds up the time that is spent in some calls."""

    def __init__(self) -> None:
        self.spent_s = 0.0
        self._is_open = False

    def charged(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a call whose time counts, once where one such call makes another."""

        def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever it takes and gives
            if self._is_open:
                return call(*args, **kwargs)
            self._is_open, began_s = True, time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.spent_s += time.perf_counter() - began_s
                self._is_open = False

        return timed


@final
class Runs:
    """Runs of the same settings, one after the other, and what came out of them."""

    def __init__(self, config: RunConfig, directory: Path) -> None:
        self._config = config
        self._directory = directory
        self._kept: list[RunDirectory] = []
        self._bare: list[RunDirectory] = []
        self._bare_objectives: list[Tensor] = []
        self.frames = 0
        self.shares: list[float] = []
        """Of each run with everything: time in what keeps and shows it over the rest."""

    def with_everything(self) -> None:
        """Run as `mgrl meta-train` does on a terminal."""
        run, account, began_s = self._claim(), Account(), time.perf_counter()
        post = StatusBoard.post
        with terminal() as console, LiveView(console) as view:
            progress = FullRate(view)

            def post_and_show(board: StatusBoard, agent: Agent) -> None:
                post(board, agent)
                progress.update_if_due()

            with _replaced(
                (FullRate, "update", account.charged(FullRate.update)),
                *((owner, name, account.charged(getattr(owner, name))) for owner, name in _KEEPING),
                (StatusBoard, "post", account.charged(post_and_show)),
            ):
                meta_train(self._config, run, progress, workers=0)
        took_s = time.perf_counter() - began_s
        self.shares.append(account.spent_s / (took_s - account.spent_s))
        self.frames = progress.frames
        self._kept.append(run)

    def with_nothing(self) -> None:
        """Run without a trace."""
        newest: list[Tensor] = []

        def copy(_recorder: Recorder, params: Tensor, *_: object) -> Tensor:
            return params.clone()

        def keep(_recorder: Recorder, params: Any, **_: object) -> None:  # noqa: ANN401
            newest[:] = [params]

        run = self._claim()
        with _replaced(
            (ReplayLog, "append", _nothing),
            (ReplayLog, "commit", _nothing),
            (Worker, "_moment", _nothing),
            (StatusBoard, "post", _nothing),
            (Generation, "_is_due", lambda *_: False),
            (Recorder, "record_round", _nothing),
            (Recorder, "objective", copy),
            (Recorder, "save_objective", keep),
        ):
            meta_train(self._config, run, Silence(), workers=0)
        self._bare.append(run)
        self._bare_objectives += newest

    def _claim(self) -> RunDirectory:
        name = f"run-{len(self._kept) + len(self._bare)}"
        return claim_run(self._config, self._directory, name)

    def check(self) -> int:
        """Return how many runs there were, all with the same objective and the files they should.

        Raises:
            AssertionError: they are not.
        """
        objectives = [LearnedObjective.load(run.objective).params for run in self._kept]
        objectives += self._bare_objectives
        first = objectives[0]
        assert all(torch.equal(first, each) for each in objectives), "runs differ in results"
        for run in self._kept:
            assert checkpoint_paths(run), f"no checkpoint in {run.path}"
            for agent_id in range(self._config.agents):
                rows = ReplayReader(run.agent_buffer(agent_id)).committed_rows
                assert rows >= self._config.steps, f"agent {agent_id}: {rows} rows in replay"
        for run in self._bare:
            left = [*checkpoint_paths(run), *run.objectives.glob("*")]
            assert not left, f"something was kept after all: {left}"
        return len(objectives)


def run(effort: Effort) -> Iterator[Result]:
    """Measure a short run of two agents."""
    repeats = 5 if effort is Effort.FULL else 1
    config = _settings(effort)
    prepare_kernels(config, lambda _: None, workers=None)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:  # not /tmp: often no disk
        runs = Runs(config, Path(directory))
        contenders = {_EVERYTHING: runs.with_everything, _NOTHING: runs.with_nothing}
        short = config.model_copy(update={"steps": 1})
        Runs(short, Path(directory) / "warm").with_everything()  # imports, TensorBoard's for one
        timings = in_turns(contenders, repeats=repeats)
        num_runs = runs.check()
    added = [ratio - 1.0 for ratio in timings.ratios(_EVERYTHING, _NOTHING)]
    figures = {"time in it over the rest": runs.shares, "share of wall time added": added}
    for figure, shares in figures.items():
        value, spread = median_and_quartiles(shares)
        yield Result(
            benchmark="overhead",
            setting=f"2 agents on {', '.join(env.id for env in config.envs)}, {config.steps} env "
            f"steps each, {config.preset} preset, {runs.frames} frames",
            figure=figure,
            value=value,
            spread=spread,
            direction="at most",
            target=0.02,
            milliseconds=timings.median_ms(),
            check=f"final objective of all {num_runs} runs equal bit for bit",
        )


def _settings(effort: Effort) -> RunConfig:
    is_full = effort is Effort.FULL
    return resolve_config(
        kind="meta-train",
        preset="laptop" if is_full else "smoke",
        options={
            "envs": [{"id": env} for env in (("lunar", "cheetah") if is_full else ("pendulum",))],
            "agents": 2,
            "steps": 6000 if is_full else 1000,
        },
    )


@contextmanager
def terminal() -> Iterator[Console]:
    """Open a pseudo-terminal that somebody reads, as large as a laptop's."""
    ours, theirs = pty.openpty()

    def read() -> None:
        try:
            while os.read(ours, 65536):
                pass
        except OSError:  # what Linux says at the end
            return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with os.fdopen(theirs, "w", encoding="utf-8") as file:
        yield Console(file=file, force_terminal=True, width=120, height=40)
    reader.join()
    os.close(ours)


def _nothing(*_: object, **__: object) -> None:
    """Take the place of whatever keeps or shows something."""


@contextmanager
def _replaced(*methods: tuple[type, str, Callable[..., object]]) -> Iterator[None]:
    with ExitStack() as stack:
        for owner, name, stand_in in methods:
            stack.enter_context(patch.object(owner, name, stand_in))
        yield
