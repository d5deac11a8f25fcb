"""The random generators that a process has one of, lent to one user at a time.

A library that draws from them would else give results that depend on who else draws in the same
process: on the number of workers, for a start.
"""

import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import final

import numpy as np
import torch


@final
class GlobalGenerators:
    """A user's own states of the generators of Python, NumPy and torch."""

    def __init__(self) -> None:
        """Begin where the generators stand; whoever needs certainty seeds them at the first use."""
        self._states = _states()

    @contextmanager
    def swapped_in(self) -> Generator[None]:
        """Let the global generators be this user's; nobody else notices."""
        others = _states()
        _set_states(self._states)
        try:
            yield
        finally:
            self._states = _states()
            _set_states(others)


_States = tuple[tuple[object, ...], tuple[object, ...], torch.Tensor]


def _states() -> _States:
    return random.getstate(), tuple(np.random.get_state(legacy=True)), torch.get_rng_state()


def _set_states(states: _States) -> None:
    of_python, of_numpy, of_torch = states
    random.setstate(of_python)
    np.random.set_state(of_numpy)  # pyright: ignore[reportArgumentType]
    torch.set_rng_state(of_torch)
