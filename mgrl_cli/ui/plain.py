"""Progress for logs and pipes: one line per round, plain ASCII, no escape codes.

Knows nothing of terminals.
"""

from typing import TextIO, final

from mgrl_cli.telemetry import AgentState, RunSnapshot
from mgrl_cli.ui.guarded_stream import GuardedStream
from mgrl_cli.ui.number_text import (
    MISSING,
    count_text,
    duration_text,
    percent_text,
    return_text,
    small_text,
)
from mgrl_cli.ui.summary import mean_gain, mean_returns, run_fraction, total_env_steps


@final
class PlainProgress:
    """Writes a line to `stream` whenever a round has ended."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = GuardedStream(stream)
        self._last_round = 0

    def update(self, snapshot: RunSnapshot) -> None:
        """Write one line if rounds have ended since the last one.

        Raises:
            StorageError: the stream cannot be written for another reason than a closed pipe.
        """
        if snapshot.round_index > self._last_round:
            self._last_round = snapshot.round_index
            self._stream.write(round_line(snapshot) + "\n")


def round_line(snapshot: RunSnapshot) -> str:
    """Return the run at the end of a round in one line, unknown figures as "-"."""
    parts = [
        f"round {snapshot.round_index}/{snapshot.num_rounds} "
        f"({percent_text(run_fraction(snapshot))})",
        f"env steps {total_env_steps(snapshot):,}",
        *(f"{name} {return_text(value)}" for name, value in mean_returns(snapshot).items()),
    ]
    if snapshot.objective is not None:
        parts.append(f"gain {small_text(mean_gain(snapshot), signed=True)}")
    parts += [
        f"{count_text(snapshot.agent_steps_per_s)} agent-steps/s",
        f"ETA {duration_text(snapshot.eta_s)}",
    ]
    num_lost = sum(agent.state is AgentState.QUARANTINED for agent in snapshot.agents)
    if num_lost:
        parts.append(f"{num_lost} quarantined")
    return "  ".join(parts).replace(MISSING, "-")
