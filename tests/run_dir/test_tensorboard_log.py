"""Event files hold the finite figures at their env steps, and are never needed."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest

from mgrl_cli.errors import StorageError
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


def shown(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself shows: (env step, value) by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory)).Reload()
    return {
        tag: [(point.step, point.value) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_finite_figures_are_written_at_their_env_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    log = TensorBoardLog(tmp_path, purge_from=1)
    log.add("agent-003", ROW, 1500)
    log.add("agent-003", {**ROW, "mean_return": -1.0}, 2000)
    log.close()
    assert shown(tmp_path) == {"agent-003/mean_return": [(1500, 2.5), (2000, -1.0)]}


def test_where_a_run_continues_what_came_later_is_hidden(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for attempt in range(3):  # two interrupted after 2000 steps, both continued from 1000
        log = TensorBoardLog(tmp_path, purge_from=1001 if attempt else 1)
        for step in range(1500 if attempt else 500, 2001, 500):
            log.add("agent-003", {"gain": float(attempt)}, step)
            log.add("population", {"gain": float(attempt)}, step)
        log.close()
        # Files are read in the order of their names, which begin with the second.
        (file,) = tmp_path.glob("events.out.tfevents.1*")
        file.rename(tmp_path / f"events.out.tfevents.000000000{attempt}.host")
    points = [(500, 0.0), (1000, 0.0), (1500, 2.0), (2000, 2.0)]
    assert shown(tmp_path) == {"agent-003/gain": points, "population/gain": points}


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "events").touch()
    log = TensorBoardLog(tmp_path / "events", purge_from=1)
    with pytest.raises(StorageError, match=r"cannot write '.*/events': File exists"):
        log.add("agent-003", ROW, 1500)
    log.close()


def test_nothing_is_written_or_imported_before_the_first_row(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path / "events", purge_from=1)
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
    log = TensorBoardLog(tmp_path / "events", purge_from=1)
    log.add("agent-003", ROW, 1500)
    log.close()
    assert not (tmp_path / "events").exists()
