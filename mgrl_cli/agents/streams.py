"""Named random streams from one root seed.

Each agent draws for each purpose from a stream of its own, so what one agent or purpose consumes
never shifts another, and results depend neither on the number of workers nor on their timing.
"""

from collections.abc import Mapping
from typing import Any, Literal, final, get_args

import numpy as np

Purpose = Literal[
    "objective", "networks", "environment", "exploration", "replay", "target_noise", "evaluation"
]
_PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


def random_stream(root_seed: int, purpose: Purpose, index: int = 0) -> np.random.Generator:
    """Return the generator of one purpose.

    Args:
        root_seed: seed of the run.
        purpose: what the draws are for. The order of `Purpose` is part of what a seed means.
        index: agent in meta-training, test seed in meta-testing.
    """
    key = (_PURPOSES.index(purpose), index)
    return np.random.default_rng(np.random.SeedSequence(root_seed, spawn_key=key))


def draw_seed(rng: np.random.Generator) -> int:
    """Return a seed for one episode of an environment."""
    return int(rng.integers(2**31))


@final
class Streams:
    """Where one agent draws from, one stream for each purpose."""

    def __init__(self, root_seed: int, index: int) -> None:
        """Begin all streams of an agent; the arguments are those of `random_stream`."""
        self.networks = random_stream(root_seed, "networks", index)
        self.environment = random_stream(root_seed, "environment", index)
        self.exploration = random_stream(root_seed, "exploration", index)
        self.replay = random_stream(root_seed, "replay", index)
        self.target_noise = random_stream(root_seed, "target_noise", index)
        self.evaluation = random_stream(root_seed, "evaluation", index)

    def state(self) -> dict[str, dict[str, Any]]:
        """Return where every stream stands, made of text and (large) whole numbers only."""
        return {name: dict(rng.bit_generator.state) for name, rng in vars(self).items()}

    def set_state(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Continue where other streams stood.

        Raises:
            ValueError: not a result of `state`.
        """
        if state.keys() != vars(self).keys():
            raise ValueError(f"got random streams {sorted(state)}, expected {sorted(vars(self))}")
        for name, rng in vars(self).items():
            try:
                rng.bit_generator.state = dict(state[name])
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"random stream '{name}' is damaged: {error}") from error
            # NumPy rounds what is not whole and passes over what it does not know.
            if rng.bit_generator.state != state[name]:
                raise ValueError(f"random stream '{name}' is damaged: not as NumPy writes one")
