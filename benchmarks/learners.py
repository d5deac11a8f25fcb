"""The updates of an agent, as mgrl makes them and as one writes them in PyTorch."""

from collections.abc import Sequence
from typing import Protocol, final

import numpy as np
import torch
from torch import Tensor

from benchmarks.problems import ACT_SIZE, OBS_SIZE
from mgrl_cli.agents.learner import Learner
from mgrl_cli.algorithm.batches import Transitions, Windows, masked_mean
from mgrl_cli.algorithm.meta_gradient import (
    MetaProblem,
    VirtualStep,
    meta_gradient_by_double_backward,
    unit,
)
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.algorithm.objectives import LearnedObjectiveLoss, PolicyEvidence
from mgrl_cli.algorithm.td3 import (
    clipped_double_q_target,
    polyak_update_,
    smoothed_target_action,
    twin_critic_loss,
)
from mgrl_cli.config import RunConfig


class Updates(Protocol):
    """What an agent-step is made of."""

    def update_critic(self, batch: Transitions, noise: np.ndarray) -> None:
        """Descend the twin critics' loss once."""
        ...

    def update_policy(self, windows: Windows) -> None:
        """Descend the learned objective's mean once."""
        ...

    def update_targets(self) -> None:
        """Move both targets."""
        ...

    def meta_gradient(self, batches: Sequence[Windows]) -> Tensor:
        """Return the contribution to α's gradient."""
        ...

    def parameters(self) -> dict[str, Tensor]:
        """Return networks and targets by name."""
        ...


@final
class Fused:
    """The updates as mgrl makes them."""

    def __init__(self, config: RunConfig, params: Tensor) -> None:
        self.learner = Learner(config, OBS_SIZE, ACT_SIZE, np.random.default_rng(0))
        self._network = ObjectiveNetwork(compiled=True)
        self._params = params
        self._objective = LearnedObjectiveLoss(self._network, params)

    def update_critic(self, batch: Transitions, noise: np.ndarray) -> None:
        """Descend the twin critics' loss once."""
        self.learner.update_critic(batch, noise)

    def update_policy(self, windows: Windows) -> None:
        """Descend the learned objective's mean once."""
        self.learner.update_policy(windows, self._objective, 1.0)

    def update_targets(self) -> None:
        """Move both targets."""
        self.learner.update_targets()

    def meta_gradient(self, batches: Sequence[Windows]) -> Tensor:
        """Return the meta-gradient, of unit norm."""
        result = self.learner.meta_gradient(self._network, self._params, batches)
        return unit(result.gradient)

    def parameters(self) -> dict[str, Tensor]:
        """Return networks and targets by name."""
        learner = self.learner
        return {
            "policy": learner.policy_params,
            "policy target": learner.policy_target,
            "critic": learner.critic_params,
            "critic target": learner.critic_target,
        }


@final
class Plain:
    """The updates as one writes them in PyTorch."""

    def __init__(self, config: RunConfig, params: Tensor, start: Learner) -> None:
        """Copy the parameters that a learner starts with."""
        self._config = config
        self._policy, self._critic = start.policy, start.critic
        self._objective = ObjectiveNetwork(compiled=False)
        self._params = params
        self._phi = start.policy_params.clone().requires_grad_()
        self._theta = start.critic_params.clone().requires_grad_()
        self._phi_target = start.policy_target.clone()
        self._theta_target = start.critic_target.clone()
        self._policy_optimizer = torch.optim.Adam([self._phi], lr=config.policy.learning_rate)
        self._critic_optimizer = torch.optim.Adam([self._theta], lr=config.critic.learning_rate)

    def _q_first(self, obs: Tensor, action: Tensor) -> Tensor:
        return self._critic.first(self._theta.detach(), obs, action)

    def update_critic(self, batch: Transitions, noise: np.ndarray) -> None:
        """Descend the twin critics' loss once."""
        settings, rows = self._config.critic, batch.tensors()
        with torch.no_grad():
            next_action = smoothed_target_action(
                self._policy(self._phi_target, rows.next_obs),
                torch.from_numpy(noise) * settings.target_noise,
                noise_clip=settings.target_noise_clip,
            )
            target = clipped_double_q_target(
                rows.reward,
                rows.terminated,
                self._critic.twins(self._theta_target, rows.next_obs, next_action),
                discount=settings.discount,
            )
        q = self._critic.twins(self._theta, rows.obs, rows.action)
        loss = twin_critic_loss(q, target, rows.is_valid).value
        self._critic_optimizer.zero_grad()
        loss.backward()
        self._critic_optimizer.step()

    def update_policy(self, windows: Windows) -> None:
        """Descend the learned objective's mean once."""
        settings, batch = self._config.policy, windows.tensors()
        pre_activation = self._policy.pre_activation(self._phi, batch.obs)
        evidence = PolicyEvidence(batch, torch.tanh(pre_activation), self._q_first)
        losses = self._objective(
            self._params, batch.action, evidence.policy_action, evidence.signals
        )
        excess = (pre_activation[:, :-1].abs() - settings.pre_activation_limit).clamp(min=0.0)
        penalty = masked_mean(excess.square().mean(dim=-1), batch.is_valid)
        loss = masked_mean(losses, batch.is_valid) + penalty
        self._policy_optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([self._phi], settings.clip_norm)
        self._policy_optimizer.step()

    def update_targets(self) -> None:
        """Move both targets."""
        rate = self._config.critic.polyak
        polyak_update_(self._phi_target, self._phi.detach(), rate=rate)
        polyak_update_(self._theta_target, self._theta.detach(), rate=rate)

    def meta_gradient(self, batches: Sequence[Windows]) -> Tensor:
        """Return the meta-gradient, of unit norm."""
        meta = self._config.meta
        problem = MetaProblem(
            policy=self._policy,
            critic=self._critic,
            objective=self._objective,
            critic_params=self._theta.detach(),
            virtual_step=VirtualStep(size=meta.inner_step_size, kind=meta.inner_step),
        )
        drawn = [each.tensors() for each in batches]
        result = meta_gradient_by_double_backward(problem, self._params, self._phi, drawn)
        return unit(result.gradient)

    def parameters(self) -> dict[str, Tensor]:
        """Return networks and targets by name."""
        return {
            "policy": self._phi.detach(),
            "policy target": self._phi_target,
            "critic": self._theta.detach(),
            "critic target": self._theta_target,
        }
