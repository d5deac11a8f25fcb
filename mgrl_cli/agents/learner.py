"""One agent's networks, targets and optimisers, and its three updates.

Data and noise come in from outside; here is nothing random but the initial parameters.
"""

from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from mgrl_cli.agents.kernels import fused_updates, has_kernels
from mgrl_cli.algorithm.adam import Adam
from mgrl_cli.algorithm.batches import Transitions, Windows, WindowTensors, masked_mean
from mgrl_cli.algorithm.fused.objective import supports as has_objective_kernels
from mgrl_cli.algorithm.meta_gradient import (
    MetaGradient,
    MetaProblem,
    VirtualStep,
    clipped,
    gain,
    meta_gradient,
    unit,
)
from mgrl_cli.algorithm.networks import CriticNetwork, PolicyNetwork, PolicyTape
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.algorithm.objectives import (
    CriticObjective,
    LearnedObjectiveLoss,
    Objective,
    PolicyEvidence,
    annealed_learning_rate,
    annealed_loss,
    pre_activation_penalty_gradient,
)
from mgrl_cli.algorithm.td3 import (
    clipped_double_q_target,
    polyak_update_,
    smoothed_target_action,
    twin_critic_loss,
)
from mgrl_cli.config import RunConfig

_BATCHES_OF_ONE_STEP = 2
"""Batches of a meta-gradient with one virtual step, see `meta_gradient`."""


class PolicyUpdate(NamedTuple):
    """What a policy update did."""

    loss: float
    action_slack: float
    """mean(1 - a²) over the valid steps: near 0, tanh is saturated and no gradient passes."""
    applied: bool
    """False where the gradient was not finite and the update was skipped."""


@final
class Learner:
    """φ, θ, φ⁻, θ⁻ and their Adam states."""

    def __init__(
        self, config: RunConfig, obs_size: int, act_size: int, rng: np.random.Generator
    ) -> None:
        """Draw fresh networks from `rng`."""
        self._config = config
        self._virtual_step = VirtualStep(
            size=config.meta.inner_step_size, kind=config.meta.inner_step
        )
        self.policy = PolicyNetwork(
            obs_size,
            act_size,
            config.policy.hidden,
            layer_norm=config.policy.layer_norm,
            compiled=config.compiled,
        )
        self.critic = CriticNetwork(
            obs_size,
            act_size,
            config.critic.hidden,
            layer_norm=config.critic.layer_norm,
            compiled=config.compiled,
        )
        self._fused = fused_updates(config, obs_size, act_size)
        self.renew_policy(rng)
        self.renew_critic(rng)

    def renew_policy(self, rng: np.random.Generator) -> None:
        """Replace φ, φ⁻ and the policy's Adam state by fresh ones."""
        settings = self._config.policy
        self.policy_params = self.policy.initialise(
            rng,
            initialisation=settings.initialisation,
            last_layer_scale=settings.last_layer_scale,
        )
        self.policy_target = self.policy_params.clone()
        self._policy_adam = Adam(self.policy_params, settings.learning_rate)

    def renew_critic(self, rng: np.random.Generator) -> None:
        """Replace θ, θ⁻ and the critic's Adam state by fresh ones."""
        self.critic_params = self.critic.initialise_twins(rng, self._config.critic.initialisation)
        self.critic_target = self.critic_params.clone()
        self._critic_adam = Adam(self.critic_params, self._config.critic.learning_rate)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that learning changes, by name: the tensors themselves, no copies."""
        return {
            "policy.params": self.policy_params,
            "policy.target": self.policy_target,
            **{f"policy.{name}": state for name, state in self._policy_adam.tensors().items()},
            "critic.params": self.critic_params,
            "critic.target": self.critic_target,
            **{f"critic.{name}": state for name, state in self._critic_adam.tensors().items()},
        }

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Return π_φ(s) for one observation [obs], without noise, as float32 [act]."""
        if self._fused is not None:
            return self._fused.act(self.policy_params, obs)
        rows = torch.from_numpy(obs).unsqueeze(0)
        return self.policy.forward(self.policy_params, rows).action.squeeze(0).numpy()

    def q_first(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return Q_θ1(s, a) with θ as it stands, differentiable once and in the action only."""
        return self.critic.first_once(self.critic_params, obs, action)

    def update_critic(
        self, batch: Transitions, noise: Float32[np.ndarray, "rows act"]
    ) -> tuple[float, bool]:
        """Descend the twin critics' loss once; return the loss and whether it was finite.

        Args:
            batch: transitions.
            noise: standard normal, for target smoothing.
        """
        if self._fused is not None:
            return self._fused.update_critic(
                self.policy_target, self.critic_target, self._critic_adam, batch, noise
            )
        settings, rows = self._config.critic, batch.tensors()
        next_action = smoothed_target_action(
            self.policy.forward(self.policy_target, rows.next_obs).action,
            torch.from_numpy(noise) * settings.target_noise,
            noise_clip=settings.target_noise_clip,
        )
        target = clipped_double_q_target(
            rows.reward,
            rows.terminated,
            self.critic.forward(self.critic_target, rows.next_obs, next_action).q,
            discount=settings.discount,
            terminal_bonus=float(settings.terminal_bonus),
        )
        tape = self.critic.forward(self.critic_params, rows.obs, rows.action)
        over_padding = self._config.windows.mean_over_padding
        loss = twin_critic_loss(tape.q, target, rows.is_valid, over_padding=over_padding)
        gradient = self.critic.vjp(tape, loss.slope)
        return loss.value.item(), self._critic_adam.descend_if_finite(gradient)

    def update_policy(
        self, windows: Windows, objective: Objective, objective_share: float
    ) -> PolicyUpdate:
        """Descend the mean of the objective once, gradient clipped where the settings say so.

        Args:
            windows: a fresh batch.
            objective: what drives the policy.
            objective_share: p of the annealing; below 1 the critic's -Q is mixed in, or the step
                is smaller, as `meta.anneal_by` says.
        """
        settings = self._config.policy
        share, factor = objective_share, 1.0
        if self._config.meta.anneal_by == "learning_rate":
            share, factor = 1.0, annealed_learning_rate(objective_share)
        if self._fused is not None and has_kernels(objective):
            update = self._fused.update_policy(
                self.critic_params,
                self._policy_adam,
                windows,
                objective if isinstance(objective, LearnedObjectiveLoss) else None,
                share=share,
                factor=factor,
            )
            return PolicyUpdate(*update)
        batch = windows.tensors()
        tape, evidence, loss, action_gradient = self._descent(batch, objective, share)
        gradient = self.policy.vjp(tape, action_gradient, self._penalty_gradient(batch, tape))
        if settings.clip_norm:
            gradient = clipped(gradient, limit=settings.clip_norm)
        applied = self._policy_adam.descend_if_finite(gradient, factor)
        slack = 1.0 - evidence.policy_action.detach().square().mean(dim=-1)
        return PolicyUpdate(loss, masked_mean(slack, batch.is_valid).item(), applied)

    def _descent(
        self, windows: WindowTensors, objective: Objective, objective_share: float = 1.0
    ) -> "_Descent":
        """Return the mean of an objective and its gradient in the policy's actions."""
        tape = self.policy.forward(self.policy_params, windows.obs.flatten(0, 1))
        actions = tape.action.view(*windows.obs.shape[:2], -1).requires_grad_()
        evidence = PolicyEvidence(windows, actions, self.q_first)
        losses = objective(evidence)
        if objective_share < 1.0:
            losses = annealed_loss(losses, CriticObjective()(evidence), objective_share)
        loss = masked_mean(
            losses, windows.is_valid, over_padding=self._config.windows.mean_over_padding
        )
        (gradient,) = torch.autograd.grad(loss, actions)
        return _Descent(tape, evidence, loss.item(), gradient.flatten(0, 1))

    def _penalty_gradient(self, windows: WindowTensors, tape: PolicyTape) -> Tensor | None:
        """Return the gradient of the pre-activation penalty, [rows, act], where there is one."""
        limit = self._config.policy.pre_activation_limit
        if limit == 0:
            return None
        pre_activation = tape.pre_activation.view(*windows.obs.shape[:2], -1)[:, :-1]
        gradient = pre_activation_penalty_gradient(pre_activation, windows.is_valid, limit=limit)
        return torch.nn.functional.pad(gradient, (0, 0, 0, 1)).flatten(0, 1)

    def update_targets(self) -> None:
        """Move both targets towards φ and θ."""
        follow = polyak_update_ if self._fused is None else self._fused.update_target
        follow(self.policy_target, self.policy_params, rate=self._config.critic.polyak)
        follow(self.critic_target, self.critic_params, rate=self._config.critic.polyak)

    def meta_problem(self, network: ObjectiveNetwork) -> MetaProblem:
        """Return the meta-gradient's problem at the present φ and θ."""
        return MetaProblem(
            policy=self.policy,
            critic=self.critic,
            objective=network,
            critic_params=self.critic_params,
            virtual_step=self._virtual_step,
        )

    def meta_gradient(
        self,
        network: ObjectiveNetwork,
        objective_params: Float[Tensor, " param"],
        batches: Sequence[Windows],
    ) -> MetaGradient:
        """Return ∇_α J at the present φ and θ, raw."""
        has_kernels = has_objective_kernels(network, objective_params)
        if self._fused is not None and has_kernels and len(batches) == _BATCHES_OF_ONE_STEP:
            return self._fused.meta_gradient(
                self.policy_params,
                self.critic_params,
                network,
                objective_params,
                self._virtual_step,
                batches,
            )
        problem, drawn = self.meta_problem(network), [each.tensors() for each in batches]
        return meta_gradient(problem, objective_params, self.policy_params, drawn)

    def contribution(
        self, gradient: Float[Tensor, " param"]
    ) -> tuple[Float[Tensor, " param"], float]:
        """Return a meta-gradient as the objective's step takes it, and its norm as it was.

        Clipped or of unit norm, as `meta.gradient_scale` says; NaN where the norm overflows.
        """
        settings = self._config.meta
        is_unit = settings.gradient_scale == "unit"
        if self._fused is not None:
            return self._fused.contribution(gradient, limit=0.0 if is_unit else settings.clip_norm)
        norm = gradient.norm().item()
        return unit(gradient) if is_unit else clipped(gradient, limit=settings.clip_norm), norm

    def gain(
        self, network: ObjectiveNetwork, result: MetaGradient, batches: Sequence[Windows]
    ) -> float:
        """Return J(φ_0) - J(φ_K) of a meta-gradient's virtual step."""
        if self._fused is not None and len(batches) == _BATCHES_OF_ONE_STEP:
            return self._fused.gain(self.policy_params, self.critic_params, result, batches)
        problem, drawn = self.meta_problem(network), [each.tensors() for each in batches]
        return gain(problem, self.policy_params, result, drawn)

    def cosine_with_critic(
        self, windows: Windows, gradient: Float[Tensor, " policy_param"]
    ) -> float:
        """Return the cosine of a gradient in φ with the critic's on `windows`; 0 if one is 0."""
        if self._fused is not None:
            return self._fused.cosine_with_critic(
                self.policy_params, self.critic_params, windows, gradient
            )
        descent = self._descent(windows.tensors(), CriticObjective())
        critics = self.policy.vjp(descent.tape, descent.action_gradient)
        return torch.cosine_similarity(gradient, critics, dim=0).item()


class _Descent(NamedTuple):
    """Where an objective wants the policy's actions to go."""

    tape: PolicyTape
    evidence: PolicyEvidence
    loss: float
    action_gradient: Float[Tensor, "rows act"]
