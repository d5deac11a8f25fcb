"""What the validations of a run have measured, as far as their metrics can be read."""

from dataclasses import dataclass

from mgrl_cli.errors import FileError
from mgrl_cli.inspection.metrics import MetricsSummary
from mgrl_cli.run_dir.validations import best_validation, validations_of


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationLine:
    """One test of the objective on fresh agents."""

    round: int
    scores: dict[str, float]
    """Environment → mean final score; NaN where an agent has none."""
    is_best: bool


def validation_lines(file: MetricsSummary) -> tuple[tuple[ValidationLine, ...], str]:
    """Return the validations that a file tells of, and what is wrong with it ("": nothing)."""
    try:
        validations = validations_of(file.rows)
    except FileError as error:
        return (), str(error)
    best = best_validation(validations)
    lines = (
        ValidationLine(round=each.round_index, scores=each.scores, is_best=each is best)
        for each in validations
    )
    return tuple(lines), file.problem
