"""How a meta-test's final scores read: a table of single runs, one of what they say together.

Knows the report and a console's width; knows nothing of files or of how scores are computed.
"""

import math
from collections.abc import Callable, Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mgrl_cli.run_dir.scores import SCORE, RuleScore, ScoreReport, SeedScore
from mgrl_cli.statistics import Estimate
from mgrl_cli.ui.event_text import event_text
from mgrl_cli.ui.number_text import MISSING, return_text
from mgrl_cli.ui.tables import plain_table

_ONE_LINE_FROM = 110
"""Console width from which an interval stands beside its figure, not below it."""
_GAP = 2
_COARSE_FROM = 99_999.95


def score_lines(report: ScoreReport, width: int) -> Iterator[RenderableType]:
    """Yield tables and remarks, for a console `width` columns wide."""
    yield Text(f"final score: {SCORE}", style="bold")
    yield from _seed_tables(report.seeds, width)
    yield Text("")
    yield Text("over seeds, with 95 % bootstrap intervals", style="bold")
    yield _rule_table(report, width)
    for remark in report.remarks:
        yield Text(f"! {event_text(remark)}", style="yellow")


def score_text(value: float) -> str:
    """Return a score with one decimal, shorter where it is huge: "-12.3", "4.56M"; "–" for NaN."""
    if not math.isfinite(value) or abs(value) >= _COARSE_FROM:
        return return_text(value)
    return f"{value:.1f}"


def _seed_tables(seeds: Sequence[SeedScore], width: int) -> Iterator[Table]:
    """Yield one row per rule and one column per seed, in as many tables as the width asks for."""
    rules = list(dict.fromkeys(score.rule for score in seeds))
    numbers = sorted({score.seed for score in seeds})
    texts = {(score.rule, score.seed): score_text(score.score) for score in seeds}
    names = [event_text(rule) for rule in rules]
    cell_width = max(map(len, [*texts.values(), *(f"seed {number}" for number in numbers)]))
    room = width - max(map(len, names)) - _GAP
    per_table = max(1, room // (cell_width + _GAP))
    for start in range(0, len(numbers), per_table):
        table = plain_table()
        table.add_column("rule", style="bold")
        for number in numbers[start : start + per_table]:
            table.add_column(f"seed {number}", justify="right", min_width=cell_width)
        for rule, name in zip(rules, names, strict=True):
            cells = (
                texts.get((rule, number), MISSING) for number in numbers[start : start + per_table]
            )
            table.add_row(Text(name), *cells)
        yield table


def _rule_table(report: ScoreReport, width: int) -> Table:
    """Return one row per rule."""
    is_wide = width >= _ONE_LINE_FROM
    # A narrow console has room for neither decimals of large scores nor what can stand below.
    separator, text = (" ", score_text) if is_wide else ("\n", return_text)
    columns: list[tuple[str, Callable[[RuleScore], str]]] = [
        (f"mean{separator}± std", lambda rule: _mean(rule, text, separator)),
        (f"IQM{separator}[interval]", lambda rule: _interval(rule.iqm, text, separator)),
        ("training", lambda rule: text(rule.training_return)),
    ]
    if len(report.rules) > 1:
        header = f"P({event_text(report.rules[0].rule)}{separator}is better)"
        columns.insert(
            2, (header, lambda rule: _interval(rule.first_is_better, "{:.2f}".format, separator))
        )
    if len({rule.seeds for rule in report.rules}) > 1:
        columns.insert(0, ("seeds", lambda rule: str(rule.seeds)))
    if report.stuck_below is not None:
        header = f"below{separator}{text(report.stuck_below)}"
        columns.append((header, lambda rule: f"{rule.stuck} of {rule.seeds}"))
    table = plain_table()
    table.add_column("rule", style="bold", overflow="fold")
    for header, _ in columns:
        table.add_column(Text(header), justify="right")
    for rule in report.rules:
        table.add_row(Text(event_text(rule.rule)), *(cell(rule) for _, cell in columns))
    return table


def _mean(rule: RuleScore, text: Callable[[float], str], separator: str) -> str:
    """Return "12.3 ± 4.5"; the mean alone where there is one seed."""
    if rule.seeds == 1:
        return text(rule.mean)
    return f"{text(rule.mean)}{separator}± {text(rule.std)}"


def _interval(estimate: Estimate | None, text: Callable[[float], str], separator: str) -> str:
    """Return "12.3 [10.1, 15.0]"; the figure alone where there is no interval."""
    if estimate is None:
        return ""
    if math.isnan(estimate.low):
        return text(estimate.value)
    return f"{text(estimate.value)}{separator}[{text(estimate.low)}, {text(estimate.high)}]"
