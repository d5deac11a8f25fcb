"""Event files hold the finite figures at their env steps, and are never needed."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest

from mgrl_cli.run_dir.tensorboard_log import TensorBoardLog

ROW = {
    "env_steps": 1500,
    "agent_id": 3,
    "environment": "hopper",
    "mean_return": 2.5,
    "gain": math.nan,
    "cosine": None,
    "critic_loss": math.inf,
}


def test_finite_figures_are_written_at_their_env_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TensorBoardLog(tmp_path)
    log.add("agent-003", ROW)
    log.add("agent-003", {**ROW, "env_steps": 2000, "mean_return": -1.0})
    log.close()

    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["agent-003/mean_return"]
    points = [(point.step, point.value) for point in events.Scalars("agent-003/mean_return")]
    assert points == [(1500, 2.5), (2000, -1.0)]


def test_nothing_is_written_or_imported_before_the_first_row(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path / "events")
    log.close()
    assert not (tmp_path / "events").exists()


def test_without_the_extra_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "tensorboard" else find_spec(name, *rest),
    )
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it would fail
    log = TensorBoardLog(tmp_path / "events")
    log.add("agent-003", ROW)
    log.close()
    assert not (tmp_path / "events").exists()
