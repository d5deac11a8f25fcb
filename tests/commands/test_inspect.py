import hashlib
import json
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mgrl_cli.algorithm.objective_network import ObjectiveNetwork, ObjectiveShape
from mgrl_cli.cli import main
from mgrl_cli.commands.inspect import print_section
from mgrl_cli.inspection.sections import Curve, Facts, Notes, Section, Share, Size, Table
from mgrl_cli.objective_file import LearnedObjective, ObjectiveMetadata
from mgrl_cli.presets import resolve_config
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.replay.schema import Episode
from mgrl_cli.run_dir.layout import create_run_directory
from mgrl_cli.run_dir.metrics_file import MetricsFile
from mgrl_cli.run_dir.settings import write_settings

PARTS = ("", "buffer.zarr", "buffer.zarr/agent-001", "objective.safetensors")


def write_replay(path: Path) -> None:
    """Ten episodes of one to ten steps, reward 1 a step."""
    attributes = {"environment": "mgrl/Pendulum-v0", "rule": "learned"}
    log = ReplayLog.create(path, obs_size=1, act_size=1, attributes=attributes)
    for length in range(1, 11):
        action = np.linspace(-1, 1, length, dtype=np.float32)[:, None]
        at_end = np.arange(length) == length - 1
        log.append(
            Episode(
                obs=np.arange(length + 1, dtype=np.float32)[:, None],
                action=action,
                raw_action=action,
                behaviour_mean=action,
                behaviour_kind=np.full(length, length > 3, np.uint8),
                reward=np.linspace(0, 2, length, dtype=np.float32),
                terminated=at_end,
                truncated=np.zeros(length, bool),
                objective_version=np.full(length, 7, np.int64),
                seed=0,
                life=0,
            )
        )
    log.commit()


def write_objective(path: Path) -> None:
    metadata = ObjectiveMetadata(
        width=4,
        signal_features=2,
        window_steps=6,
        window_batch=2,
        inner_step="unit",
        inner_step_size=0.03,
        environments=("pendulum",),
        steps_per_agent=100,
        agents=2,
        meta_steps=5,
        seed=0,
        packages={"torch": "2"},
    )
    network = ObjectiveNetwork(ObjectiveShape(width=4, signal_features=2))
    LearnedObjective(network.initialise(np.random.default_rng(0)), metadata).save(path)


def write_run(runs_dir: Path, kind: str) -> Path:
    run = create_run_directory(runs_dir, kind, "unused")
    rules = ["learned"] if kind == "meta-train" else ["learned", "ddpg"]
    options = {"envs": [{"id": "pendulum"}], "agents": 2, "rules": rules}
    write_settings(run, resolve_config(kind=kind, preset="smoke", options=options))
    write_objective(run.objective)
    write_replay(run.agent_buffer(0))
    shutil.copytree(run.agent_buffer(0), run.agent_buffer(1))
    for agent_id in range(2):
        metrics = MetricsFile(run.agent_metrics(agent_id))
        for index in (1, 2):
            row = {
                "agent_id": agent_id, "environment": "pendulum", "rule": rules[-agent_id],
                "seed": 0 if kind == "meta-test" else agent_id, "round": index, "life": 0,
                "env_steps": 250 * index, "episodes": index, "mean_return": 1.0 * index,
                "evaluation": 40.5 + agent_id, "gain": None, "cosine": 0.5,
                "inner_gradient_norm": 1.0, "meta_gradient_norm": 1.0, "action_slack": 0.5,
                "critic_loss": 0.25, "skipped_updates": 0,
            }  # fmt: skip
            metrics.append(row)
    MetricsFile(run.population_metrics).append({"round": 1})
    return run.path


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs_dir = tmp_path_factory.mktemp("templates")
    write_run(runs_dir, "meta-train")
    write_run(runs_dir, "meta-test")
    return runs_dir


@pytest.fixture
def run(tmp_path: Path, templates: Path) -> Path:
    return shutil.copytree(templates / "meta-train", tmp_path / "runs" / "demo")


@pytest.fixture
def mgrl(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `mgrl inspect` and return exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        exit_code = main(["inspect", *map(str, arguments)])
        captured = capsys.readouterr()
        return exit_code, captured.out, captured.err

    return call


Mgrl = Callable[..., tuple[int, str, str]]


def tree(path: Path) -> dict[str, tuple[int, str]]:
    """Return time and content of everything below."""
    return {
        str(file): (
            file.stat().st_mtime_ns,
            hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "",
        )
        for file in (path, *path.rglob("*"))
    }


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_nothing_is_touched(run: Path, mgrl: Mgrl, part: str, options: tuple[str, ...]) -> None:
    before = tree(run.parent)
    assert mgrl(run / part, *options)[0] == 0
    assert tree(run.parent) == before


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("", ("run demo", "meta-train", "2 of 6", "no checkpoint", "Learning", "40.5")),
        (
            "buffer.zarr",
            ("agent-000", "agent-001", "mgrl/Pendulum-v0", "10.9%", "oldest to newest"),
        ),
        ("buffer.zarr/agent-001", ("replay of agent-001", "objective versions", "of policy")),
        ("objective.safetensors", ("mgrl-objective", "lstm.weight", "pulls the policy")),
    ],
)
def test_tables_hold_the_figures(
    run: Path, mgrl: Mgrl, part: str, expected: tuple[str, ...]
) -> None:
    exit_code, out, err = mgrl(run / part)
    assert exit_code == 0
    assert err == ""
    assert [text for text in expected if text not in out] == []


def test_a_meta_test_compares_rules_by_seed(templates: Path, mgrl: Mgrl) -> None:
    exit_code, out, _ = mgrl(templates / "meta-test")
    assert exit_code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["learned", "ddpg"] in lines
    assert ["seed", "0", "40.5", "41.5"] in lines
    assert ["mean", "40.5", "41.5"] in lines


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize(
    ("part", "kind"), list(zip(PARTS, ("run", "buffer", "agent", "objective"), strict=True))
)
def test_json_is_one_strict_document(run: Path, mgrl: Mgrl, part: str, kind: str) -> None:
    exit_code, out, err = mgrl(run / part, "--json")
    document = json.loads(out, parse_constant=refuse_constant)
    assert exit_code == 0
    assert err == ""
    assert document["type"] == kind
    assert document["path"] == str(run / part)


def test_json_holds_the_figures_and_null_for_unknown_ones(run: Path, mgrl: Mgrl) -> None:
    agent = json.loads(mgrl(run, "--json")[1])["agents"][1]
    assert agent["evaluations"] == [[250, 41.5], [500, 41.5]]
    assert agent["gain"] is None
    replay = json.loads(mgrl(run / "buffer.zarr", "--json")[1])["agents"][0]
    assert replay["random_share"] == pytest.approx(6 / 55)
    assert replay["episodes"]["length"] == list(range(1, 11))
    assert replay["attributes"]["obs_size"] == 1
    assert replay["objective_versions"] == [7, 7]
    pulls = json.loads(mgrl(run / "objective.safetensors", "--json")[1])["probe"]["pulls"]
    assert [pull["signal"] for pull in pulls] == ["reward", "next_value", "value"]


def damage(run: Path) -> Path:
    file = run / "buffer.zarr" / "agent-001" / "reward" / "c" / "0"
    file.write_bytes(file.read_bytes()[:-1])
    return file


@pytest.mark.parametrize("part", PARTS[:3])
def test_damage_is_reported_with_what_can_still_be_read(run: Path, mgrl: Mgrl, part: str) -> None:
    damage(run)
    exit_code, out, err = mgrl(run / part)
    assert exit_code == 4
    assert err.startswith(f"mgrl: error: '{run / part}' is not whole: ")
    assert err.count("\n") == 1
    assert "array 'reward' chunk 0" in err
    assert "Problems" in out
    assert "agent-001" in out


def test_damage_is_reported_in_json_too(run: Path, mgrl: Mgrl) -> None:
    damage(run)
    exit_code, out, err = mgrl(run / "buffer.zarr", "--json")
    whole, damaged = json.loads(out)["agents"]
    assert exit_code == 4
    assert err.count("\n") == 1
    assert whole["is_whole"]
    assert not damaged["is_whole"]
    assert damaged["reward"]["mean"] is None
    assert damaged["env_steps"] == 55


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "does not exist"), (b"hello", "no file that mgrl can look into"), (b"12345678{", "")],
)
def test_a_file_that_is_not_ours_is_one_line_and_exit_code_4(
    tmp_path: Path, mgrl: Mgrl, content: bytes | None, expected: str
) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    for options in ((), ("--json",)):
        exit_code, out, err = mgrl(tmp_path / "x", *options)
        assert exit_code == 4
        assert out == ""
        assert err.startswith("mgrl: error: ")
        assert expected in err
        assert err.count("\n") == 1


def test_a_lock_file_that_is_a_link_is_not_ours(run: Path, mgrl: Mgrl, tmp_path: Path) -> None:
    (run / ".lock").symlink_to(tmp_path)
    exit_code, out, err = mgrl(run)
    assert (exit_code, out) == (4, "")
    assert err.startswith(f"mgrl: error: '{run / '.lock'}' is a symbolic link, expected none")
    assert err.count("\n") == 1


def test_an_empty_directory_and_a_corrupt_objective_exit_4(run: Path, mgrl: Mgrl) -> None:
    (run.parent / "empty").mkdir()
    assert mgrl(run.parent / "empty")[0] == 4
    objective = run / "objective.safetensors"
    objective.write_bytes(objective.read_bytes()[:-4])
    exit_code, out, _ = mgrl(objective)
    assert (exit_code, out) == (4, "")


@pytest.mark.parametrize(
    ("part", "suffix"), [("", ".svg"), ("buffer.zarr", ".png"), ("buffer.zarr/agent-001", ".svg")]
)
def test_the_figure_and_its_data_are_named_after_the_tables(
    run: Path, mgrl: Mgrl, tmp_path: Path, part: str, suffix: str
) -> None:
    figure = tmp_path / f"figure{suffix}"
    exit_code, out, err = mgrl(run / part, "--plot", figure)
    assert (exit_code, err) == (0, "")
    assert out.splitlines()[-2:] == [str(figure), str(figure.with_suffix(".csv"))]
    assert figure.stat().st_size > 1000
    assert figure.with_suffix(".csv").read_text().count("\n") > 1


def test_a_replay_is_drawn_under_the_name_other_figures_use(
    run: Path, mgrl: Mgrl, tmp_path: Path
) -> None:
    mgrl(run / "buffer.zarr", "--plot", tmp_path / "b.svg")
    assert ">pendulum<" in (tmp_path / "b.svg").read_text(encoding="utf-8")


def test_a_meta_test_is_drawn_as_learning_curves(
    templates: Path, mgrl: Mgrl, tmp_path: Path
) -> None:
    assert mgrl(templates / "meta-test", "--plot", tmp_path / "t.svg")[0] == 0
    assert "evaluation return" in (tmp_path / "t.svg").read_text(encoding="utf-8")


def test_json_stays_one_document_beside_a_figure(run: Path, mgrl: Mgrl, tmp_path: Path) -> None:
    figure = tmp_path / "b.svg"
    exit_code, out, err = mgrl(run / "buffer.zarr", "--json", "--plot", figure)
    assert exit_code == 0
    assert json.loads(out)["type"] == "buffer"
    assert err.splitlines() == [str(figure), str(tmp_path / "b.csv")]


@pytest.mark.parametrize(
    ("part", "figure", "expected"),
    [
        ("buffer.zarr", "b.pdf", "expected .png or .svg"),
        ("objective.safetensors", "b.png", "expected a run or a replay"),
    ],
)
def test_a_figure_that_cannot_be_is_refused_before_anything_is_shown(
    run: Path, mgrl: Mgrl, tmp_path: Path, part: str, figure: str, expected: str
) -> None:
    exit_code, out, err = mgrl(run / part, "--plot", tmp_path / figure)
    assert (exit_code, out) == (2, "")
    assert expected in err
    assert not (tmp_path / figure).exists()


def drawn(section: Section, width: int = 80) -> str:
    file = StringIO()
    print_section(Console(file=file, width=width, color_system=None, highlight=False), section)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def test_facts_are_written_by_what_they_mean() -> None:
    facts = Facts(
        "title",
        (
            ("text", "some"), ("nothing", ""), ("none", None), ("nan", float("nan")),
            ("count", 1234567), ("small", 0.000123), ("large", -123456.0), ("share", Share(0.125)),
            ("no share", Share(float("nan"))), ("bytes", Size(1023)), ("size", Size(5 * 2**20)),
            ("curve", Curve((0.0, 1.0))), ("empty", Curve(())),
        ),
    )  # fmt: skip
    assert drawn(facts).splitlines() == [
        "title",
        "text      some",
        "nothing   –",
        "none      –",
        "nan       –",
        "count     1,234,567",
        "small     1.2e-04",
        "large     -123.5k",
        "share     12.5%",
        "no share  –",
        "bytes     1023 B",
        "size      5.0 MiB",
        "curve     ▁█",
        "empty     –",
    ]


def test_tables_align_numbers_right_and_explain_themselves_below() -> None:
    table = Table("title", ("name", "count"), (("a", 1), ("bb", 1000)), note="how to read it")
    assert drawn(table).splitlines() == [
        "title",
        "name count",
        "a        1",
        "bb   1,000",
        "how to read it",
    ]


def test_curves_are_longer_in_a_wide_console() -> None:
    facts = Facts("t", (("c", Curve(tuple(range(100)))),))
    assert len(drawn(facts, 200).splitlines()[1]) - len(drawn(facts, 80).splitlines()[1]) == 14


def test_text_from_files_cannot_steer_the_terminal() -> None:
    notes = Notes("Problems", ("\x1b[31mred\n[bold]line[/bold]" + "x" * 1000,))
    text = drawn(notes, 2000)
    assert "\x1b" not in text
    assert r"\x1b[31mred\n[bold]line[/bold]x" in text
    assert len(text) < 350


def test_everything_fits_into_80_columns(
    run: Path, mgrl: Mgrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mgrl_cli.ui.tables._PIPE_WIDTH", 80)
    for part in PARTS:
        _, out, _ = mgrl(run / part)
        assert max(map(len, out.splitlines())) <= 80
        assert "…" not in out
