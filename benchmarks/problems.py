"""Problems of a real agent's sizes, for everybody to solve.

HalfCheetah's 17 observations and 6 actions, random float32 data in a real replay, windows drawn
from it as training draws them.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, final
from unittest.mock import patch

import numpy as np
from torch import Tensor
from torch.nn import functional

from benchmarks.measure import Effort
from mgrl_cli.algorithm import objective_network, trunk
from mgrl_cli.algorithm.batches import WindowTensors, part_of
from mgrl_cli.algorithm.fused import objective as fused_objective
from mgrl_cli.algorithm.fused.sources import is_numba_installed
from mgrl_cli.algorithm.meta_gradient import MetaProblem, VirtualStep
from mgrl_cli.algorithm.networks import CriticNetwork, PolicyNetwork
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.replay.ring import ReplayRing
from mgrl_cli.replay.schema import BehaviourKind, Episode

OBS_SIZE, ACT_SIZE = 17, 6
_EPISODES = 100


@final
@dataclass(frozen=True, slots=True)
class Size:
    """How large an agent's networks and batches are."""

    name: str
    hidden: int
    batch: int
    steps: int

    def __str__(self) -> str:
        return f"{self.name}: {self.hidden} hidden units, {self.batch}x{self.steps} windows"


LAPTOP = Size("laptop", 64, 16, 20)
MIDDLE = Size("middle", 128, 32, 20)
PAPER = Size("paper", 350, 100, 20)


def sizes(effort: Effort) -> tuple[Size, ...]:
    """Return the sizes to measure."""
    return (LAPTOP,) if effort is Effort.SMOKE else (LAPTOP, MIDDLE, PAPER)


def random_episode(rng: np.random.Generator, length: int, *, terminated: bool) -> Episode:
    """Return an episode of random numbers that the task (or else a time limit) ended."""
    action = rng.uniform(-1.0, 1.0, (length, ACT_SIZE)).astype(np.float32)
    is_last = np.arange(length) == length - 1
    return Episode(
        obs=rng.standard_normal((length + 1, OBS_SIZE), dtype=np.float32),
        action=action,
        raw_action=action,
        behaviour_mean=action,
        behaviour_kind=np.full(length, BehaviourKind.POLICY, np.uint8),
        reward=rng.standard_normal(length, dtype=np.float32),
        terminated=is_last & terminated,
        truncated=is_last & (not terminated),
        objective_version=np.zeros(length, np.int64),
        seed=0,
        life=0,
    )


def filled_replay(rng: np.random.Generator) -> ReplayRing:
    """Return a replay of 100 episodes of 100 to 1,000 steps; every second one was terminated."""
    replay = ReplayRing(1000 * _EPISODES, OBS_SIZE, ACT_SIZE)
    for number in range(_EPISODES):
        length = int(rng.integers(100, 1001))
        replay.append(random_episode(rng, length, terminated=number % 2 == 1))
    return replay


@final
class MetaSetup(NamedTuple):
    """A meta-gradient's problem and where to solve it."""

    problem: MetaProblem
    params: Tensor
    """α."""
    policy_params: Tensor
    """φ."""
    batches: list[WindowTensors]
    """τ_0, for the critic only, and τ_1, which the virtual step descends; B windows each."""

    def with_kernels(self) -> "MetaSetup":
        """Return the same problem with networks that use compiled kernels where they can."""
        hidden = self.problem.policy.layout.shapes["linear_1.weight"][1]
        problem = replace(
            self.problem,
            policy=PolicyNetwork(OBS_SIZE, ACT_SIZE, hidden, compiled=True),
            critic=CriticNetwork(OBS_SIZE, ACT_SIZE, hidden, compiled=True),
            objective=ObjectiveNetwork(compiled=True),
        )
        return self._replace(problem=problem)

    def in_float64(self) -> "MetaSetup":
        """Return the same problem in double precision."""
        return MetaSetup(
            replace(self.problem, critic_params=self.problem.critic_params.double()),
            self.params.double(),
            self.policy_params.double(),
            [
                WindowTensors(*(x.double() if x.is_floating_point() else x for x in windows[:-1]))
                for windows in self.batches
            ],
        )


def meta_setup(size: Size) -> MetaSetup:
    """Return a problem with fresh networks and one virtual step on the sum over its windows.

    The virtual step's size costs no time. It is small: after a step as long as the policy's
    parameters, on a random objective, float32 gradients of all implementations are right in one or
    two digits only.
    """
    rng = np.random.default_rng(0)
    policy = PolicyNetwork(OBS_SIZE, ACT_SIZE, size.hidden)
    critic = CriticNetwork(OBS_SIZE, ACT_SIZE, size.hidden)
    objective = ObjectiveNetwork(compiled=False)
    problem = MetaProblem(
        policy=policy,
        critic=critic,
        objective=objective,
        critic_params=critic.initialise_twins(rng),
        virtual_step=VirtualStep(size=0.002 / (size.batch * size.steps), kind="sum"),
    )
    drawn = filled_replay(rng).sample_windows(rng, 2 * size.batch, size.steps)
    batches = [
        part_of(drawn, rows).tensors() for rows in (slice(size.batch), slice(size.batch, None))
    ]
    return MetaSetup(problem, objective.initialise(rng), policy.initialise(rng), batches)


def require_kernels() -> None:
    """Compile the objective's kernels or load them.

    Raises:
        ImportError: numba is not installed.
    """
    if not is_numba_installed():
        raise ImportError("No module named 'numba'", name="numba")
    for load in fused_objective.pass_loads(ObjectiveNetwork(compiled=True)):
        load()


@contextmanager
def torch_layer_norm() -> Generator[None]:
    """Let the plain networks use torch's own LayerNorm, which makes them faster.

    mgrl writes LayerNorm out in small operations, since torch's is wrong in forward over reverse
    mode. Where only reverse mode is used, no plain implementation would do so.
    """

    def layer_norm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        width = (x.shape[-1],)
        if gain.numel() == x.shape[-1]:
            return functional.layer_norm(x, width, gain.reshape(width), bias.reshape(width))
        return functional.layer_norm(x, width) * gain + bias  # twin critics

    with (
        patch.object(trunk, "layer_norm", layer_norm),
        patch.object(objective_network, "layer_norm", layer_norm),
    ):
        yield


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Return ‖got - expected‖ / ‖expected‖."""
    return float((got - expected).norm() / expected.norm())
