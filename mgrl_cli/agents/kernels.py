"""The compiled kernels of a run's agents: which, and fetched before anything waits for them."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from mgrl_cli.agents.population import objective_shape
from mgrl_cli.agents.rules import config_of_rule
from mgrl_cli.algorithm.fused import objective as fused_objective
from mgrl_cli.algorithm.fused.sources import is_numba_installed
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.algorithm.objectives import CriticObjective, LearnedObjectiveLoss, Objective
from mgrl_cli.algorithm.parameters import TrunkSizes
from mgrl_cli.algorithm.trunk import Trunk
from mgrl_cli.config import ON_POLICY, Rule, RunConfig

if TYPE_CHECKING:
    from mgrl_cli.algorithm.fused.updates import FusedUpdates

_COMPILED_AT_IMPORT = (
    "mgrl_cli.algorithm.fused.meta_glue",
    "mgrl_cli.algorithm.fused.glue",
    "mgrl_cli.algorithm.fused.descent",
    "mgrl_cli.replay.compiled_gather",
)


def kernel_loads(config: RunConfig) -> list[Callable[[], object]]:
    """Return functions that each compile some float32 kernels, or load them from numba's cache.

    Empty where kernels are not wanted or not possible. Together they take about a minute the first
    time on a machine. Those that take long come first, so that several processes that take turns
    end together.
    """
    if not (config.compiled and is_numba_installed()):
        return []
    loads: list[Callable[[], object]] = []
    rules: Sequence[Rule] = ("learned",) if config.kind == "meta-train" else config.rules
    trunks: set[tuple[int, bool]] = set()
    for rule in rules:
        if rule not in ON_POLICY:
            settings = config_of_rule(config, rule)
            trunks |= {(net.hidden, net.layer_norm) for net in (settings.policy, settings.critic)}
    for hidden, layer_norm in sorted(trunks):
        loads.append(Trunk(1, hidden, 1, layer_norm=layer_norm, compiled=True).load_kernels)
    if {"learned", "untrained"} & set(rules):
        network = ObjectiveNetwork(objective_shape(config), compiled=True)
        loads.extend(fused_objective.pass_loads(network))
    return loads + [partial(import_module, name) for name in _COMPILED_AT_IMPORT]


def load_kernels(config: RunConfig) -> None:
    """Do all that `kernel_loads` returns, one after the other."""
    for load in kernel_loads(config):
        load()


def has_kernels(objective: Objective) -> bool:
    """Return whether a policy update by this objective can be made of kernels alone."""
    if isinstance(objective, LearnedObjectiveLoss):
        return fused_objective.supports(objective.network, objective.params)
    return isinstance(objective, CriticObjective)


def fused_updates(config: RunConfig, obs_size: int, act_size: int) -> "FusedUpdates | None":
    """Return the updates from kernels alone, where these are wanted and can be had."""
    if not (config.compiled and is_numba_installed()):
        return None
    from mgrl_cli.algorithm.fused import updates

    policy, critic = config.policy, config.critic
    return updates.FusedUpdates(
        updates.AgentSizes(
            TrunkSizes(obs_size, policy.hidden, act_size, policy.layer_norm),
            TrunkSizes(obs_size + act_size, critic.hidden, 1, critic.layer_norm),
        ),
        updates.PolicySettings(policy.pre_activation_limit, policy.clip_norm),
        updates.CriticSettings(
            critic.discount,
            float(critic.terminal_bonus),
            critic.target_noise,
            critic.target_noise_clip,
        ),
        over_padding=config.windows.mean_over_padding,
    )
