"""What adds gradients up and steps between processes: the product's exchange and its peers.

Also the serial Adam that all of them must agree with.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.end_to_end import population
from mgrl_cli.agents.population import fresh_objective
from mgrl_cli.runtime.exchange import Exchange
from mgrl_cli.runtime.stop import StopRequest

MGRL, BARRIER, GLOO = "mgrl", "barrier", "gloo"
GRADIENTS = 8
"""Different gradients of each process, used in turns."""
LEARNING_RATE = 1e-3


class Contender(Protocol):
    """One process's end of an exchange."""

    params: Tensor

    def step(self, gradient: Tensor) -> None:
        """Add up everyone's gradients and make the Adam step."""
        ...


@final
class Ours:
    """The product's exchange."""

    def __init__(self, exchange: Exchange, rank: int) -> None:
        self._exchange, self._rank = exchange, rank
        self.params = exchange.params

    def step(self, gradient: Tensor) -> None:
        """Contribute and meet."""
        self._exchange.contribute(self._rank, gradient)
        self._exchange.meet()


@final
class Gloo:
    """torch.distributed's all_reduce."""

    def __init__(self, store: Path, rank: int, world: int, params: Tensor) -> None:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=world
        )
        self._world = world
        self.params = params.clone()
        self._optimizer = torch.optim.Adam([self.params], lr=LEARNING_RATE, fused=True)

    def step(self, gradient: Tensor) -> None:
        """Reduce a copy, since the gradient is its owner's."""
        mean = gradient.clone()
        torch.distributed.all_reduce(mean)
        self.params.grad = mean.div_(self._world)
        self._optimizer.step()


@final
class BarrierReduce:
    """Shared slots and a barrier."""

    def __init__(self, barrier: Any, slots: Tensor, rank: int, params: Tensor) -> None:  # noqa: ANN401
        """Take a barrier of all processes and their slots, [2, process, param]."""
        self._barrier, self._slots, self._rank = barrier, slots, rank
        self._turn = 0
        self.params = params.clone()
        self._optimizer = torch.optim.Adam([self.params], lr=LEARNING_RATE, fused=True)

    def step(self, gradient: Tensor) -> None:
        """Write, meet, read."""
        slots = self._slots[self._turn]
        slots[self._rank] = gradient
        self._barrier.wait()
        self.params.grad = slots.mean(dim=0)
        self._optimizer.step()
        self._turn = 1 - self._turn


def gradients_of(rank: int) -> Tensor:
    """Return one process's gradients, [GRADIENTS, param]."""
    rng = np.random.default_rng(rank)
    size = fresh_objective(population("cheetah", 1)).numel()
    return torch.from_numpy(rng.standard_normal((GRADIENTS, size), dtype=np.float32) / 100)


def new_exchange(world: int, *, num_workers: int | None = None) -> Exchange:
    """Return the product's exchange for so many agents; by default each in its own process."""
    return Exchange(
        fresh_objective(population("cheetah", 1)),
        world,
        learning_rate=LEARNING_RATE,
        num_workers=world if num_workers is None else num_workers,
        stop=StopRequest(),
        compiled=True,
    )


def assert_all_agree(
    finals: Sequence[dict[str, NDArray[np.float32]]], world: int, steps: int
) -> None:
    """Raise AssertionError where a process ended elsewhere than a serial Adam.

    The product's must end, bit for bit, where its serial twin does, which rounds otherwise than
    torch's Adam: after thousands of steps both are as far from one in float64.
    """
    gradients = torch.stack([gradients_of(rank) for rank in range(world)])
    means = gradients.double().sum(dim=0).div(world).float()
    params = fresh_objective(population("cheetah", 1)).clone()
    optimizer = torch.optim.Adam([params], lr=LEARNING_RATE, fused=True)
    for step in range(steps):
        params.grad = means[step % GRADIENTS].clone()
        optimizer.step()
    expected = params.numpy()
    twin = new_exchange(world, num_workers=1)
    for step in range(steps):
        for rank in range(world):
            twin.contribute(rank, gradients[rank][step % GRADIENTS])
        twin.meet()
    for rank, parameters in enumerate(finals):
        for name, got in parameters.items():
            distance = float(np.abs(got - expected).max())
            limit = 1e-3 if name == MGRL else 1e-4
            assert distance <= limit, f"{name}, process {rank}: {distance} from a serial Adam"
            assert np.array_equal(got, finals[0][name]), f"{name}: processes differ"
            if name == MGRL:
                assert np.array_equal(got, twin.params.numpy()), "mgrl differs from its serial twin"
