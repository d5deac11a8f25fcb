"""The compiled kernels that a run's agents will use, fetched before anything waits for them."""

from mgrl_cli.algorithm.fused import objective as fused_objective
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.algorithm.trunk import Trunk
from mgrl_cli.config import RunConfig


def load_kernels(config: RunConfig, network: ObjectiveNetwork) -> None:
    """Compile the float32 kernels, or load them from numba's cache, where wanted and possible.

    Takes about a minute the first time on a machine, so do it once before starting workers.
    """
    fused_objective.prepare(network)
    for hidden in {config.policy.hidden, config.critic.hidden}:
        Trunk(1, hidden, 1, compiled=config.compiled).prepare()
