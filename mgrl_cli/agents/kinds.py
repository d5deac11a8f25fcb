"""Which kind of agent each rule is."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from mgrl_cli.agents.agent import Agent
from mgrl_cli.agents.off_policy import OffPolicyAgent
from mgrl_cli.agents.population import AgentSpec
from mgrl_cli.agents.vpg_agent import VpgAgent
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.config import RunConfig


def make_agent(
    spec: AgentSpec,
    config: RunConfig,
    network: ObjectiveNetwork,
    objective_params: Float[Tensor, " param"],
    on_step: Callable[[], None],
) -> Agent:
    """Return a fresh agent; arguments and errors as of `OffPolicyAgent`."""
    if spec.rule == "vpg":
        return VpgAgent(spec, config, on_step)
    if spec.rule == "ppo":
        from mgrl_cli.agents.ppo_agent import PpoAgent  # its library is an extra, and slow to load

        return PpoAgent(spec, config, on_step)
    return OffPolicyAgent(spec, config, network, objective_params, on_step)
