"""An agent's three updates from compiled kernels alone, without a torch operation in between.

The kernels of policy, critic and objective leave half of an update's time to what lies between
them: sixty small tensor operations, each of which finds cold caches after a kernel. Here `glue`
does that work. The plain forms are in `agents.learner` and `meta_gradient`; both give the same
numbers up to float32 rounding. Parameters and optimiser states change in place. Needs numba (the
extra "fast").
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mgrl_cli.algorithm.adam import Adam
from mgrl_cli.algorithm.batches import Transitions, Windows
from mgrl_cli.algorithm.fused import descent, glue, meta_glue
from mgrl_cli.algorithm.fused.memory import array_of
from mgrl_cli.algorithm.fused.objective import mixed
from mgrl_cli.algorithm.fused.policy_view import AgentSizes, PolicyView
from mgrl_cli.algorithm.fused.trunk import ArrayTape
from mgrl_cli.algorithm.meta_gradient import SHORTEST_UNIT_GRADIENT, MetaGradient, VirtualStep
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.algorithm.objectives import LearnedObjectiveLoss

_Array = npt.NDArray[Any]


class CriticSettings(NamedTuple):
    """Constants of the critic's update; `td3` explains them."""

    discount: float
    terminal_bonus: float
    target_noise: float
    target_noise_clip: float


class PolicySettings(NamedTuple):
    """Constants of the policy's update."""

    pre_activation_limit: float
    """0: no penalty."""
    clip_norm: float
    """0: no clipping."""


@final
class FusedUpdates:
    """The updates of agents with networks of the same sizes, in float32."""

    def __init__(
        self,
        sizes: AgentSizes,
        policy: PolicySettings,
        critic: CriticSettings,
        *,
        over_padding: bool,
    ) -> None:
        """Note what all updates have in common.

        Args:
            sizes: of the networks.
            policy: constants.
            critic: constants.
            over_padding: whether means count padded steps, as in `batches.masked_mean`.
        """
        self._sizes = sizes
        self._policy = policy
        self._critic = critic
        self._over_padding = over_padding

    def act(self, policy_params: Tensor, obs: _Array) -> _Array:
        """Return π_φ(s) for one observation [obs], float32."""
        tape = ArrayTape(policy_params.numpy()[None], obs[None], self._sizes.policy)
        return np.tanh(tape.output[0, 0])

    def update_critic(
        self,
        policy_target: Tensor,
        critic_target: Tensor,
        adam: Adam,
        batch: Transitions,
        noise: _Array,
    ) -> tuple[float, bool]:
        """Descend the twin critics' loss once; see `Learner.update_critic`."""
        sizes, settings = self._sizes, self._critic
        next_obs, params = batch.next_obs, adam.params.numpy()
        # Nobody holds a target's tape, so that its memory is what the next one finds in the caches.
        next_action = ArrayTape(policy_target.numpy()[None], next_obs, sizes.policy).output
        next_pairs = np.empty((len(next_obs), sizes.obs + sizes.act), np.float32)
        pairs = np.empty_like(next_pairs)
        glue.smooth(
            next_obs,
            next_action[0],
            noise,
            settings.target_noise,
            settings.target_noise_clip,
            next_pairs,
        )
        next_q = ArrayTape(critic_target.numpy(), next_pairs, sizes.critic).output
        glue.pair(batch.obs, batch.action, pairs)
        tape = ArrayTape(params, pairs, sizes.critic)
        slope = np.empty_like(tape.output)
        loss = glue.regress(
            tape.output[:, :, 0],
            next_q[:, :, 0],
            batch.reward,
            batch.terminated,
            batch.is_valid,
            settings.discount,
            settings.terminal_bonus,
            self._over_padding,
            slope[:, :, 0],
        )
        return loss, adam.descend_compiled(tape.vjp(slope))

    def update_policy(
        self,
        critic_params: Tensor,
        adam: Adam,
        windows: Windows,
        objective: LearnedObjectiveLoss | None,
        *,
        share: float,
        factor: float,
    ) -> tuple[float, float, bool]:
        """Descend share · mean ℓ_α + (1 - share) · mean(-Q) once; see `Learner.update_policy`.

        Args:
            critic_params: θ.
            adam: of φ.
            windows: a fresh batch.
            objective: L_α; None: ℓ = -Q alone, whatever the share.
            share: p.
            factor: on the learning rate.

        Returns:
            The loss, mean(1 - a²), and whether the gradient was finite.
        """
        share = 0.0 if objective is None else share
        batch, steps = windows.reward.shape
        view = PolicyView.of_windows(
            self._sizes,
            adam.params.numpy(),
            critic_params.numpy(),
            windows,
            with_last=objective is not None,
        )
        weights = np.empty((batch, steps), np.float32)
        q_cotangent = np.empty((1, batch * steps, 1), np.float32)
        is_valid = windows.is_valid
        glue.weigh(is_valid, self._over_padding, share, weights, q_cotangent[0, :, 0])
        if objective is None:
            c = np.zeros((batch, steps, self._sizes.act), np.float32)
            losses = np.zeros((batch, steps), np.float32)
        else:
            losses, c, _ = view.objective(objective.network, objective.params, windows, weights)
        slope = view.critic.input_vjp(q_cotangent, self._sizes.act) if share < 1.0 else _NO_SLOPE
        cotangent = np.empty((batch * steps, self._sizes.act), np.float32)
        loss, slack = glue.policy_cotangent(
            c,
            slope,
            losses,
            view.q,
            q_cotangent[0, :, 0],
            weights,
            view.action,
            view.pre_activation,
            is_valid,
            share,
            self._policy.pre_activation_limit,
            cotangent,
        )
        gradient = view.policy.vjp(cotangent[None])[0]
        return (
            loss,
            slack,
            adam.descend_compiled(gradient, factor=factor, limit=self._policy.clip_norm),
        )

    def meta_gradient(
        self,
        policy_params: Tensor,
        critic_params: Tensor,
        network: ObjectiveNetwork,
        params: Tensor,
        virtual_step: VirtualStep,
        batches: Sequence[Windows],
    ) -> MetaGradient:
        """Return ∇_α J of one virtual step; see `meta_gradient.meta_gradient`."""
        sizes, is_unit = self._sizes, virtual_step.kind == "unit"
        _, windows = batches
        phi, theta = policy_params.numpy(), critic_params.numpy()
        view = PolicyView.of_windows(sizes, phi, theta, windows)
        is_valid = windows.is_valid
        _, c, tape = view.objective(network, params, windows, is_valid.astype(np.float32))
        cotangent = np.empty((windows.reward.size, sizes.act), np.float32)
        meta_glue.through_tanh(c, view.action, cotangent)
        g = view.policy.vjp(cotangent[None])[0]
        moved = np.empty_like(phi)
        norm = descent.step_virtually(
            phi, g, virtual_step.size, is_unit, SHORTEST_UNIT_GRADIENT, moved
        )

        states, q_cotangent = self._judged(batches)
        after = PolicyView(sizes, moved, theta, states)
        slope = after.critic.input_vjp(q_cotangent, sizes.act)
        cotangent = np.empty_like(after.action)
        meta_glue.action_slope(slope, after.action, cotangent)
        w = after.policy.vjp(cotangent[None])[0]
        if is_unit:
            descent.pull_through_unit(g, norm, SHORTEST_UNIT_GRADIENT, w)
        u, tangent = np.empty_like(c), view.policy.jvp(w[None], windows.reward.size)[0]
        meta_glue.tangent_of_action(tangent, view.action, u)
        gradient, _ = mixed(tape, u)
        gradient *= np.float32(-virtual_step.size)
        return MetaGradient(
            torch.from_numpy(gradient), torch.from_numpy(moved), torch.from_numpy(g), norm
        )

    def gain(
        self,
        policy_params: Tensor,
        critic_params: Tensor,
        result: MetaGradient,
        batches: Sequence[Windows],
    ) -> float:
        """Return J(φ_0) - J(φ_1) of one virtual step; see `meta_gradient.gain`."""
        states, q_cotangent = self._judged(batches)
        before, after = (
            PolicyView(self._sizes, params.numpy(), critic_params.numpy(), states)
            for params in (policy_params, result.virtual_policy)
        )
        # Of differences: both values of J agree in all but their last digits.
        return np.vdot(q_cotangent[:, :, 0], before.q - after.q).item()

    def _judged(self, batches: Sequence[Windows]) -> tuple[_Array, _Array]:
        """Return the states that J looks at [rows, obs], and ∂J/∂Q of each [1, rows, 1]."""
        judged, windows = batches
        batch, steps = windows.reward.shape
        states = np.empty((2 * batch * steps, self._sizes.obs), np.float32)
        q_cotangent = np.empty((1, len(states), 1), np.float32)
        meta_glue.judge(
            judged.obs,
            windows.obs,
            judged.is_valid,
            windows.is_valid,
            states,
            q_cotangent[:, :, 0],
        )
        return states, q_cotangent

    def cosine_with_critic(
        self, policy_params: Tensor, critic_params: Tensor, windows: Windows, gradient: Tensor
    ) -> float:
        """Return the cosine of a gradient in φ with the critic's on `windows`; 0 if one is 0."""
        view = PolicyView.of_windows(
            self._sizes, policy_params.numpy(), critic_params.numpy(), windows, with_last=False
        )
        weights = np.empty(windows.reward.shape, np.float32)
        q_cotangent = np.empty((1, weights.size, 1), np.float32)
        glue.weigh(windows.is_valid, self._over_padding, 0.0, weights, q_cotangent[0, :, 0])
        cotangent = np.empty_like(view.action)
        slope = view.critic.input_vjp(q_cotangent, self._sizes.act)
        meta_glue.action_slope(slope, view.action, cotangent)
        ours, critics = (
            each.astype(np.float64)
            for each in (gradient.numpy(), view.policy.vjp(cotangent[None])[0])
        )
        lengths = np.linalg.norm(ours) * np.linalg.norm(critics)
        return 0.0 if lengths == 0 else (np.dot(ours, critics) / lengths).item()

    def update_target(self, target: Tensor, online: Tensor, *, rate: float) -> None:
        """Move a target towards parameters; see `td3.polyak_update_`."""
        descent.follow(target.numpy().reshape(-1), online.numpy().reshape(-1), rate)

    def contribution(self, gradient: Tensor, *, limit: float) -> tuple[Tensor, float]:
        """Return a meta-gradient cut to the norm `limit`, 0: of norm 1; and its own norm."""
        given = array_of(gradient)
        contribution = np.empty_like(given)
        norm = descent.contribute(given, limit, contribution)
        return torch.from_numpy(contribution), norm


_NO_SLOPE = np.empty((1, 0, 0), np.float32)
