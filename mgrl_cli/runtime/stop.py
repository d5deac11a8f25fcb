"""A request to stop, set once by the coordinator and seen by every worker."""

from typing import final

import torch

from mgrl_cli.runtime.shared_memory import shared


@final
class StopRequest:
    """One shared flag."""

    def __init__(self) -> None:
        self._flag = shared(torch.zeros((), dtype=torch.int64))

    @property
    def is_requested(self) -> bool:
        """Whether a stop has been asked for."""
        return bool(self._flag)

    def request(self) -> None:
        """Ask everyone to stop."""
        self._flag.fill_(1)
