"""A policy at some observations, as its critic and the objective see it, from compiled kernels."""

from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mgrl_cli.algorithm.batches import Windows
from mgrl_cli.algorithm.fused import glue, meta_glue
from mgrl_cli.algorithm.fused.objective import passes
from mgrl_cli.algorithm.fused.tape import Batch, Tape
from mgrl_cli.algorithm.fused.trunk import ArrayTape
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.algorithm.parameters import TrunkSizes

_Array = npt.NDArray[Any]


class AgentSizes(NamedTuple):
    """Of an agent's networks."""

    policy: TrunkSizes
    critic: TrunkSizes

    @property
    def obs(self) -> int:
        """Numbers of an observation."""
        return self.policy.width_in

    @property
    def act(self) -> int:
        """Numbers of an action."""
        return self.policy.width_out


@final
class PolicyView:
    """A policy at some observations, and its first critic's view of what it does there."""

    def __init__(
        self, sizes: AgentSizes, policy_params: _Array, critic_params: _Array, obs: _Array
    ) -> None:
        """Run both forward at `obs` [rows, obs]."""
        self.policy = ArrayTape(policy_params[None], obs, sizes.policy)
        self.pre_activation = self.policy.output[0]
        self.action = np.empty_like(self.pre_activation)
        pairs = np.empty((len(obs), sizes.obs + sizes.act), np.float32)
        glue.act(obs, self.pre_activation, self.action, pairs)
        self.critic = ArrayTape(critic_params[:1], pairs, sizes.critic)
        self.q = self.critic.output[:, :, 0]
        """[1, rows]"""

    @classmethod
    def of_windows(
        cls,
        sizes: AgentSizes,
        policy_params: _Array,
        critic_params: _Array,
        windows: Windows,
        *,
        with_last: bool = True,
    ) -> "PolicyView":
        """Run both forward at the observations of windows: those of all steps, then the last ones.

        Args:
            sizes: of the networks.
            policy_params: φ.
            critic_params: θ.
            windows: where.
            with_last: False leaves out the last observations, which only `objective` looks at.
        """
        batch, steps = windows.reward.shape
        rows = np.empty((batch * (steps + with_last), sizes.obs), np.float32)
        glue.line_up(windows.obs, rows)
        return cls(sizes, policy_params, critic_params, rows)

    def objective(
        self, network: ObjectiveNetwork, params: Tensor, windows: Windows, weights: _Array
    ) -> tuple[_Array, _Array, Tape]:
        """Return ℓ, c = ∂(Σ weights · ℓ)/∂a and the tape, in a view of these windows.

        Args:
            network: L_α.
            params: α.
            windows: of which this is the view.
            weights: of every step, [batch, time].
        """
        batch, steps = windows.reward.shape
        value, next_value = (np.empty((batch, steps), np.float32) for _ in range(2))
        meta_glue.split_values(self.q, value, next_value)
        chosen = self.action[: batch * steps].reshape(batch, steps, -1)
        evidence = Batch(
            windows.action,
            chosen,
            windows.reward,
            value,
            next_value,
            windows.terminated,
            windows.is_valid,
        )
        tape = Tape(network.shape, (*chosen.shape, chosen.dtype))
        alpha = tape.buffers.params
        alpha[...] = params.numpy()
        losses, c = np.empty_like(value), np.empty_like(chosen)
        passes().forward(alpha, tape.options, evidence, tape.buffers, losses)
        passes().adjoint(alpha, tape.buffers, weights, c)
        return losses, c, tape
