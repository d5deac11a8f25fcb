"""An objective file in words: where it comes from, its parameters, what it does to a policy."""

from collections.abc import Iterator

from mgrl_cli.inspection.describe_replay import notes
from mgrl_cli.inspection.objective import ObjectiveReport
from mgrl_cli.inspection.probe import PROBE_EXPLANATION, Probe
from mgrl_cli.inspection.sections import Cell, Curve, Facts, Section, Size, Table


def describe_objective(report: ObjectiveReport) -> Iterator[Section]:
    """Yield everything about one objective."""
    yield Facts(
        "objective",
        (
            *((name.replace("_", " "), _text(value)) for name, value in report.metadata.items()),
            ("size", Size(report.size_bytes)),
            ("parameters", report.num_parameters),
            ("norm", report.norm),
            ("histogram", Curve(report.histogram.counts)),
        ),
    )
    yield Table(
        "Parameters",
        ("tensor", "shape", "norm", "min", "max", "histogram"),
        tuple(
            (tensor.name, " × ".join(map(str, tensor.shape)), tensor.norm, tensor.spread.min,
             tensor.spread.max, Curve(tensor.histogram.counts))
            for tensor in report.tensors
        ),
    )  # fmt: skip
    yield Table(
        "Pull on a policy (synthetic batch)",
        ("signal", "high", "low", "difference", "pulls the policy"),
        tuple(
            (pull.signal.replace("_", " "), pull.when_high, pull.when_low, pull.difference,
             f"{pull.verdict} actions with a high {pull.signal.replace('_', ' ')}")
            for pull in report.probe.pulls
        ),
        note=f"{PROBE_EXPLANATION}; mean |gradient| {report.probe.gradient_size:.3g}",
    )  # fmt: skip
    yield from notes((), report.warnings)


def objective_facts(report: ObjectiveReport) -> tuple[tuple[str, Cell], ...]:
    """Return the few lines that a run's report has room for."""
    return (
        ("meta-steps", _text(report.metadata["meta_steps"])),
        ("parameter norm", report.norm),
        ("weights", Curve(report.histogram.counts)),
        ("pulls the policy", _reward_verdict(report.probe)),
        ("sha256", str(report.metadata["sha256"])),
    )


def _reward_verdict(answer: Probe) -> str:
    verdicts = {pull.signal: pull.verdict for pull in answer.pulls}
    return f"{verdicts['reward']} well-rewarded actions"


def _text(value: object) -> str:
    """Return a metadata value on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
