"""What an objective does to a policy: its gradient on a small synthetic batch, always the same.

16 windows of noise (rewards and values standard normal, actions uniform) with the policy at 0. In
the middle step the executed action is +0.5 or -0.5 and one signal is +1 or -1, all else equal. The
pull is the descent direction -dL/dpolicy_action of that step, counted towards the executed action,
where L is the sum of the losses of the window. An objective that reinforces pulls harder towards
actions followed by the higher reward or the higher next value.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

Signal = Literal["reward", "next_value", "value"]
"""What is raised or lowered at the step that is looked at."""
Verdict = Literal["towards", "away from", "indifferent to"]

PROBE_EXPLANATION = (
    "descent direction counted towards the executed action, this signal alone being +1 or -1"
)
_WINDOWS = 16
_MAX_STEPS = 50
_ACTION = 0.5
_INDIFFERENT_BELOW = 0.1
"""Differences below this part of the usual gradient hardly steer a policy."""


class Loss(Protocol):
    """The signature of `LearnedObjective`."""

    def __call__(  # noqa: PLR0913 - it is the objective's
        self,
        action: Tensor,
        policy_action: Tensor,
        reward: Tensor,
        value: Tensor,
        next_value: Tensor,
        terminated: Tensor,
        is_valid: Tensor,
        *,
        per_step: bool = False,
    ) -> Tensor:
        """Return a loss for a policy, or with `per_step` one per step, [batch, time]."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Pull:
    """How one signal decides where the policy is pulled, in loss per unit of action."""

    signal: Signal
    when_high: float
    """Towards the executed action where the signal is +1; negative: away from it."""
    when_low: float
    """The same where the signal is -1."""
    verdict: Verdict
    """Towards actions with a high signal, or away from them."""

    @property
    def difference(self) -> float:
        """What the signal changes."""
        return self.when_high - self.when_low


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """The objective's answer to the synthetic batch."""

    steps: int
    """Steps of a window."""
    gradient_size: float
    """Mean absolute gradient over all steps; 0: the objective asks for nothing."""
    pulls: tuple[Pull, ...]
    """One per signal."""


def probe(loss: Loss, window_steps: int) -> Probe:
    """Return how `loss` pulls a policy.

    Args:
        loss: a learned objective, or anything with its signature.
        window_steps: what it was trained on; longer windows than 50 steps are cut.
    """
    steps = max(1, min(window_steps, _MAX_STEPS))
    gradients = {signal: _gradient(loss, signal, steps) for signal in get_args(Signal)}
    sizes = [float(gradient.abs().mean()) for gradient in gradients.values()]
    size = sum(sizes) / len(sizes)
    pulls = tuple(_pull(signal, gradients[signal], size) for signal in get_args(Signal))
    return Probe(steps=steps, gradient_size=size, pulls=pulls)


def _gradient(loss: Loss, signal: Signal, steps: int) -> Tensor:
    """Return the gradient in the policy's actions, [level, sign, window, time]."""
    batch = {name: torch.from_numpy(array) for name, array in _synthetic_batch(steps).items()}
    batch[signal][..., steps // 2] = torch.tensor([1.0, -1.0])[:, None, None]
    batch["action"][..., steps // 2] = _ACTION * torch.tensor([1.0, -1.0])[:, None]
    shape = batch["action"].shape
    flat = {name: values.reshape(-1, steps) for name, values in batch.items()}
    policy_action = torch.zeros_like(flat["action"]).unsqueeze(-1).requires_grad_()
    losses = loss(
        flat["action"].unsqueeze(-1),
        policy_action,
        flat["reward"],
        flat["value"],
        flat["next_value"],
        torch.zeros_like(flat["reward"], dtype=torch.bool),
        torch.ones_like(flat["reward"], dtype=torch.bool),
        per_step=True,
    )
    (gradient,) = torch.autograd.grad(losses.sum(), policy_action)
    return gradient.reshape(shape)


def _synthetic_batch(steps: int) -> dict[str, np.ndarray]:
    """Return the same noise for both levels of the signal and both signs of the action.

    Each array is [level, sign, window, time]. The next value of a step is the value of the step
    after it.
    """
    rng = np.random.default_rng(0)
    values = rng.standard_normal((_WINDOWS, steps + 1), dtype=np.float32)
    noise = {
        "action": rng.uniform(-1.0, 1.0, (_WINDOWS, steps)).astype(np.float32),
        "reward": rng.standard_normal((_WINDOWS, steps), dtype=np.float32),
        "value": values[:, :-1],
        "next_value": values[:, 1:],
    }
    return {
        name: np.broadcast_to(array, (2, 2, *array.shape)).copy() for name, array in noise.items()
    }


def _pull(signal: Signal, gradient: Tensor, size: float) -> Pull:
    at_step = gradient[..., gradient.shape[-1] // 2].double()
    towards_action = -at_step * torch.tensor([1.0, -1.0])[:, None]
    when_high, when_low = (float(level) for level in towards_action.mean(dim=(1, 2)))
    difference = when_high - when_low
    verdict: Verdict = "indifferent to"
    if abs(difference) > _INDIFFERENT_BELOW * size:
        verdict = "towards" if difference > 0 else "away from"
    return Pull(signal=signal, when_high=when_high, when_low=when_low, verdict=verdict)
