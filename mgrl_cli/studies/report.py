"""How a study's table reads: as text, as Markdown in the form of a paper's table, and as CSV.

Knows nothing of files.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence

from mgrl_cli.run_dir.scores import SCORE
from mgrl_cli.statistics import Estimate
from mgrl_cli.studies.table import CellScore, Place, PlannedCell

SEEN_MARK = "*"
EARLY_MARK = "†"
_MISSING = "–"
_WHOLE_FROM = 1000.0
_TRIMMED_FROM = 4
"""Runs from which an interquartile mean leaves any out."""
_CSV_COLUMNS = (
    *("row", "training", "environment", "seen", "train_env_steps"),
    *("runs", "planned_runs", "objectives", "planned_objectives"),
    *("mean", "std", "iqm", "iqm_low", "iqm_high", "lowest", "highest"),
    *("reference", "better", "better_low", "better_high"),
    *("training_return", "stuck", "quarantined", "unfinished", "remark"),
)


def text_table(cells: Sequence[CellScore], missing: Sequence[PlannedCell] = ()) -> str:
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


def markdown_table(cells: Sequence[CellScore], missing: Sequence[PlannedCell] = ()) -> str:
    """Return the table as Markdown, and below it every cell in detail; as `text_table`."""
    environments = _environments(cells, missing)
    lines = [
        _line(["objective", "trained on", *environments]),
        _line(["---", "---", *("---:" for _ in environments)]),
    ]
    for row, found in _body(cells, missing):
        rule, _, training = row.partition(": ")
        lines.append(_line([rule, training or _MISSING, *found]))
    lines += ["", *(f"- {note}" for note in _notes(cells, missing))]
    if any(len(cell.runs) < _TRIMMED_FROM for cell in cells):
        lines.append("- IQM: of fewer than four runs it is their plain mean, nothing is cut off.")
    return "\n".join([*lines, "", *_detail(cells)]) + "\n"


def csv_table(cells: Sequence[CellScore], missing: Sequence[PlannedCell] = ()) -> str:
    """Return one line per planned cell; floats read back exactly, what is not known is empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for record in [*map(cell_record, cells), *map(_missing_record, missing)]:
        writer.writerow(["" if record[name] is None else record[name] for name in _CSV_COLUMNS])
    return text.getvalue()


def cell_record(cell: CellScore) -> dict[str, object]:
    """Return a cell as JSON values; what is not known is None."""
    better = cell.improvement
    states = [run.state for run in cell.runs]
    record: dict[str, object] = {
        "row": cell.row,
        "training": cell.planned.training,
        "environment": cell.environment,
        "seen": ("yes" if cell.is_seen else "no") if cell.planned.training else "",
        "train_env_steps": cell.train_env_steps,
        "runs": len(cell.runs),
        "planned_runs": cell.planned.runs,
        "objectives": cell.objectives,
        "planned_objectives": cell.planned.objectives,
        "mean": cell.mean,
        "std": cell.deviation,
        "iqm": cell.middle.value,
        "iqm_low": cell.middle.low,
        "iqm_high": cell.middle.high,
        "lowest": min(cell.scores),
        "highest": max(cell.scores),
        "reference": cell.reference,
        "better": None if better is None else better.value,
        "better_low": None if better is None else better.low,
        "better_high": None if better is None else better.high,
        "training_return": cell.training_return,
        "stuck": cell.stuck,
        "quarantined": states.count("quarantined"),
        "unfinished": states.count("unfinished"),
        "remark": "; ".join(cell.remarks),
    }
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in record.items()
    }


def _missing_record(planned: PlannedCell) -> dict[str, object]:
    known: dict[str, object] = {
        "row": planned.row,
        "training": planned.training,
        "environment": planned.environment,
        "runs": 0,
        "planned_runs": planned.runs,
        "objectives": 0,
        "planned_objectives": planned.objectives,
        "remark": "no result",
    }
    return {name: known.get(name) for name in _CSV_COLUMNS}


def _environments(cells: Sequence[CellScore], missing: Sequence[PlannedCell]) -> list[str]:
    return list(dict.fromkeys(it.environment for it in (*cells, *missing)))


def _body(
    cells: Sequence[CellScore], missing: Sequence[PlannedCell]
) -> list[tuple[str, list[str]]]:
    """Return each row's label and its cells, with a dash where nothing was measured."""
    found = {cell.planned.place: _score_text(cell) for cell in cells}
    columns = _environments(cells, missing)
    rows = dict.fromkeys(it.row for it in (*cells, *missing))
    return [(row, [found.get((row, column), _MISSING) for column in columns]) for row in rows]


def _padded(text: str) -> str:
    return text if SEEN_MARK in text else f"{text} "


def _score_text(cell: CellScore) -> str:
    spread = "" if math.isnan(cell.deviation) else f" ± {figure(cell.deviation)}"
    marks = (SEEN_MARK if cell.is_seen else "") + (EARLY_MARK if cell.has_early_ends else "")
    count = f" (n={len(cell.runs)} of {cell.planned.runs})" if cell.has_lost_runs else ""
    return f"{figure(cell.mean)}{spread}{marks}{count}"


def figure(value: float) -> str:
    """Return a score for a table: "12.3", "1234", "–" where there is none."""
    if math.isnan(value):
        return _MISSING
    return f"{value:.0f}" if abs(value) >= _WHOLE_FROM else f"{value:.1f}"


def _notes(cells: Sequence[CellScore], missing: Sequence[PlannedCell]) -> list[str]:
    """Return what the figures are, and what must be known of them."""
    runs = sorted({len(cell.runs) for cell in cells})
    counts = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]}–{runs[-1]}" if runs else "0"
    notes = [f"Mean ± standard deviation of {counts} runs per cell. Score of a run: {SCORE}."]
    objectives = sorted({it.objectives for it in (*(c.planned for c in cells), *missing)} - {0})
    if objectives and objectives[-1] > 1:
        notes.append(
            f"Learned objectives: over {objectives[-1]} objectives (meta-seeds) times their test "
            "seeds; intervals resample objectives first, then the runs of each."
        )
    if objectives and objectives[0] == 1:
        notes.append(
            "Where a learned row has one objective, its deviation and interval tell of that "
            "objective, and nothing of another training."
        )
    if any(cell.is_seen for cell in cells):
        notes.append(f"{SEEN_MARK} the objective was meta-trained on this environment.")
    if any(cell.has_early_ends for cell in cells):
        notes.append(f"{EARLY_MARK} some runs ended early and count as they stood then.")
    notes += [f"{where}: {remark}." for remark, where in _remarks(cells).items()]
    notes += [f"{it.row} on {it.environment}: no result." for it in missing]
    return notes


def _remarks(cells: Sequence[CellScore]) -> dict[str, str]:
    """Return each remark with the cells of which it is true, whole rows named as such."""
    places: dict[str, list[Place]] = {}
    for cell in cells:
        for remark in cell.remarks:
            places.setdefault(remark, []).append(cell.planned.place)
    columns: dict[str, list[str]] = {}
    for cell in cells:
        columns.setdefault(cell.row, []).append(cell.environment)
    return {
        remark: "All cells"
        if len(found) == len(cells) > 1
        else "; ".join(_row_text(row, found, columns[row]) for row in columns if _in(row, found))
        for remark, found in places.items()
    }


def _in(row: str, places: Sequence[Place]) -> list[str]:
    return [environment for found, environment in places if found == row]


def _row_text(row: str, places: Sequence[Place], columns: Sequence[str]) -> str:
    environments = _in(row, places)
    if len(environments) == len(columns) > 1:
        return row
    return f"{row} on {', '.join(environments)}"


def _detail(cells: Sequence[CellScore]) -> list[str]:
    """Return interquartile means and comparisons with their intervals, a line per cell."""
    reference = next((cell.reference for cell in cells if cell.reference), "")
    better = [f"P(beats {reference})", "95 % interval"] if reference else []
    titles = ["row", "environment", "runs", "IQM", "95 % interval", "lowest", "highest"]
    header = [*titles, *better, "note"]
    lines = [_line(header), _line(["---", "---", *("---:" for _ in header[3:]), "---"])]
    for cell in cells:
        figures = [f"{len(cell.runs)}", figure(cell.middle.value), _interval(cell.middle, figure)]
        figures += [figure(min(cell.scores)), figure(max(cell.scores))]
        if reference:
            chance = cell.improvement
            figures += (
                [_MISSING] * 2
                if chance is None
                else [_share(chance.value), _interval(chance, _share)]
            )
        lines.append(_line([cell.row, cell.environment, *figures, "; ".join(cell.remarks)]))
    return lines


def _share(value: float) -> str:
    return f"{value:.2f}"


def _interval(estimate: Estimate, text: Callable[[float], str]) -> str:
    if math.isnan(estimate.low):
        return _MISSING
    return f"{text(estimate.low)} to {text(estimate.high)}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
