"""Progress for logs and pipes: one line per round or event, plain ASCII, no escape codes.

Knows nothing of terminals.
"""

from typing import TextIO, final

from mgrl_cli.telemetry import RunSnapshot, ValidationSnapshot
from mgrl_cli.ui.event_text import event_text
from mgrl_cli.ui.guarded_stream import GuardedStream
from mgrl_cli.ui.number_text import (
    MISSING,
    count_text,
    duration_text,
    percent_text,
    return_text,
    small_text,
)
from mgrl_cli.ui.summary import (
    mean_gain,
    mean_returns,
    num_quarantined,
    run_fraction,
    total_env_steps,
)


@final
class PlainProgress:
    """Writes a line to `stream` for each round's end and each event.

    A round that ends again, after the run went back to a checkpoint, is written again.
    """

    def __init__(self, stream: TextIO, rounds_before: int = 0) -> None:
        """Write to `stream` from the round after `rounds_before` on: those were shown before."""
        self._stream = GuardedStream(stream)
        self._last_round = rounds_before

    def update(self, snapshot: RunSnapshot) -> None:
        """Write one line if rounds have ended since the last update.

        Raises:
            StorageError: the stream cannot be written for another reason than a closed pipe.
        """
        if snapshot.round_index > self._last_round:
            self._stream.write(round_line(snapshot) + "\n")
        self._last_round = snapshot.round_index  # back at times: a lost worker's rounds come again

    def announce(self, event: str) -> None:
        """Write `event` on one line, what is not ASCII escaped.

        Raises:
            StorageError: the stream cannot be written for another reason than a closed pipe.
        """
        text = event_text(event).encode("ascii", errors="backslashreplace").decode("ascii")
        self._stream.write(f"mgrl: {text}\n")


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
    if snapshot.validation is not None and snapshot.validation.round_index:
        parts.append(_validation_text(snapshot.validation))
    parts += [
        f"{count_text(snapshot.agent_steps_per_s)} agent-steps/s",
        f"ETA {duration_text(snapshot.eta_s)}",
    ]
    if snapshot.restarts:
        parts.append(f"{snapshot.restarts} restart{'s' if snapshot.restarts > 1 else ''}")
    if num_lost := num_quarantined(snapshot):
        parts.append(f"{num_lost} quarantined")
    return "  ".join(parts).replace(MISSING, "-")


def _validation_text(validation: ValidationSnapshot) -> str:
    scores = (f"{name} {return_text(score)}" for name, score in validation.scores.items())
    best = f"best {validation.best_round}" if validation.best_round else "no best"
    return f"validation {validation.round_index}: {' '.join(scores)} ({best})"
