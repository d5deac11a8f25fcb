"""What the comparison with another TD3 takes for its own, by files alone: nothing is trained."""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("stable_baselines3", reason="the peer needs the extra 'baselines'")

from benchmarks.peer_curves import RULE, areas, check, main, ratio, read, rows_of_td3, write
from mgrl_cli.errors import UsageError
from mgrl_cli.run_dir.metrics import EvaluationRow

OPTIONS = argparse.Namespace(env="hopper", steps=30, interval=10)


def curve(rule: str, seed: int, *returns: float) -> list[EvaluationRow]:
    return [
        EvaluationRow(
            rule=rule,
            environment="hopper",
            seed=seed,
            env_steps=10 * number,
            evaluation_return=value,
            training_return=math.nan,
        )
        for number, value in enumerate(returns, start=1)
    ]


ROWS = curve(RULE, 1, 0.1 + 0.2, 1e-300, 5.0)


def test_a_seed_reads_back_and_its_columns_stay(tmp_path: Path) -> None:
    path = tmp_path / "seed-1.csv"
    write(ROWS, path)
    header = "rule,environment,seed,env_steps,evaluation_return,training_return"
    assert path.read_text().splitlines()[0] == header
    assert repr(read(path)) == repr(ROWS)
    check(read(path), path, 1, OPTIONS)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        ROWS[:2],
        ROWS[1:],
        [replace(row, env_steps=2 * row.env_steps) for row in ROWS],
        [replace(row, environment="lunar") for row in ROWS],
        [replace(row, seed=0) for row in ROWS],
        [replace(row, rule="td3") for row in ROWS],
    ],
)
def test_a_file_of_something_else_is_not_taken_for_trained(
    tmp_path: Path, rows: list[EvaluationRow]
) -> None:
    with pytest.raises(UsageError, match=r"seed-1\.csv' is not of --env hopper"):
        check(rows, tmp_path / "seed-1.csv", 1, OPTIONS)


@pytest.mark.parametrize("text", ["", "rule,environment\n", "rule,env_steps\ntd3,x\n"])
def test_half_a_file_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "seed-0.csv").write_text(text)
    words = ["--env", "hopper", "--steps", "10", "--interval", "5", "--seeds", "1"]
    with pytest.raises(SystemExit) as refusal:
        main([*words, "--out", str(tmp_path)])
    assert refusal.value.code == 2
    assert "seed-0.csv'" in capsys.readouterr().err


def test_only_td3_on_this_environment_is_compared() -> None:
    ddpg, td3 = curve("ddpg", 0, 1.0, 2.0), curve("td3", 0, 3.0, 4.0)
    assert rows_of_td3([*ddpg, *td3], "hopper", Path("x")) == td3
    with pytest.raises(UsageError, match="no evaluation of td3 on hopper"):
        rows_of_td3(ddpg, "hopper", Path("x"))
    with pytest.raises(UsageError, match="no evaluation of td3 on lunar"):
        rows_of_td3(td3, "lunar", Path("x"))


def test_returns_without_a_zero_are_compared_above_a_floor() -> None:
    ours = [*curve("td3", 0, -50.0, -50.0), *curve("td3", 1, -50.0, -50.0)]
    peers = [*curve(RULE, 0, -75.0, -75.0), *curve(RULE, 1, -75.0, -75.0)]
    assert areas(ours, 10, 20).tolist() == [-50.0, -50.0]
    with pytest.raises(UsageError, match="a ratio needs positive ones"):
        ratio(ours, peers)
    assert ratio(ours, peers, -100.0).value == 2.0
