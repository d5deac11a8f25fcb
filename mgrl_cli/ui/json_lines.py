"""Progress for scripts: one JSON object per round or event.

Knows nothing of terminals; the keys are the field names of `telemetry`.
"""

import json
import math
from dataclasses import asdict
from typing import TextIO, cast, final

from mgrl_cli.telemetry import RunSnapshot
from mgrl_cli.ui.guarded_stream import GuardedStream
from mgrl_cli.ui.summary import state_name


@final
class JsonLinesProgress:
    """Writes a JSON object on a line of its own to `stream` for each round's end and each event.

    A round that ends again, after the run went back to a checkpoint, is written again.
    """

    def __init__(self, stream: TextIO, rounds_before: int = 0) -> None:
        """Write to `stream` from the round after `rounds_before` on: those were shown before."""
        self._stream = GuardedStream(stream)
        self._last_round = rounds_before

    def update(self, snapshot: RunSnapshot) -> None:
        """Write one object if rounds have ended since the last update.

        Raises:
            StorageError: the stream cannot be written for another reason than a closed pipe.
        """
        if snapshot.round_index > self._last_round:
            self._write(round_record(snapshot))
        self._last_round = snapshot.round_index  # back at times: a lost worker's rounds come again

    def announce(self, event: str) -> None:
        """Write `{"event": ...}`, the event whole and as it is.

        Raises:
            StorageError: the stream cannot be written for another reason than a closed pipe.
        """
        # Half a surrogate pair would make the line invalid for many a JSON reader.
        self._write({"event": event.encode(errors="backslashreplace").decode()})

    def _write(self, record: dict[str, object]) -> None:
        self._stream.write(json.dumps(record, allow_nan=False) + "\n")


def round_record(snapshot: RunSnapshot) -> dict[str, object]:
    """Return the snapshot as JSON values: figures that are not finite as None, states as words.

    The agents' histories of returns are left out: each round would repeat them.
    """
    record = cast("dict[str, object]", _finite_or_none(asdict(snapshot)))
    for agent, source in zip(
        cast("list[dict[str, object]]", record["agents"]), snapshot.agents, strict=True
    ):
        del agent["returns"]
        agent["state"] = state_name(source.state)
    return record


def _finite_or_none(value: object) -> object:
    if isinstance(value, dict):
        mapping = cast("dict[str, object]", value)
        return {key: _finite_or_none(entry) for key, entry in mapping.items()}
    if isinstance(value, tuple | list):
        return [_finite_or_none(entry) for entry in cast("list[object]", value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
