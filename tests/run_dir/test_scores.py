"""Final scores against numbers worked out by hand."""

import json
import math
from pathlib import Path

import pytest

from mgrl_cli.config import EnvConfig, RunConfig
from mgrl_cli.errors import UsageError
from mgrl_cli.run_dir.layout import RunDirectory, create_run_directory
from mgrl_cli.run_dir.metrics import EvaluationRow
from mgrl_cli.run_dir.scores import (
    RuleScore,
    ScoreReport,
    SeedScore,
    rule_scores,
    score_report,
    scores_document,
    seed_scores,
    write_scores,
)
from mgrl_cli.run_dir.settings import write_settings


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


def figures(scores: list[SeedScore], stuck_below: float | None = None) -> list[RuleScore]:
    return rule_scores(scores, root_seed=0, stuck_below=stuck_below)


def finished(
    tmp_path: Path, curves: list[EvaluationRow], rules: list[str], seeds: int
) -> RunDirectory:
    """A meta-test's directory with settings and these evaluations."""
    run = create_run_directory(tmp_path, "tested", "stem")
    config = RunConfig.model_validate(
        {
            "kind": "meta-test",
            "preset": "smoke",
            "steps": 1000,
            "seed": 5,
            "envs": [EnvConfig(id="hopper")],
            "rules": rules,
            "seeds": seeds,
        }
    )
    write_settings(run, config)
    for number, rule in enumerate(rules):
        for seed in range(seeds):
            records = [
                json.dumps(
                    {
                        "rule": row.rule,
                        "environment": row.environment,
                        "seed": row.seed,
                        "env_steps": row.env_steps,
                        "evaluation": row.evaluation_return,
                        "mean_return": row.training_return,
                    }
                )
                for row in curves
                if (row.rule, row.seed) == (rule, seed)
            ]
            path = run.agent_metrics(number * seeds + seed)
            path.write_text("".join(f"{record}\n" for record in records))
    return run


def test_a_rule_is_summed_up_over_its_seeds() -> None:
    learned, ddpg = figures(seed_scores(CURVES))
    # 3 and 2.5: mean 2.75, sample standard deviation sqrt(2 · 0.25²) = 0.25 sqrt(2)
    assert learned.std == pytest.approx(0.25 * math.sqrt(2))
    assert (learned.rule, learned.seeds, learned.mean) == ("learned", 2, 2.75)
    assert (learned.lowest, learned.highest) == (2.5, 3.0)
    assert learned.training_return == 3.0  # of seeds 0 and 1: 6 and 0
    assert (ddpg.seeds, ddpg.mean, ddpg.lowest, ddpg.highest) == (1, 7.0, 7.0, 7.0)
    assert math.isnan(ddpg.std)


def test_the_interquartile_mean_comes_with_its_interval() -> None:
    curves = [row for seed in range(5) for row in rows("ddpg", seed, [0, 1, 2, 30, -90][seed])]
    (ddpg,) = figures(seed_scores(curves))
    assert ddpg.iqm.value == 1.0  # of five the lowest and the highest are cut off
    assert -90 <= ddpg.iqm.low < 1.0 < ddpg.iqm.high <= 30


def test_the_first_rule_is_compared_with_each_other_one() -> None:
    learned, ddpg = figures(
        seed_scores(
            [
                *(row for seed in range(2) for row in rows("learned", seed, [1.0, 5.0][seed])),
                *(row for seed in range(2) for row in rows("ddpg", seed, [5.0, 0.0][seed])),
            ]
        )
    )
    assert learned.first_is_better is None
    assert ddpg.first_is_better is not None
    # 1 < 5, 1 > 0, 5 = 5, 5 > 0: two and a half of four pairs
    assert ddpg.first_is_better.value == 0.625


def test_intervals_follow_from_the_seed_and_not_from_what_is_compared_beside() -> None:
    # Many and irregular, so that no two streams give the same quantiles.
    curves = [row for seed in range(20) for row in rows("learned", seed, math.sin(seed) * 100)]
    others = [row for seed in range(5) for row in rows("ddpg", seed, float(seed))]
    alone, again = figures(seed_scores(curves)), figures(seed_scores([*curves, *others]))
    assert alone[0] == again[0]
    assert rule_scores(seed_scores(curves), root_seed=1)[0].iqm != alone[0].iqm


def test_stuck_runs_are_counted_where_a_floor_is_given() -> None:
    scores = seed_scores(CURVES)
    assert [rule.stuck for rule in figures(scores)] == [None, None]
    assert [rule.stuck for rule in figures(scores, stuck_below=2.75)] == [1, 0]
    with pytest.raises(UsageError, match="threshold of stuck runs"):
        figures(scores, stuck_below=math.nan)


def test_nothing_evaluated_gives_no_scores() -> None:
    assert seed_scores([]) == []
    assert figures([]) == []


def test_a_rule_is_one_row_in_whatever_order_its_seeds_come() -> None:
    mixed = [*rows("learned", 0, 1.0), *rows("ddpg", 0, 5.0), *rows("learned", 1, 3.0)]
    assert [(score.rule, score.seeds, score.mean) for score in figures(seed_scores(mixed))] == [
        ("learned", 2, 2.0),
        ("ddpg", 1, 5.0),
    ]


def test_a_report_says_what_is_missing_and_what_few_seeds_mean(tmp_path: Path) -> None:
    curves = [*CURVES, *rows("untrained", 0, 5.0), *rows("untrained", 1, 5.0)]
    run = finished(tmp_path, curves, ["learned", "ddpg", "untrained"], 2)
    report = score_report(run)
    expected = tuple(rule_scores(seed_scores(curves), root_seed=5))
    assert repr(report.rules) == repr(expected)  # NaN is not equal to itself, its text is
    few, one, same, missing = report.remarks
    assert few.startswith("learned, from 2 seeds: wide, yet too narrow")
    assert one == "ddpg, from 1 seed: no interval"
    assert same.startswith("untrained, from 2 seeds: an interval without width")
    assert missing == "ddpg, seed 1 was never evaluated and is in no figure"


def test_a_remark_true_of_all_rules_is_made_once(tmp_path: Path) -> None:
    curves = [*CURVES[:6], *rows("ddpg", 0, 5.0), *rows("ddpg", 1, 6.0)]
    run = finished(tmp_path, curves, ["learned", "ddpg"], 2)
    (remark,) = score_report(run).remarks
    assert remark.startswith("all rules, from 2 seeds")


def test_results_are_one_document_without_nan(tmp_path: Path) -> None:
    untrained = rows("untrained", 0, 5.0, training=(math.nan,))
    run = finished(tmp_path, [*CURVES, *untrained], ["learned", "ddpg", "untrained"], 2)
    report = score_report(run, stuck_below=0.0)
    write_scores(run, report)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    document = json.loads(run.results.read_text(), parse_constant=refuse)
    assert document == scores_document(report)
    assert (document["run"], document["stuck_below"]) == ("tested", 0.0)
    assert [rule["rule"] for rule in document["rules"]] == ["learned", "ddpg", "untrained"]
    learned, ddpg, _ = document["rules"]
    assert ddpg["std"] is None
    assert ddpg["iqm"] == {"value": 7.0, "low": None, "high": None, "num_seeds": 1}
    assert (learned["first_is_better"], learned["stuck"]) == (None, 0)
    assert ddpg["first_is_better"]["value"] == 0.0
    assert document["seeds"][-1]["training_return"] is None
    assert document["seeds"][0]["score"] == 3.0


def test_results_without_scores_are_a_document_too(tmp_path: Path) -> None:
    run = finished(tmp_path, [], ["learned"], 1)
    report = score_report(run)
    write_scores(run, report)
    assert report == ScoreReport(run="tested", rules=(), seeds=(), stuck_below=None, remarks=())
    assert json.loads(run.results.read_text())["seeds"] == []
