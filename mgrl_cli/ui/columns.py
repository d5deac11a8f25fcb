"""The columns of the agents table, and which of them a terminal of a given width can hold.

Knows how one agent reads; knows nothing of the rest of the view or of terminals.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.text import Text

from mgrl_cli.telemetry import AgentSnapshot, AgentState, RunSnapshot
from mgrl_cli.ui.number_text import count_text, percent_text, return_text, small_text
from mgrl_cli.ui.sparkline import sparkline
from mgrl_cli.ui.summary import agent_fraction, state_name

STATE_STYLES: dict[AgentState, str] = {
    AgentState.STARTING: "dim",
    AgentState.EXPLORING: "cyan",
    AgentState.ANNEALING: "yellow",
    AgentState.LEARNING: "green",
    AgentState.RESTARTED: "magenta",
    AgentState.QUARANTINED: "bold red",
    AgentState.FINISHED: "bold blue",
}
_OUT_STYLE = "dim"
"""Of a quarantined agent's figures: they stand still, its state stands out."""
_BAR_WIDTH = 8
_MIN_CURVE_WIDTH = 8
_MAX_CURVE_WIDTH = 32
_ENVIRONMENT_SHARE = 7
"""Environment names take at most this part of the line."""
_WIDE_GAP_FROM = 60
"""From this terminal width on, columns stand two spaces apart."""

CellText = Callable[[AgentSnapshot, RunSnapshot], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One figure of every agent."""

    header: str
    text: CellText
    importance: int
    """Where room is short, the column with the least importance goes first."""
    min_width: int = 0
    """Kept even where the present figures are shorter, so that columns do not jump."""
    justify: Literal["left", "right"] = "right"
    style: str = ""
    is_curve: bool = False
    """The one column that takes the room that is left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenColumns:
    """The columns that fit, in their order, and their widths in cells."""

    columns: tuple[Column, ...]
    widths: tuple[int, ...]
    gap: int

    def cells(self, agent: AgentSnapshot, snapshot: RunSnapshot) -> list[Text]:
        """Return one row of the table."""
        return [
            _cell(column, width, agent, snapshot)
            for column, width in zip(self.columns, self.widths, strict=True)
        ]


def bar_text(fraction: float, width: int) -> str:
    """Return a bar of `width` cells, readable without colour."""
    filled = int(min(max(fraction, 0.0), 1.0) * width)
    return "━" * filled + "┄" * (width - filled)


def choose_columns(snapshot: RunSnapshot, width: int) -> ChosenColumns:
    """Return the most important columns that fit into `width` cells together."""
    gap = 2 if width >= _WIDE_GAP_FROM else 1
    columns = _columns_of(snapshot)
    widths = {column.header: _width_of(column, snapshot, width) for column in columns}

    def used_width() -> int:
        return sum(widths[column.header] for column in columns) + gap * (len(columns) - 1)

    while len(columns) > 1 and used_width() > width:
        columns.remove(min(columns, key=lambda column: column.importance))
    room = max(0, width - used_width())
    for column in columns:
        if column.is_curve:
            widths[column.header] = min(_MAX_CURVE_WIDTH, widths[column.header] + room)
    return ChosenColumns(
        columns=tuple(columns),
        widths=tuple(min(width, widths[column.header]) for column in columns),
        gap=gap,
    )


def _cell(column: Column, width: int, agent: AgentSnapshot, snapshot: RunSnapshot) -> Text:
    is_out = agent.state is AgentState.QUARANTINED
    style = _OUT_STYLE if is_out else column.style
    if column.is_curve:
        return Text(sparkline(agent.returns, width), style=style)
    if column.header == "state":
        style = STATE_STYLES[agent.state]
    text = Text(column.text(agent, snapshot), style=style)
    text.truncate(width, overflow="ellipsis")
    return text


def _width_of(column: Column, snapshot: RunSnapshot, width: int) -> int:
    if column.is_curve:
        return _MIN_CURVE_WIDTH
    texts = [column.text(agent, snapshot) for agent in snapshot.agents]
    natural = max([cell_len(column.header), column.min_width, *map(cell_len, texts)])
    if column.header != "environment":
        return natural
    # A Gymnasium id may be as long as it likes.
    return min(natural, max(column.min_width, width // _ENVIRONMENT_SHARE))


def _columns_of(snapshot: RunSnapshot) -> list[Column]:
    is_compared = snapshot.kind == "meta-test"
    columns = [
        Column(header="#", text=lambda agent, _: str(agent.agent_id), importance=95, style="dim"),
        Column(
            header="environment",
            text=lambda agent, _: agent.environment,
            importance=20 if is_compared else 98,
            min_width=8,
            justify="left",
        ),
    ]
    if is_compared:
        columns += [
            Column(header="rule", text=lambda agent, _: agent.rule, importance=99, justify="left"),
            Column(header="seed", text=lambda agent, _: str(agent.seed), importance=97),
        ]
    columns += _experience_columns()
    if snapshot.objective is not None:
        columns += _meta_columns()
    columns.append(
        Column(
            header="state",
            text=lambda agent, _: state_name(agent.state),
            importance=96,
            min_width=len("quarantined"),
            justify="left",
        )
    )
    return columns


def _experience_columns() -> list[Column]:
    return [
        _figure("env steps", lambda agent, _: count_text(agent.env_steps), 40),
        Column(
            header="",
            text=lambda agent, snapshot: bar_text(agent_fraction(agent, snapshot), _BAR_WIDTH),
            importance=10,
            style="cyan",
        ),
        Column(
            header="%",
            text=lambda agent, snapshot: percent_text(agent_fraction(agent, snapshot)),
            importance=94,
            min_width=len("100%"),
        ),
        _figure("episodes", lambda agent, _: count_text(agent.episodes), 35),
        _figure("last", lambda agent, _: return_text(agent.last_return), 50),
        Column(
            header="mean",
            text=lambda agent, _: return_text(agent.mean_return),
            importance=100,
            min_width=6,
            style="bold",
        ),
        _figure("eval", lambda agent, _: return_text(agent.last_evaluation), 60),
        Column(
            header="returns",
            text=lambda _agent, _snapshot: "",
            importance=80,
            justify="left",
            style="cyan",
            is_curve=True,
        ),
        _figure("critic loss", lambda agent, _: small_text(agent.critic_loss), 30),
    ]


def _meta_columns() -> list[Column]:
    return [
        _figure("meta-grad", lambda agent, _: small_text(agent.meta_gradient_norm), 70),
        _figure("Q gain", lambda agent, _: small_text(agent.gain, signed=True), 25, min_width=8),
    ]


def _figure(header: str, text: CellText, importance: int, min_width: int = 6) -> Column:
    return Column(header=header, text=text, importance=importance, min_width=min_width)
