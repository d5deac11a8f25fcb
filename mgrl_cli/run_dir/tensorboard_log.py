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
    """Scalars over the env steps of one agent, one tag per figure and agent."""

    def __init__(self, directory: Path, *, purge_from: int) -> None:
        """Remember where to write; opened at the first row, since the import takes seconds.

        Args:
            directory: of the event files.
            purge_from: step from which on what earlier files hold is void, since a run continues
                from a checkpoint.
        """
        self._directory = directory
        self._purge_from = purge_from
        self._writer: SummaryWriter | None = None
        self._is_available = importlib.util.find_spec("tensorboard") is not None

    def add(self, tag: str, row: Mapping[str, object], step: int) -> None:
        """Write every finite float of a metrics row as `tag/name`; no counters.

        Args:
            tag: whose figures.
            row: the figures.
            step: env steps that each agent was to have made.
        """
        if not self._is_available:
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._directory), purge_step=self._purge_from)
        for name, value in row.items():
            if isinstance(value, float) and math.isfinite(value):
                self._writer.add_scalar(f"{tag}/{name}", value, step)

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()
