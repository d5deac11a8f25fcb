"""Objectives that drive a policy: the learned one and the hand-written ones, behind one signature.

Each returns a loss ℓ_t per step; a policy descends its mean over the valid steps. Comparing two
objectives therefore changes one thing only.
"""

from collections.abc import Callable
from functools import cached_property
from math import log, pi
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mgrl_cli.algorithm.batches import WindowTensors, mean_weights
from mgrl_cli.algorithm.fused.objective import fused_losses, supports
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork, ObjectiveSignals
from mgrl_cli.errors import UsageError

_ANNEALED_OVER = 1000.0
"""By how much a learning rate grows, but for what makes it begin at 0."""


@final
class PolicyEvidence:
    """What an objective may look at: windows, the policy's actions on them and its critic."""

    def __init__(
        self,
        windows: WindowTensors,
        actions: Float[Tensor, "batch time_plus_1 act"],
        critic: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        """Bundle the evidence.

        Args:
            windows: B windows of T steps.
            actions: π_φ(s) at all T + 1 observations, differentiable in φ.
            critic: (obs, action) → Q_θ1.
        """
        self.windows = windows
        self.policy_action = actions[:, :-1]
        self._actions = actions
        self._critic = critic

    def q_value(self) -> Float[Tensor, "batch time"]:
        """Return Q_θ1(s_t, π_φ(s_t)), differentiable in φ."""
        return self._critic(self.windows.obs[:, :-1], self.policy_action)

    @cached_property
    def signals(self) -> ObjectiveSignals:
        """Rewards and values as constants: V_t = Q_θ1(s_t, π_φ(s_t)), never differentiated."""
        with torch.no_grad():
            values = self._critic(self.windows.obs, self._actions.detach())
        return ObjectiveSignals(
            reward=self.windows.reward,
            value=values[:, :-1],
            next_value=values[:, 1:],
            terminated=self.windows.terminated,
            is_valid=self.windows.is_valid,
        )


@runtime_checkable  # the tests check types at run time
class Objective(Protocol):
    """A loss per step for a policy."""

    def __call__(self, evidence: PolicyEvidence) -> Float[Tensor, "batch time"]:
        """Return ℓ_t, differentiable in the policy's actions; padded steps may hold anything."""
        ...


@final
class LearnedObjectiveLoss:
    """ℓ = L_α, once differentiable in the policy's actions.

    α is read anew at each call, so it may live in shared memory.
    """

    def __init__(self, network: ObjectiveNetwork, params: Float[Tensor, " param"]) -> None:
        self.network = network
        self.params = params

    def __call__(self, evidence: PolicyEvidence) -> Float[Tensor, "batch time"]:
        """Return L_α on the evidence."""
        arguments = (
            self.params,
            evidence.windows.action,
            evidence.policy_action,
            evidence.signals,
        )
        if supports(self.network, self.params):
            return fused_losses(self.network, *arguments)
        return self.network(*arguments)


@final
class CriticObjective:
    """DDPG: ℓ_t = -Q_θ1(s_t, π_φ(s_t)) (Lillicrap et al. 2016, https://arxiv.org/abs/1509.02971)."""

    def __call__(self, evidence: PolicyEvidence) -> Float[Tensor, "batch time"]:
        """Return -Q_θ1."""
        return -evidence.q_value()


@final
class ReinforceObjective:
    """Off-policy REINFORCE with GAE: ℓ_t = mean_j (a_tj - π(s_t)_j)² · Â_t, no gradient through Â.

    Up to a constant -Â · log N(a; π(s), σ²): pulls the policy to replayed actions of positive
    advantage and pushes it from the others (paper §5, the off-policy baseline).
    """

    def __init__(
        self, *, discount: float, trace_decay: float = 0.97, terminal_bonus: float = 0.0
    ) -> None:
        """Set γ, λ, and the bonus added to the target of a terminal step (reference code: 1)."""
        self._discount = discount
        self._trace_decay = trace_decay
        self._terminal_bonus = terminal_bonus

    def __call__(self, evidence: PolicyEvidence) -> Float[Tensor, "batch time"]:
        """Return the loss per step."""
        signals = evidence.signals
        advantage = generalised_advantage(
            signals,
            discount=self._discount,
            trace_decay=self._trace_decay,
            terminal_bonus=self._terminal_bonus,
        )
        distance = (evidence.windows.action - evidence.policy_action).square().mean(dim=-1)
        return distance * advantage


@final
class ImportanceWeightedReinforce:
    """Off-policy REINFORCE, weighted as on policy: ℓ_t = -ρ̄_t Â_t log N(a_t; π(s_t), σ²).

    a_t is the replayed action before clipping, b its density under the behaviour that drew it, and
    ρ̄_t = Π_k≤t N(a_k; π(s_k), σ²) / b(a_k) over the window's steps so far (per-decision weights,
    Precup, Sutton, Singh 2000). No gradient through ρ̄ and Â. Only what happened since the window
    began is weighed, not how likely its first state is.
    """

    def __init__(
        self,
        *,
        discount: float,
        trace_decay: float = 0.97,
        noise: float,
        weight_clip: float | None = None,
        terminal_bonus: float = 0.0,
    ) -> None:
        """Set the objective's constants.

        Args:
            discount: γ.
            trace_decay: λ.
            noise: σ, the exploration's standard deviation, above 0.
            weight_clip: largest ρ̄; None: whatever it is, infinity included.
            terminal_bonus: added to the target of a terminal step (reference code: 1).
        """
        self._discount = discount
        self._trace_decay = trace_decay
        self._noise = noise
        self._largest_log_weight = None if weight_clip is None else log(weight_clip)
        self._terminal_bonus = terminal_bonus

    def __call__(self, evidence: PolicyEvidence) -> Float[Tensor, "batch time"]:
        """Return the loss per step; `UsageError` where the windows came without behaviour."""
        behaviour, is_valid = evidence.windows.behaviour, evidence.windows.is_valid
        if behaviour is None:
            raise UsageError(
                "importance weights need windows with their behaviour, got none; "
                "sample them with_behaviour=True"
            )
        log_density = gaussian_log_density(
            behaviour.raw_action, evidence.policy_action, self._noise
        )
        log_ratio = torch.where(is_valid, log_density.detach() - behaviour.log_density, 0.0)
        log_weight = log_ratio.cumsum(dim=1)
        if self._largest_log_weight is not None:
            log_weight = log_weight.clamp(max=self._largest_log_weight)
        advantage = generalised_advantage(
            evidence.signals,
            discount=self._discount,
            trace_decay=self._trace_decay,
            terminal_bonus=self._terminal_bonus,
        )
        # A weight may be infinite, and padding must not turn that into NaN.
        weighted = torch.where(is_valid, log_weight.exp() * advantage, 0.0)
        return -weighted * log_density


def gaussian_log_density(
    x: Float[Tensor, "*lead act"],
    mean: Float[Tensor, "*lead act"],
    deviation: float | Float[Tensor, " act"],
) -> Float[Tensor, "*lead"]:
    """Return log N(x; mean, diag(deviation²)), the sum over dimensions; differentiable in all."""
    scale = torch.as_tensor(deviation, dtype=x.dtype)
    constant = torch.log(scale) + 0.5 * log(2 * pi)
    return -(0.5 * ((x - mean) / scale).square() + constant).sum(dim=-1)


def generalised_advantage(
    signals: ObjectiveSignals,
    *,
    discount: float,
    trace_decay: float,
    terminal_bonus: float = 0.0,
) -> Float[Tensor, "batch time"]:
    """Return Â_t = Σ_k (γλ)^k δ_{t+k} inside the window, δ_t = r_t + γ(1 - d_t)V_{t+1} - V_t.

    Padded steps contribute no δ, so the sum ends at the last valid step.

    Source: Schulman et al. 2016, https://arxiv.org/abs/1506.02438
    """
    is_terminal = signals.terminated.to(signals.reward.dtype)
    target = signals.reward + discount * (1.0 - is_terminal) * signals.next_value
    delta = target + terminal_bonus * is_terminal - signals.value
    delta = torch.where(signals.is_valid, delta, torch.zeros_like(delta))
    advantage = torch.zeros_like(delta)
    running = torch.zeros_like(delta[:, 0])
    for t in reversed(range(delta.shape[1])):
        running = delta[:, t] + discount * trace_decay * running
        advantage[:, t] = running
    return advantage


def annealed_loss(
    learned: Float[Tensor, "batch time"],
    critic: Float[Tensor, "batch time"],
    share: float,
) -> Float[Tensor, "batch time"]:
    """Return p · ℓ_α + (1 - p) · (-Q), the loss of a young agent in meta-training.

    Args:
        learned: ℓ_α.
        critic: -Q_θ1(s, π(s)).
        share: p = min(1, env_steps / anneal_steps) of the agent itself.
    """
    return share * learned + (1.0 - share) * critic


def annealed_learning_rate(share: float) -> float:
    """Return the factor on a young policy's learning rate, from 0 exponentially to 1.

    (10^{3p} - 1) / (10^3 - 1): like 10^{-3(1-p)}, and exactly 0 at the beginning.

    Args:
        share: p, as in `annealed_loss`.
    """
    return (_ANNEALED_OVER**share - 1.0) / (_ANNEALED_OVER - 1.0)


def pre_activation_penalty_gradient(
    pre_activation: Float[Tensor, "batch time act"],
    is_valid: Bool[Tensor, "batch time"],
    *,
    limit: float,
) -> Float[Tensor, "batch time act"]:
    """Return the gradient in z of mean_valid mean_j max(0, |z_j| - limit)².

    The penalty keeps tanh from saturating for good.
    """
    excess = pre_activation - pre_activation.clamp(-limit, limit)
    weights = mean_weights(is_valid).unsqueeze(-1)
    return torch.where(is_valid.unsqueeze(-1), 2.0 / excess.shape[-1] * weights * excess, 0.0)
