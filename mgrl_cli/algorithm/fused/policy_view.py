"""A policy at some observations, as its critic and the objective see it, from compiled kernels."""

from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mgrl_cli.algorithm.batches import Windows
from mgrl_cli.algorithm.fused import glue, meta_glue
from mgrl_cli.algorithm.fused.memory import array_of
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

    def objective(
        self, network: ObjectiveNetwork, params: Tensor, windows: Windows, weights: _Array
    ) -> tuple[_Array, _Array, Tape]:
        """Return ℓ, c = ∂(Σ weights · ℓ)/∂a and the tape, where the rows are those of `windows`.

        Args:
            network: L_α.
            params: α.
            windows: whose observations, all T + 1 of them, the rows are.
            weights: of every step, [batch, time].
        """
        batch, steps = windows.reward.shape
        value, next_value = (np.empty((batch, steps), np.float32) for _ in range(2))
        meta_glue.split_values(self.q, value, next_value)
        actions = self.action.reshape(batch, steps + 1, -1)
        chosen = np.ascontiguousarray(actions[:, :-1])
        evidence = Batch(
            array_of(windows.action),
            chosen,
            array_of(windows.reward),
            value,
            next_value,
            array_of(windows.terminated),
            array_of(windows.is_valid),
        )
        tape = Tape(network.shape, (*chosen.shape, chosen.dtype))
        alpha = tape.buffers.params
        alpha[...] = params.numpy()
        losses, c = np.empty_like(value), np.empty_like(chosen)
        passes().forward(alpha, tape.options, evidence, tape.buffers, losses)
        passes().adjoint(alpha, tape.buffers, weights, c)
        return losses, c, tape
