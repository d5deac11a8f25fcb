"""What may drive an agent: the rules of a run as objectives."""

from jaxtyping import Float
from torch import Tensor

from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.algorithm.objectives import (
    CriticObjective,
    LearnedObjectiveLoss,
    Objective,
    ReinforceObjective,
)
from mgrl_cli.config import Rule, RunConfig


def objective_of(
    rule: Rule,
    config: RunConfig,
    network: ObjectiveNetwork,
    objective_params: Float[Tensor, " param"],
) -> Objective:
    """Return the objective that a rule stands for.

    Args:
        rule: which.
        config: settings of the run.
        network: the learned objective's architecture.
        objective_params: α, read at every use; for the rules "learned" and "untrained".
    """
    if rule == "ddpg":
        return CriticObjective()
    if rule == "reinforce":
        return ReinforceObjective(
            discount=config.critic.discount, terminal_bonus=float(config.critic.terminal_bonus)
        )
    return LearnedObjectiveLoss(network, objective_params)
