"""Final scores of a meta-test: what remains of each learning curve."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from mgrl_cli.run_dir.atomic import write_atomically
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.metrics import EvaluationRow

_LAST_EVALUATIONS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedScore:
    """One fresh agent's final score."""

    rule: str
    seed: int
    env_steps: int
    """Env steps at its last evaluation."""
    score: float
    """Mean noise-free return of the last 3 evaluations."""
    training_return: float
    """Mean training return, with exploration noise, of the rounds of these evaluations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleScore:
    """One rule's final scores over its seeds."""

    rule: str
    seeds: int
    mean: float
    std: float
    """Sample standard deviation; NaN for a single seed."""
    lowest: float
    highest: float


def seed_scores(rows: Iterable[EvaluationRow]) -> list[SeedScore]:
    """Return the final score of every agent that was evaluated, in the rows' order of agents."""
    curves: dict[tuple[str, int], list[EvaluationRow]] = {}
    for row in rows:
        curves.setdefault((row.rule, row.seed), []).append(row)
    return [
        SeedScore(
            rule=rule,
            seed=seed,
            env_steps=curve[-1].env_steps,
            score=statistics.fmean(row.evaluation_return for row in curve[-_LAST_EVALUATIONS:]),
            training_return=_mean_known(row.training_return for row in curve[-_LAST_EVALUATIONS:]),
        )
        for (rule, seed), curve in curves.items()
    ]


def rule_scores(scores: Sequence[SeedScore]) -> list[RuleScore]:
    """Return mean, spread and range of each rule's final scores."""
    by_rule: dict[str, list[float]] = {}
    for score in scores:
        by_rule.setdefault(score.rule, []).append(score.score)
    return [
        RuleScore(
            rule=rule,
            seeds=len(values),
            mean=statistics.fmean(values),
            std=statistics.stdev(values) if len(values) > 1 else math.nan,
            lowest=min(values),
            highest=max(values),
        )
        for rule, values in by_rule.items()
    ]


def scores_document(run: RunDirectory, scores: Sequence[SeedScore]) -> dict[str, object]:
    """Return the scores as one JSON document; NaN is null."""
    return {
        "run": run.name,
        "score": f"mean noise-free return of the last {_LAST_EVALUATIONS} evaluations",
        "rules": [_without_nan(asdict(score)) for score in rule_scores(scores)],
        "seeds": [_without_nan(asdict(score)) for score in scores],
    }


def write_scores(run: RunDirectory, scores: Sequence[SeedScore]) -> None:
    """Write `results.json`.

    Raises:
        StorageError: the operating system refused.
    """
    document = scores_document(run, scores)
    write_atomically(run.results, (json.dumps(document, indent=2) + "\n").encode())


def _mean_known(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def _without_nan(figures: dict[str, object]) -> dict[str, object]:
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in figures.items()
    }
