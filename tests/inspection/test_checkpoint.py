import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from mgrl_cli import cli
from mgrl_cli.errors import FileError
from mgrl_cli.inspection.checkpoint import inspect_checkpoint
from mgrl_cli.inspection.describe_checkpoint import describe_checkpoint, position_text
from mgrl_cli.inspection.sections import Notes
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.manifest import MANIFEST_NAME, read_manifest


@pytest.fixture
def newest(finished: RunDirectory) -> Path:
    return finished.checkpoints / "round-000002"


def test_the_position_and_the_agents_are_those_of_the_run(
    finished: RunDirectory, newest: Path
) -> None:
    report = inspect_checkpoint(newest)
    assert (report.name, report.kind) == ("round-000002", "meta-train")
    assert (report.rounds, report.updates, report.barren_meetings) == (2, 0, 0)
    assert report.is_whole
    assert set(report.files) == {file.name for file in newest.iterdir()} - {MANIFEST_NAME}
    for agent_id, agent in enumerate(report.agents):
        reader = ReplayReader(finished.agent_buffer(agent_id))
        rows = map(json.loads, finished.agent_metrics(agent_id).read_text().splitlines())
        evaluations = [row["evaluation"] for row in rows if row["evaluation"] is not None]
        assert agent.name == f"agent-00{agent_id}"
        assert agent.env_steps == agent.replay_steps == reader.committed_rows
        assert agent.episodes == agent.replay_episodes == reader.committed_episodes
        assert (agent.updates, agent.life, agent.quarantine) == (120, 0, "")
        assert agent.evaluation == evaluations[-1]


def test_the_first_checkpoint_knows_no_evaluation(finished: RunDirectory) -> None:
    report = inspect_checkpoint(finished.checkpoints / "round-000000")
    assert all(math.isnan(agent.evaluation) for agent in report.agents)
    assert [agent.env_steps for agent in report.agents] == [0, 0]


def test_norms_are_those_of_the_tensors(finished: RunDirectory, newest: Path) -> None:
    tensors = {(tensor.file, tensor.name): tensor for tensor in inspect_checkpoint(newest).tensors}
    alpha = LearnedObjective.load(finished.objective).params
    saved = tensors["objective.safetensors", "params"]
    assert saved.shape == tuple(alpha.shape)
    assert saved.norm == pytest.approx(float(alpha.double().norm()))
    steps = tensors["agent-001.safetensors", "critic.adam_steps"]
    assert (steps.shape, steps.norm) == ((), 120.0)
    assert all(tensor.is_finite for tensor in tensors.values())
    assert not any(name.startswith("replay.") for _, name in tensors)


def test_a_damaged_file_does_not_hide_the_others(
    newest: Path, damage: Callable[[Path], None]
) -> None:
    damage(newest / "objective.safetensors")
    (newest / "agent-000.safetensors").unlink()
    report = inspect_checkpoint(newest)
    assert not report.is_whole
    assert any("agent-000.safetensors" in problem for problem in report.problems)
    assert any("objective.safetensors" in problem for problem in report.problems)
    assert [agent.updates for agent in report.agents] == [None, 120]
    assert report.agents[0].replay_steps is not None


def test_a_checkpoint_without_its_manifest_is_a_bad_file(newest: Path) -> None:
    (newest / MANIFEST_NAME).unlink()
    with pytest.raises(FileError, match=r"manifest\.json' is missing"):
        inspect_checkpoint(newest)


def test_agents_out_of_the_population_are_shown_with_their_replay(newest: Path) -> None:
    manifest = read_manifest(newest / MANIFEST_NAME)
    files = {name: record for name, record in manifest.files.items() if "agent-001" not in name}
    (newest / "agent-001.safetensors").unlink()
    changes = {"files": files, "quarantined": {"agent-001": "its motor burned out"}}
    (newest / MANIFEST_NAME).write_bytes(manifest.model_copy(update=changes).to_bytes())
    report = inspect_checkpoint(newest)
    assert report.is_whole
    agent = report.agents[1]
    assert (agent.name, agent.quarantine) == ("agent-001", "its motor burned out")
    assert agent.updates is None
    assert agent.replay_steps == manifest.replay["agent-001"].rows
    *_, notes = describe_checkpoint(report)
    assert isinstance(notes, Notes)
    assert notes.lines == ("agent-001 is out of the population: its motor burned out",)


def test_a_position_within_a_round_names_it() -> None:
    assert position_text(3, 0) == "after round 3"
    assert position_text(3, 1200) == "after round 3, 1,200 updates into round 4"


def test_the_command_shows_a_checkpoint(newest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(newest)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    shown = ("checkpoint round-000002", "after round 2", "policy.params", "agent-001", "threads")
    assert [text for text in shown if text not in out] == []
    assert cli.main(["inspect", str(newest), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["type"], document["rounds"]) == ("checkpoint", 2)
    assert document["build"]["threads"] == 1


def test_a_damaged_checkpoint_exits_4_and_is_shown(
    newest: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(newest / "exchange.safetensors")
    assert cli.main(["inspect", str(newest)]) == 4
    out, err = capsys.readouterr()
    assert "exchange.safetensors" in err
    assert "Problems" in out


def test_a_checkpoint_cannot_be_drawn(
    newest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["inspect", str(newest), "--plot", str(tmp_path / "c.png")]) == 2
    assert "expected a run or a replay" in capsys.readouterr().err
