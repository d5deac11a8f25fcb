"""Reads a run's metrics: JSON lines, one object per agent and round.

Knows how metrics lines look; knows nothing of figures or training. `metrics_file` writes them.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.run_dir.layout import RunDirectory

Record = dict[str, object]
"""One line of a metrics file: what one agent did in one round."""

_LARGEST_COUNT = 2**63
_LARGEST_FIGURE = 1e100
"""Far beyond anything in float32, and far from where sums and axes of figures overflow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRow:
    """One evaluation of one agent. Figures not known are NaN."""

    rule: str
    environment: str
    seed: int
    env_steps: int
    """Env steps the agent had made."""
    evaluation_return: float
    """Mean noise-free return, in reward units."""
    training_return: float
    """Mean return of the training episodes of the same round, exploration noise included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PopulationRow:
    """One agent at the end of one round of a meta-training. Figures not known are NaN."""

    agent_id: int
    environment: str
    env_steps: int
    """Env steps the agent had made."""
    mean_return: float
    """Mean return of the round's training episodes, in reward units."""
    evaluation_return: float
    """Mean noise-free return."""
    gain: float
    """J(φ_0) − J(φ_K) of the virtual step, in units of Q."""
    cosine: float
    """Between the policy gradients of the objective and of the critic."""
    inner_gradient_norm: float
    meta_gradient_norm: float
    """Raw, before clipping or scaling."""
    action_slack: float
    """Mean of 1 − a²: 0 where the actions are saturated."""
    critic_loss: float


def read_agent_metrics(metrics_dir: Path) -> list[Record]:
    """Return all lines of metrics/agent-NNN.jsonl, by agent and then as written.

    A last line without its newline is still being written, or was torn by a crash: it is left out.

    Raises:
        FileError: there is no such file, or a line is not a JSON object.
        StorageError: the system refuses to read.
    """
    paths = sorted(metrics_dir.glob("agent-*.jsonl"))
    if not paths:
        message = (
            f"No metrics in {metrics_dir}: got no agent-NNN.jsonl, expected one per agent. "
            "Name a run directory of mgrl"
        )
        raise FileError(message)
    return [record for path in paths for record in read_records(path)]


def read_evaluations(run: RunDirectory) -> list[EvaluationRow]:
    """Return every evaluation of a meta-test so far, by agent and then by env steps.

    Raises:
        FileError: the metrics are missing or damaged.
        StorageError: the system refuses to read.
    """
    return evaluation_rows(read_agent_metrics(run.metrics))


def evaluation_rows(records: Iterable[Mapping[str, object]]) -> list[EvaluationRow]:
    """Return the rounds that ended with an evaluation.

    Raises:
        FileError: a record lacks a key or holds the wrong kind of value.
    """
    return [row for row in round_rows(records) if not math.isnan(row.evaluation_return)]


def round_rows(records: Iterable[Mapping[str, object]]) -> list[EvaluationRow]:
    """Return all rounds; the evaluation is NaN where none was due.

    Raises:
        FileError: a record lacks a key or holds the wrong kind of value.
    """
    return [
        EvaluationRow(
            rule=_text(record, "rule"),
            environment=_text(record, "environment"),
            seed=_count(record, "seed"),
            env_steps=_count(record, "env_steps"),
            evaluation_return=_figure(record, "evaluation"),
            training_return=_figure(record, "mean_return"),
        )
        for record in records
    ]


def population_rows(records: Iterable[Mapping[str, object]]) -> list[PopulationRow]:
    """Return one row per agent and round.

    Raises:
        FileError: a record lacks a key or holds the wrong kind of value.
    """
    return [
        PopulationRow(
            agent_id=_count(record, "agent_id"),
            environment=_text(record, "environment"),
            env_steps=_count(record, "env_steps"),
            mean_return=_figure(record, "mean_return"),
            evaluation_return=_figure(record, "evaluation"),
            gain=_figure(record, "gain"),
            cosine=_figure(record, "cosine"),
            inner_gradient_norm=_figure(record, "inner_gradient_norm"),
            meta_gradient_norm=_figure(record, "meta_gradient_norm"),
            action_slack=_figure(record, "action_slack"),
            critic_loss=_figure(record, "critic_loss"),
        )
        for record in records
    ]


def read_records(path: Path) -> list[Record]:
    """Return all lines of one metrics file, but for a last one without its newline.

    Raises:
        FileError: a line is not a JSON object.
        StorageError: the system refuses to read.
    """
    try:
        *lines, _torn = path.read_bytes().split(b"\n")
    except OSError as error:
        message = f"Cannot read {path}: {error.strerror}. Check the permissions"
        raise StorageError(message) from error
    return [_parse_line(path, number, line) for number, line in enumerate(lines, start=1)]


def _parse_line(path: Path, number: int, line: bytes) -> Record:
    expected = "expected a JSON object. The file is damaged: restore it from a copy"
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        message = f"{path}, line {number}: got {line[:40]!r}, {expected}"
        raise FileError(message) from error
    if not isinstance(record, dict):
        message = f"{path}, line {number}: got a JSON {type(record).__name__}, {expected}"
        raise FileError(message)
    return cast("Record", record)


def _value(record: Mapping[str, object], key: str) -> object:
    if key not in record:
        message = (
            f"Metrics of agent {record.get('agent_id')}, round {record.get('round')} lack "
            f"'{key}', expected by this version. Read them with the version that wrote them"
        )
        raise FileError(message)
    return record[key]


def _wrong_kind(record: Mapping[str, object], key: str, expected: str) -> FileError:
    return FileError(
        f"Metrics of agent {record.get('agent_id')}, round {record.get('round')}: "
        f"got {record[key]!r:.40} as '{key}', expected {expected}. The file is damaged"
    )


def _text(record: Mapping[str, object], key: str) -> str:
    value = _value(record, key)
    if not isinstance(value, str):
        raise _wrong_kind(record, key, "text")
    return value


def _count(record: Mapping[str, object], key: str) -> int:
    value = _value(record, key)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= _LARGEST_COUNT:
        raise _wrong_kind(record, key, "a whole number")
    return value


def _figure(record: Mapping[str, object], key: str) -> float:
    value = _value(record, key)
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_kind(record, key, "a number or null")
    if abs(value) > _LARGEST_FIGURE:
        raise _wrong_kind(record, key, "a number that a run can measure")
    return float(value)
