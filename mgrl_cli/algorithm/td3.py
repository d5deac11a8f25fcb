"""The critic's side of TD3 (Fujimoto, van Hoof, Meger 2018, https://arxiv.org/abs/1802.09477).

a' = clip(π_φ⁻(s') + clip(ε, -c, c), -1, 1)
y  = r + γ (1 - terminated) · min_i Q_θi⁻(s', a')
L  = Σ_i mean_valid (Q_θi(s, a) - y)²
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def smoothed_target_action(
    target_action: Float[Tensor, "rows act"], noise: Float[Tensor, "rows act"], *, noise_clip: float
) -> Float[Tensor, "rows act"]:
    """Return the target policy's action with clipped noise, clipped to [-1, 1].

    Args:
        target_action: π_φ⁻(s').
        noise: ε, already scaled by its standard deviation.
        noise_clip: c, largest absolute noise.
    """
    return (target_action + noise.clamp(-noise_clip, noise_clip)).clamp(-1.0, 1.0)


def clipped_double_q_target(
    reward: Float[Tensor, " rows"],
    terminated: Bool[Tensor, " rows"],
    next_q: Float[Tensor, "2 rows"],
    *,
    discount: float,
    terminal_bonus: float = 0.0,
) -> Float[Tensor, " rows"]:
    """Return y = r + γ (1 - terminated) min(Q1', Q2').

    A time limit is not a terminal state: pass `terminated`, not "episode over".

    Args:
        reward: in task units.
        terminated: True where the task itself ended the episode.
        next_q: both target critics at (s', a').
        discount: γ in [0, 1], per environment step.
        terminal_bonus: added where terminated; 1 in the reference code, 0 in the paper.
    """
    is_terminal = terminated.to(reward.dtype)
    bootstrap = (1.0 - is_terminal) * next_q.min(dim=0).values
    return reward + discount * bootstrap + terminal_bonus * is_terminal


class CriticLoss(NamedTuple):
    """L_Q and how it changes with the critics' values."""

    value: Float[Tensor, ""]
    slope: Float[Tensor, "2 rows"]
    """∂L_Q/∂q; 0 at padded rows."""


def twin_critic_loss(
    q: Float[Tensor, "2 rows"],
    target: Float[Tensor, " rows"],
    is_valid: Bool[Tensor, " rows"],
    *,
    over_padding: bool = False,
) -> CriticLoss:
    """Return Σ_i mean_valid (Q_θi(s, a) - y)²; over all rows instead if `over_padding`."""
    error = torch.where(is_valid, q - target, 0.0)
    count = is_valid.numel() if over_padding else is_valid.sum().clamp(min=1)
    share = error / count
    return CriticLoss((error * share).sum(), 2.0 * share)


@torch.no_grad()
def polyak_update_(target: Tensor, online: Tensor, *, rate: float) -> None:
    """Move `target` towards `online` in place: θ⁻ ← θ⁻ + rate · (θ - θ⁻)."""
    target.lerp_(online, rate)
