"""Where the population's gradients meet: α, its Adam and one gradient slot per agent.

Everything lives in shared memory. Each slot has one writer, the worker that runs the agent. α and
its Adam state are written only inside `_combine`, which exactly one process runs, the last to
arrive, while all others are between `arrive` and `leave`; gradients are summed in float64 in agent
order. So the result depends neither on timing nor on how agents are spread over workers.

A worker that dies may take the barrier's turn with it, so after a death nobody who shared an
exchange goes on with it: the coordinator kills them all and starts again with a new one.
"""

from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mgrl_cli.algorithm.adam import Adam, is_finite_squared
from mgrl_cli.algorithm.fused.memory import array_of
from mgrl_cli.algorithm.fused.sources import is_numba_installed
from mgrl_cli.runtime.barrier import Barrier, Passage
from mgrl_cli.runtime.shared_memory import shared
from mgrl_cli.runtime.stop import StopRequest

_EMPTY, _FINITE, _NOT_FINITE = 0, 1, 2
"""What a slot holds for the coming meta-step."""


class ExchangeStatus(NamedTuple):
    """The objective's figures after the last meta-step."""

    version: int
    """Meta-steps applied."""
    gradient_norm: float
    """Norm of the combined gradient of the last meta-step; 0 before the first."""
    skipped_gradients: int
    """Contributions left out so far because they were not finite."""
    barren_meetings: int
    """Meetings in a row, up to the last, in which every contribution was left out."""


@final
class Exchange:
    """The shared objective of a population."""

    def __init__(
        self,
        params: Float[Tensor, " param"],
        num_agents: int,
        *,
        learning_rate: float,
        num_workers: int,
        stop: StopRequest,
        compiled: bool = False,
    ) -> None:
        """Allocate the shared tensors.

        Args:
            params: initial α.
            num_agents: slots.
            learning_rate: Adam step size of α.
            num_workers: processes that meet.
            stop: the coordinator's request, which becomes the workers' agreement.
            compiled: make the steps by kernels, where numba is installed.

        Raises:
            StorageError: the system has no room for shared tensors, or for more open files.
        """
        size = params.numel()
        self.params: Float[Tensor, " param"] = shared(params.clone())
        self._slots = shared(torch.full((num_agents, size), torch.nan))
        self._slot_states = shared(torch.zeros(num_agents, dtype=torch.int64))
        self._adam = Adam(self.params, learning_rate)
        for tensor in self._adam.tensors().values():
            shared(tensor)
        self._counters = shared(torch.zeros(3, dtype=torch.int64))
        """version, skipped_gradients, barren_meetings"""
        self._gradient_norm = shared(torch.zeros((), dtype=torch.float64))
        self._stop = stop
        self._stop_agreed = shared(torch.zeros((), dtype=torch.int64))
        self._barrier = Barrier(num_workers) if num_workers > 1 else None
        self._passage: Passage | None = None
        self._has_kernels = compiled and is_numba_installed()

    def contribute(self, agent_id: int, gradient: Float[Tensor, " param"]) -> bool:
        """Put one agent's gradient into its slot; return False where it is not finite."""
        if self._has_kernels:
            from mgrl_cli.algorithm.fused import descent

            is_finite = descent.put(array_of(gradient), self._slots.numpy()[agent_id])
        else:
            is_finite = is_finite_squared(gradient)
            self._slots[agent_id] = gradient
        self._slot_states.numpy()[agent_id] = _FINITE if is_finite else _NOT_FINITE
        return is_finite

    def arrive(self) -> None:
        """Say that this worker has contributed; the last of all to say so updates α.

        Until `leave`, nothing may be done that depends on α: it changes at some time in between.
        """
        if self._barrier is None:
            self._combine()
        else:
            self._passage = self._barrier.arrive(self._combine)

    def leave(self) -> bool:
        """Wait until the meeting is over that this worker has arrived at; return whether all stop.

        α is then updated, if anyone contributed. Without an arrival since the last call, what was
        agreed last is returned at once. The wait has no end of its own: the coordinator ends all
        workers when one of them is gone.
        """
        if self._passage is not None:
            self._passage.wait()
            self._passage = None
        return bool(self._stop_agreed.numpy())

    def meet(self) -> bool:
        """Arrive and leave."""
        self.arrive()
        return self.leave()

    def tensors(self) -> dict[str, Tensor]:
        """Return α and all that its next steps depend on, by name: shared, no copies.

        Touch them only while no worker is in a meeting. Slots are empty between meta-steps.
        """
        return {
            "params": self.params,
            **self._adam.tensors(),
            "counters": self._counters,
            "gradient_norm": self._gradient_norm,
        }

    @property
    def status(self) -> ExchangeStatus:
        """The objective's present figures; exact only while no worker is in a meta-step."""
        version, skipped, barren = (int(x) for x in self._counters)
        return ExchangeStatus(version, float(self._gradient_norm), skipped, barren)

    def _combine(self) -> None:
        """Apply α ← α - Adam(mean of the finite g_i) and clear the slots."""
        # As arrays: a torch operation on one number costs as much as the sum of all gradients.
        slot_states, counters = self._slot_states.numpy(), self._counters.numpy()
        states = slot_states.tolist()
        finite = [agent for agent, state in enumerate(states) if state == _FINITE]
        skipped = states.count(_NOT_FINITE)
        if finite:
            self._gradient_norm.numpy()[...] = self._descend(finite)
            counters[0] += 1
        counters[1] += skipped
        if finite:
            counters[2] = 0
        elif skipped:
            counters[2] += 1
        slot_states[:] = _EMPTY
        # All workers read the agreement, not the request, so they stop at the same meta-step.
        self._stop_agreed.numpy()[...] = self._stop.is_requested

    def _descend(self, agents: Sequence[int]) -> float:
        """Make the step by the mean of these agents' gradients; return its norm."""
        if self._has_kernels:
            return self._adam.descend_mean_compiled(self._slots.numpy(), np.array(agents))
        total = torch.zeros(self.params.numel(), dtype=torch.float64)
        for agent in agents:
            total += self._slots[agent]
        mean = total / len(agents)
        self._adam.descend(mean.to(self.params.dtype))
        return mean.norm().item()
