"""Returns and advantages of whole episodes, for learning from one's own newest experience.

One episode at a time, because that is how they come: L steps, L + 1 values. Chooses nothing.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def discounted_sums(
    terms: Float[Tensor, " steps"], *, rate: float, last: float = 0.0
) -> Float[Tensor, " steps"]:
    """Return S_t = x_t + rate · S_{t+1}, with S after the last step given.

    Args:
        terms: x_t.
        rate: per step, in [0, 1].
        last: S_L, what comes after the last step.
    """
    sums: list[float] = []
    running = last
    for term in reversed(terms.tolist()):
        running = term + rate * running
        sums.append(running)
    return torch.tensor(sums[::-1], dtype=terms.dtype)


def episode_advantages(
    reward: Float[Tensor, " steps"],
    value: Float[Tensor, " steps_plus_1"],
    *,
    discount: float,
    trace_decay: float,
) -> Float[Tensor, " steps"]:
    """Return Â_t = Σ_k (γλ)^k δ_{t+k} to the episode's end, δ_t = r_t + γV_{t+1} - V_t.

    Args:
        reward: r_t.
        value: V_t; the last is what is expected after the end, 0 where nothing is.
        discount: γ.
        trace_decay: λ.

    Source: Schulman et al. 2016, https://arxiv.org/abs/1506.02438
    """
    delta = reward + discount * value[1:] - value[:-1]
    return discounted_sums(delta, rate=discount * trace_decay)


def standardised(values: Float[Tensor, " steps"]) -> Float[Tensor, " steps"]:
    """Return the values with mean 0 and variance 1; not finite where all are equal."""
    return (values - values.mean()) / values.std(correction=0)
