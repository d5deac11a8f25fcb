"""Final scores against numbers worked out by hand."""

import json
import math
from pathlib import Path

import pytest

from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.metrics import EvaluationRow
from mgrl_cli.run_dir.scores import (
    RuleScore,
    SeedScore,
    rule_scores,
    scores_document,
    seed_scores,
    write_scores,
)


def rows(
    rule: str, seed: int, *returns: float, training: tuple[float, ...] | None = None
) -> list[EvaluationRow]:
    """One agent's evaluations, 100 env steps apart."""
    return [
        EvaluationRow(
            rule=rule,
            environment="hopper",
            seed=seed,
            env_steps=100 * number,
            evaluation_return=evaluation,
            training_return=training[number - 1] if training else 0.0,
        )
        for number, evaluation in enumerate(returns, start=1)
    ]


CURVES = [
    *rows("learned", 0, 1000.0, 1.0, 2.0, 6.0, training=(900.0, math.nan, 4.0, 8.0)),
    *rows("learned", 1, -1.0, 6.0),
    *rows("ddpg", 0, 7.0),
]


def test_a_score_is_the_mean_of_the_last_three_evaluations() -> None:
    (first, *_) = seed_scores(CURVES)
    # (1 + 2 + 6) / 3; of the training returns 4 and 8 are known
    assert first == SeedScore(rule="learned", seed=0, env_steps=400, score=3.0, training_return=6.0)


def test_fewer_evaluations_are_all_counted() -> None:
    scores = {(score.rule, score.seed): score.score for score in seed_scores(CURVES)}
    assert scores == {("learned", 0): 3.0, ("learned", 1): 2.5, ("ddpg", 0): 7.0}


def test_agents_are_told_apart_however_their_rows_are_mixed() -> None:
    mixed = [row for pair in zip(CURVES[:2], CURVES[4:6], strict=True) for row in pair]
    assert [(score.seed, score.score) for score in seed_scores(mixed)] == [(0, 500.5), (1, 2.5)]


def test_unknown_training_returns_stay_unknown() -> None:
    (score,) = seed_scores(rows("learned", 0, 1.0, training=(math.nan,)))
    assert math.isnan(score.training_return)


def test_a_rule_is_summed_up_over_its_seeds() -> None:
    learned, ddpg = rule_scores(seed_scores(CURVES))
    # 3 and 2.5: mean 2.75, sample standard deviation sqrt(2 · 0.25²) = 0.25 sqrt(2)
    assert learned.std == pytest.approx(0.25 * math.sqrt(2))
    assert learned == RuleScore(
        rule="learned", seeds=2, mean=2.75, std=learned.std, lowest=2.5, highest=3.0
    )
    assert (ddpg.rule, ddpg.seeds, ddpg.mean, ddpg.lowest, ddpg.highest) == (
        "ddpg", 1, 7.0, 7.0, 7.0,
    )  # fmt: skip
    assert math.isnan(ddpg.std)


def test_nothing_evaluated_gives_no_scores() -> None:
    assert seed_scores([]) == []
    assert rule_scores([]) == []


def test_a_rule_is_one_row_in_whatever_order_its_seeds_come() -> None:
    mixed = [*rows("learned", 0, 1.0), *rows("ddpg", 0, 5.0), *rows("learned", 1, 3.0)]
    assert [(score.rule, score.seeds, score.mean) for score in rule_scores(seed_scores(mixed))] == [
        ("learned", 2, 2.0),
        ("ddpg", 1, 5.0),
    ]


def test_results_are_one_document_without_nan(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    scores = seed_scores([*CURVES, *rows("untrained", 0, 5.0, training=(math.nan,))])
    write_scores(run, scores)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    document = json.loads(run.results.read_text(), parse_constant=refuse)
    assert document == scores_document(run, scores)
    assert document["run"] == tmp_path.name
    assert [rule["rule"] for rule in document["rules"]] == ["learned", "ddpg", "untrained"]
    assert document["rules"][1]["std"] is None
    assert document["seeds"][-1]["training_return"] is None
    assert document["seeds"][0]["score"] == 3.0


def test_results_without_scores_are_a_document_too(tmp_path: Path) -> None:
    write_scores(RunDirectory(tmp_path), [])
    assert json.loads(RunDirectory(tmp_path).results.read_text())["seeds"] == []
