"""A run at one moment as text to look at: pure functions from snapshots to rich renderables.

Each function is given the room it has and stays within it. Knows nothing of terminals, of time or
of what was shown before.
"""

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from mgrl_cli.telemetry import ObjectiveSnapshot, RunSnapshot, ValidationSnapshot
from mgrl_cli.ui.columns import bar_text, choose_columns
from mgrl_cli.ui.number_text import (
    count_text,
    duration_text,
    percent_text,
    return_text,
    small_text,
)
from mgrl_cli.ui.summary import count_states, num_quarantined, run_fraction, total_env_steps

_TITLED_FROM_HEIGHT = 16
"""Lower terminals get no section lines: agents matter more."""
_MAX_BAR_WIDTH = 60
_TABLE_HEAD_LINES = 1


def render_run(snapshot: RunSnapshot, *, width: int, height: int | None) -> RenderableType:
    """Return the whole view: agents, objective, overall progress.

    Args:
        snapshot: what to show.
        width: cells per line.
        height: lines of the terminal, the view stays below it where at least one agent fits;
            None shows every agent.
    """
    is_titled = height is None or height >= _TITLED_FROM_HEIGHT
    below: list[RenderableType] = []
    if snapshot.objective is not None:
        below += [_rule("objective")] if is_titled else []
        below += objective_lines(snapshot.objective, width)
    if snapshot.validation is not None:
        below += [_rule("validation")] if is_titled else []
        below += validation_lines(snapshot.validation, width)
    below += [_rule("progress")] if is_titled else []
    below += progress_lines(snapshot, width)
    above: list[RenderableType] = [_rule(_title(snapshot))]
    max_rows = None
    if height is not None:
        # One line stays free: a frame as high as the terminal makes it scroll.
        max_rows = height - len(above) - _TABLE_HEAD_LINES - len(below) - 1
    return Group(*above, *agents_table(snapshot, width=width, max_rows=max_rows), *below)


def agents_table(
    snapshot: RunSnapshot, *, width: int, max_rows: int | None
) -> list[RenderableType]:
    """Return the table of agents and, where some do not fit, a line about those.

    Args:
        snapshot: the agents, in the order to show.
        width: cells per line; less important columns give way.
        max_rows: lines there are for agents, at least one is shown; None for no limit.
    """
    chosen = choose_columns(snapshot, width)
    table = Table(box=None, padding=(0, chosen.gap, 0, 0), pad_edge=False)
    for column, cells in zip(chosen.columns, chosen.widths, strict=True):
        header = Text(column.header, style="dim", no_wrap=True, overflow="ellipsis")
        table.add_column(header, justify=column.justify, width=cells, no_wrap=True)
    num_shown = len(snapshot.agents)
    if max_rows is not None and num_shown > max_rows:
        num_shown = max(1, max_rows - 1)
    for agent in snapshot.agents[:num_shown]:
        table.add_row(*chosen.cells(agent, snapshot))
    hidden = snapshot.agents[num_shown:]
    if not hidden:
        return [table]
    text = Text(f"… and {len(hidden)} more: {count_states(hidden)}", style="dim")
    text.truncate(width, overflow="ellipsis")
    return [table, text]


def objective_lines(objective: ObjectiveSnapshot, width: int) -> list[Text]:
    """Return the shared objective's figures, on as few lines as `width` allows."""
    return _packed(
        [
            ("version", f"{objective.version:,}"),
            ("parameter norm", small_text(objective.parameter_norm)),
            ("gradient norm", small_text(objective.gradient_norm)),
            ("Q gain", small_text(objective.gain, signed=True)),
        ],
        width,
    )


def validation_lines(validation: ValidationSnapshot, width: int) -> list[Text]:
    """Return the newest test of the objective, the best one and the one in progress."""
    items: list[tuple[str, str]] = []
    if validation.testing_round:
        done = percent_text(validation.fraction)
        items.append(("testing", f"round {validation.testing_round} ({done})"))
    newest, best = validation.round_index, validation.best_round
    items.append(("newest", f"round {newest}" if newest else "none yet"))
    items += [(name, return_text(score)) for name, score in validation.scores.items()]
    if best and best != newest:
        items.append(("best", f"round {best}"))
        items += [(name, return_text(score)) for name, score in validation.best_scores.items()]
    elif best:
        items.append(("best", "the same"))
    return _packed(items, width)


def progress_lines(snapshot: RunSnapshot, width: int) -> list[Text]:
    """Return the overall bar with the time left, and the run's pace below it."""
    fraction = run_fraction(snapshot)
    figures = f" {percent_text(fraction)}  ETA {duration_text(snapshot.eta_s)}"
    bar_width = min(_MAX_BAR_WIDTH, max(0, width - len(figures)))
    bar = Text(bar_text(fraction, bar_width), style="cyan", no_wrap=True, overflow="crop")
    bar.append(figures, style="bold default")
    all_steps = snapshot.steps_per_agent * len(snapshot.agents)
    saved = f"round {snapshot.saved_rounds}" if snapshot.saved_rounds > 0 else "nothing yet"
    items = [
        ("round", f"{snapshot.round_index}/{snapshot.num_rounds}"),
        ("env steps", f"{count_text(total_env_steps(snapshot))}/{count_text(all_steps)}"),
        ("agent-steps/s", count_text(snapshot.agent_steps_per_s)),
        ("elapsed", duration_text(snapshot.elapsed_s)),
        ("saved", saved),
    ]
    if snapshot.restarts:
        items.append(("restarts", str(snapshot.restarts)))
    if num_lost := num_quarantined(snapshot):
        items.append(("quarantined", str(num_lost)))
    return [bar, *_packed(items, width)]


def _title(snapshot: RunSnapshot) -> str:
    environments = dict.fromkeys(agent.environment for agent in snapshot.agents)
    return f"{snapshot.kind} {snapshot.name}  {', '.join(environments)}"


def _rule(title: str) -> Rule:
    text = Text(title, style="bold", no_wrap=True, overflow="ellipsis")
    return Rule(text, align="left", style="dim")


def _packed(items: list[tuple[str, str]], width: int) -> list[Text]:
    """Return "name figure" pairs, as many on a line as fit into `width` cells."""
    gap = "   "
    lines: list[Text] = []
    for name, figure in items:
        item = Text.assemble((f"{name} ", "dim"), figure, no_wrap=True, overflow="ellipsis")
        if lines and lines[-1].cell_len + len(gap) + item.cell_len <= width:
            lines[-1].append(gap).append_text(item)
        else:
            lines.append(item)
    return lines
