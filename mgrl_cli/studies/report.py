"""How a study's table reads: as text, as Markdown in the form of a paper's table, and as CSV.

Knows nothing of files.
"""

import csv
import io
import math
from collections.abc import Sequence

from mgrl_cli.run_dir.scores import SCORE
from mgrl_cli.studies.table import CellScore

SEEN_MARK = "*"
_MISSING = "–"
_WHOLE_FROM = 1000.0
_CSV_COLUMNS = (
    *("row", "training", "environment", "seen", "train_env_steps", "runs", "objectives"),
    *("mean", "std", "iqm", "iqm_low", "iqm_high", "lowest", "highest"),
    *("training_return", "stuck", "cut_short", "remark"),
)


Place = tuple[str, str]
"""A cell by its row and its environment."""


def text_table(cells: Sequence[CellScore], missing: Sequence[Place] = ()) -> str:
    """Return the table for a terminal: mean ± std, a row per objective or rule.

    Args:
        cells: what was measured.
        missing: where something should have been; gets a dash and is named below.
    """
    header = ["", *_environments(cells, missing)]
    body = [[row, *found] for row, found in _body(cells, missing)]
    if any(cell.is_seen for cell in cells):  # figures stay below each other
        aligned = [[_padded(text) for text in line[1:]] for line in body]
        body = [[line[0], *padded] for line, padded in zip(body, aligned, strict=True)]
    widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [header, *body]
    ]
    return "\n".join([*lines, "", *_notes(cells, missing)]) + "\n"


def markdown_table(cells: Sequence[CellScore], missing: Sequence[Place] = ()) -> str:
    """Return the table as Markdown, and below it every cell in detail; as `text_table`."""
    environments = _environments(cells, missing)
    lines = [
        _line(["objective", "trained on", *environments]),
        _line(["---", "---", *("---:" for _ in environments)]),
    ]
    for row, found in _body(cells, missing):
        rule, _, training = row.partition(": ")
        lines.append(_line([rule, training or _MISSING, *found]))
    lines += ["", *(f"- {note}" for note in _notes(cells, missing)), "", *_detail(cells)]
    return "\n".join(lines) + "\n"


def csv_table(cells: Sequence[CellScore]) -> str:
    """Return one line per cell; floats read back exactly, what is not known is empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for record in map(cell_record, cells):
        writer.writerow(["" if record[name] is None else record[name] for name in _CSV_COLUMNS])
    return text.getvalue()


def cell_record(cell: CellScore) -> dict[str, object]:
    """Return a cell as JSON values; what is not known is None."""
    record: dict[str, object] = {
        "row": cell.row,
        "training": cell.training,
        "environment": cell.environment,
        "seen": ("yes" if cell.is_seen else "no") if cell.training else "",
        "train_env_steps": cell.train_env_steps,
        "runs": len(cell.scores),
        "objectives": cell.objectives,
        "mean": cell.mean,
        "std": cell.deviation,
        "iqm": cell.middle.value,
        "iqm_low": cell.middle.low,
        "iqm_high": cell.middle.high,
        "lowest": min(cell.scores),
        "highest": max(cell.scores),
        "training_return": cell.training_return,
        "stuck": cell.stuck,
        "cut_short": cell.cut_short,
        "remark": cell.remark,
    }
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in record.items()
    }


def _environments(cells: Sequence[CellScore], missing: Sequence[Place]) -> list[str]:
    lost = (environment for _, environment in missing)
    return list(dict.fromkeys([*(cell.environment for cell in cells), *lost]))


def _body(cells: Sequence[CellScore], missing: Sequence[Place]) -> list[tuple[str, list[str]]]:
    """Return each row's label and its cells, with a dash where nothing was measured."""
    found = {(cell.row, cell.environment): _score_text(cell, _usual_runs(cells)) for cell in cells}
    columns = _environments(cells, missing)
    rows = dict.fromkeys([*(cell.row for cell in cells), *(row for row, _ in missing)])
    return [(row, [found.get((row, column), _MISSING) for column in columns]) for row in rows]


def _padded(text: str) -> str:
    return text if SEEN_MARK in text else f"{text} "


def _usual_runs(cells: Sequence[CellScore]) -> int:
    return max((len(cell.scores) for cell in cells if not cell.training), default=0) or max(
        (len(cell.scores) for cell in cells), default=0
    )


def _score_text(cell: CellScore, usual_runs: int) -> str:
    runs = len(cell.scores)
    expected = usual_runs * max(1, cell.objectives)
    spread = "" if math.isnan(cell.deviation) else f" ± {figure(cell.deviation)}"
    mark = SEEN_MARK if cell.is_seen else ""
    count = f" (n={runs})" if runs not in (expected, usual_runs) else ""
    return f"{figure(cell.mean)}{spread}{mark}{count}"


def figure(value: float) -> str:
    """Return a score for a table: "12.3", "1234", "–" where there is none."""
    if math.isnan(value):
        return _MISSING
    return f"{value:.0f}" if abs(value) >= _WHOLE_FROM else f"{value:.1f}"


def _notes(cells: Sequence[CellScore], missing: Sequence[Place]) -> list[str]:
    """Return what the figures are, and what must be known of them."""
    runs = sorted({len(cell.scores) for cell in cells})
    counts = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]}–{runs[-1]}" if runs else "0"
    notes = [f"Mean ± standard deviation of {counts} runs per cell. Score of a run: {SCORE}."]
    objectives = max((cell.objectives for cell in cells), default=0)
    if objectives > 1:
        notes.append(
            f"Learned objectives: over {objectives} objectives (meta-seeds) times their test seeds."
        )
    if any(cell.is_seen for cell in cells):
        notes.append(f"{SEEN_MARK} the objective was meta-trained on this environment.")
    notes += dict.fromkeys(
        f"{cell.row} on {cell.environment}: {part}"
        for cell in cells
        for part in cell.remark.split("; ")
        if part.endswith(("stuck", "ended early"))
    )
    notes += [f"{row} on {environment}: no result." for row, environment in missing]
    return notes


def _detail(cells: Sequence[CellScore]) -> list[str]:
    """Return the interquartile means with their intervals, a line per cell."""
    lines = [
        _line(["row", "environment", "runs", "IQM", "95 % interval", "lowest", "highest", "note"]),
        _line(["---", "---", "---:", "---:", "---:", "---:", "---:", "---"]),
    ]
    for cell in cells:
        low, high = cell.middle.low, cell.middle.high
        interval = _MISSING if math.isnan(low) else f"{figure(low)} to {figure(high)}"
        extremes = [figure(min(cell.scores)), figure(max(cell.scores))]
        counted = [str(len(cell.scores)), figure(cell.middle.value), interval, *extremes]
        lines.append(_line([cell.row, cell.environment, *counted, cell.remark]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
