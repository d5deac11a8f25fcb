"""How likely what an agent did was under what it did it with.

Densities are over actions before clipping, in [-1, 1] units: a clipped action has none. Knows
nothing of storage or learning.
"""

from math import log, pi

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from mgrl_cli.replay.schema import BehaviourKind


def behaviour_log_density(
    raw_action: Float32[ndarray, "steps act"],
    behaviour_mean: Float32[ndarray, "steps act"],
    behaviour_kind: UInt8[ndarray, " steps"],
    noise: float,
) -> Float32[ndarray, " steps"]:
    """Return log b(a) of every step: log (1/2)^A where random, else log N(a; mean, noise²).

    Args:
        raw_action: before clipping.
        behaviour_mean: what the policy proposed; not looked at where random.
        behaviour_kind: a `BehaviourKind` per step.
        noise: standard deviation of the exploration, above 0.
    """
    act_size = raw_action.shape[1]
    distance = (raw_action.astype(np.float64) - behaviour_mean) / noise
    gaussian = -0.5 * np.square(distance).sum(axis=1) - act_size * log(noise * (2 * pi) ** 0.5)
    is_random = behaviour_kind == BehaviourKind.RANDOM
    return np.where(is_random, -act_size * log(2.0), gaussian).astype(np.float32)
