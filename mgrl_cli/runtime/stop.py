"""A request to stop, set once by the coordinator and seen by every worker."""

import signal
from typing import final

import torch

from mgrl_cli.runtime.shared_memory import shared


@final
class StopRequest:
    """One shared flag, which says by which signal the stop was asked for."""

    def __init__(self) -> None:
        self._flag = shared(torch.zeros((), dtype=torch.int64))

    @property
    def is_requested(self) -> bool:
        """Whether a stop has been asked for."""
        return bool(self._flag)

    @property
    def signal_number(self) -> int | None:
        """The signal that asked for a stop; None as long as none has."""
        return int(self._flag) or None

    def request(self, signal_number: int = signal.SIGTERM) -> None:
        """Ask everyone to stop."""
        self._flag.fill_(int(signal_number))
