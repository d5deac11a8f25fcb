"""TensorBoard event files, where the `tensorboard` extra is installed; nothing otherwise."""

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@final
class TensorBoardLog:
    """Scalars over env steps, one tag per figure and agent."""

    def __init__(self, directory: Path) -> None:
        """Remember where to write; opened at the first row, since the import takes seconds."""
        self._directory = directory
        self._writer: SummaryWriter | None = None
        self._is_available = importlib.util.find_spec("tensorboard") is not None

    def add(self, tag: str, row: Mapping[str, object]) -> None:
        """Write every finite float of a metrics row as `tag/name` at its env step; no counters."""
        if not self._is_available:
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._directory))
        env_steps = row["env_steps"]
        for name, value in row.items():
            if isinstance(value, float) and math.isfinite(value):
                self._writer.add_scalar(f"{tag}/{name}", value, env_steps)

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()
