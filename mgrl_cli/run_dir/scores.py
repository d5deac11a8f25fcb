"""Final scores of a meta-test: what remains of each learning curve, and what that allows to say.

The figures are those of `mgrl_cli.statistics`. Knows nothing of how they are shown.
"""

import json
import math
import statistics
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np

from mgrl_cli.config import RunConfig
from mgrl_cli.run_dir.atomic import write_atomically
from mgrl_cli.run_dir.checkpoints import newest_manifest
from mgrl_cli.run_dir.layout import RunDirectory, agent_name
from mgrl_cli.run_dir.metrics import EvaluationRow, read_evaluations
from mgrl_cli.run_dir.settings import read_settings
from mgrl_cli.statistics import (
    Estimate,
    bootstrap,
    interquartile_mean,
    mean_and_deviation,
    probability_of_improvement,
    seed_remark,
    stuck_runs,
)

SCORE = "mean noise-free return of the last 3 evaluations"
_LAST_EVALUATIONS = 3
_RESAMPLES = 10_000


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
    """Evaluated at least once; the others are in no figure here."""
    mean: float
    std: float
    """Sample standard deviation; NaN for a single seed."""
    lowest: float
    highest: float
    iqm: Estimate
    """Interquartile mean; below four seeds this is the plain mean."""
    training_return: float
    """Mean over seeds of `SeedScore.training_return`; NaN where none is known."""
    first_is_better: Estimate | None
    """How likely a run of the first rule beats one of this rule; None for the first itself."""
    stuck: int | None
    """Runs whose score lies below the floor that the user gave; None where none was given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreReport:
    """All there is to say about a meta-test's final scores."""

    run: str
    rules: tuple[RuleScore, ...]
    """In the order of the run's settings; only those evaluated at all."""
    seeds: tuple[SeedScore, ...]
    stuck_below: float | None
    """Floor of `RuleScore.stuck`."""
    remarks: tuple[str, ...]
    """What must be said beside the figures so that they are not taken for more."""


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


def rule_scores(
    scores: Sequence[SeedScore], *, root_seed: int, stuck_below: float | None = None
) -> list[RuleScore]:
    """Return what each rule's final scores allow to say, in the order in which rules first come.

    Args:
        scores: of one run.
        root_seed: of the run; the bootstrap draws from streams of its own that follow from it, so
            the same scores give the same intervals.
        stuck_below: scores below are counted as stuck; None: not counted.

    Raises:
        UsageError: `stuck_below` is not finite.
    """
    by_rule: dict[str, list[SeedScore]] = {}
    for score in scores:
        by_rule.setdefault(score.rule, []).append(score)
    first = next(iter(by_rule.values()), [])
    return [
        _rule_score(own, None if own is first else first, root_seed, stuck_below)
        for own in by_rule.values()
    ]


def score_report(run: RunDirectory, *, stuck_below: float | None = None) -> ScoreReport:
    """Return the final scores of a meta-test, as far as it has come.

    Args:
        run: a meta-test.
        stuck_below: as in `rule_scores`.

    Raises:
        FileError: settings or metrics are missing or damaged.
        UsageError: a setting is invalid, or `stuck_below` is not finite.
        StorageError: the system refuses to read.
    """
    config = read_settings(run)
    seeds = seed_scores(read_evaluations(run))
    rules = rule_scores(seeds, root_seed=config.seed, stuck_below=stuck_below)
    return ScoreReport(
        run=run.name,
        rules=tuple(rules),
        seeds=tuple(seeds),
        stuck_below=stuck_below,
        remarks=(*_seed_remarks(rules), *_left_out(run, config), *_unscored(config, seeds)),
    )


def scores_document(report: ScoreReport) -> dict[str, object]:
    """Return the scores as one JSON document; NaN is null."""
    document = asdict(report)
    return {
        "run": document.pop("run"),
        "score": SCORE,
        "interval": f"95 %, percentile bootstrap over seeds, {_RESAMPLES} resamples",
        **cast("dict[str, object]", _without_nan(document)),
    }


def write_scores(run: RunDirectory, report: ScoreReport) -> None:
    """Write `results.json`.

    Raises:
        StorageError: the operating system refused.
    """
    document = json.dumps(scores_document(report), indent=2, allow_nan=False) + "\n"
    write_atomically(run.results, document.encode())


def _rule_score(
    own: Sequence[SeedScore],
    first: Sequence[SeedScore] | None,
    root_seed: int,
    stuck_below: float | None,
) -> RuleScore:
    rule, values = own[0].rule, [score.score for score in own]
    mean, std = mean_and_deviation(values)
    better = None
    if first is not None:
        better = probability_of_improvement(
            {"run": [score.score for score in first]},
            {"run": values},
            _stream(root_seed, "improvement", rule),
            _RESAMPLES,
        )
    return RuleScore(
        rule=rule,
        seeds=len(values),
        mean=mean,
        std=std,
        lowest=min(values),
        highest=max(values),
        iqm=bootstrap(
            {"run": values}, interquartile_mean, _stream(root_seed, "iqm", rule), _RESAMPLES
        ),
        training_return=_mean_known(score.training_return for score in own),
        first_is_better=better,
        stuck=None if stuck_below is None else stuck_runs(values, stuck_below),
    )


def _stream(root_seed: int, *names: str) -> np.random.Generator:
    """Return a generator for one interval: what is compared beside it does not shift it."""
    key = [zlib.crc32(name.encode(errors="backslashreplace")) for name in ("scores", *names)]
    return np.random.default_rng(np.random.SeedSequence(root_seed, spawn_key=key))


def _seed_remarks(rules: Sequence[RuleScore]) -> list[str]:
    """Return what is to be said of the intervals, once for all rules of which it is true."""
    groups: dict[str, list[str]] = {}
    for rule in rules:
        groups.setdefault(seed_remark(rule.iqm), []).append(rule.rule)
    return [
        f"{'all rules' if len(names) == len(rules) > 1 else ', '.join(names)}, {remark}"
        for remark, names in groups.items()
        if remark
    ]


def _left_out(run: RunDirectory, config: RunConfig) -> list[str]:
    """Return a line for every agent in quarantine: its score is that of a shorter run."""
    manifest = newest_manifest(run)
    quarantined = manifest.quarantined if manifest is not None else {}
    return [
        f"{rule}, seed {seed} was left out of the run before its end; its score is of what it did"
        for number, rule in enumerate(config.rules)
        for seed in range(config.seeds)
        if agent_name(number * config.seeds + seed) in quarantined
    ]


def _unscored(config: RunConfig, seeds: Sequence[SeedScore]) -> list[str]:
    """Return a line for every agent without a score: it is missing from its rule's figures."""
    scored = {(score.rule, score.seed) for score in seeds}
    if not scored:
        return []
    return [
        f"{rule}, seed {seed} was never evaluated and is in no figure"
        for rule in config.rules
        for seed in range(config.seeds)
        if (rule, seed) not in scored
    ]


def _mean_known(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        figures = cast("Mapping[str, object]", value)
        return {key: _without_nan(figure) for key, figure in figures.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in cast("Sequence[object]", value)]
    return None if isinstance(value, float) and math.isnan(value) else value
