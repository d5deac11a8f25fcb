"""What is in an objective file: where it comes from, its parameters, its pull on a policy.

Does not know how a policy is trained with it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mgrl_cli.inspection.probe import Probe, probe
from mgrl_cli.inspection.statistics import Histogram, HistogramSum, Spread, spread_of
from mgrl_cli.objective_file import LearnedObjective

_BINS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorFigures:
    """One named part of the parameters."""

    name: str
    shape: tuple[int, ...]
    norm: float
    spread: Spread
    histogram: Histogram


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveReport:
    """An objective file that is whole: a damaged one is refused when it is loaded."""

    path: str
    size_bytes: int
    metadata: Mapping[str, object]
    """As the file has it: format, architecture, training, package versions, SHA-256."""
    num_parameters: int
    norm: float
    histogram: Histogram
    """Of all parameters."""
    tensors: tuple[TensorFigures, ...]
    probe: Probe
    warnings: tuple[str, ...]


def inspect_objective(path: Path) -> ObjectiveReport:
    """Load an objective file and look at it.

    Raises:
        FileError: missing, damaged, foreign or of an unknown version.
    """
    objective = LearnedObjective.load(path)
    params = objective.params.numpy()
    answer = probe(objective, objective.metadata.window_steps)
    return ObjectiveReport(
        path=str(path),
        size_bytes=path.stat().st_size,
        metadata=objective.metadata.model_dump(mode="json"),
        num_parameters=params.size,
        norm=_norm(params),
        histogram=_histogram(params),
        tensors=tuple(
            TensorFigures(
                name=name,
                shape=tuple(tensor.shape),
                norm=_norm(tensor.numpy()),
                spread=_spread(tensor.numpy()),
                histogram=_histogram(tensor.numpy()),
            )
            for name, tensor in objective.network.layout.views(objective.params).items()
        ),
        probe=answer,
        warnings=tuple(_warnings(objective, answer)),
    )


def _warnings(objective: LearnedObjective, answer: Probe) -> Iterator[str]:
    if answer.gradient_size == 0:
        yield "asks for nothing: its gradient is zero, a policy would not learn from it"
    elif not np.isfinite(answer.gradient_size):
        yield "its gradient is not finite on the synthetic batch"
    if objective.metadata.meta_steps == 0:
        yield "not trained: no meta-step has been made"


def _norm(values: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(values.astype(np.float64)))


def _spread(values: NDArray[np.float32]) -> Spread:
    return spread_of(values.astype(np.float64))


def _histogram(values: NDArray[np.float32]) -> Histogram:
    spread = _spread(values)
    total = HistogramSum(spread.min, spread.max, _BINS)
    total.add(values)
    return total.histogram()
