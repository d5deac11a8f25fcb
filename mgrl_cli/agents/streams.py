"""Named random streams from one root seed.

Each agent draws for each purpose from a stream of its own, so what one agent or purpose consumes
never shifts another, and results depend neither on the number of workers nor on their timing.
"""

from typing import Literal, get_args

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
