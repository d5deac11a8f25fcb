"""What may drive an off-policy agent: the rules of a run as objectives, and as settings."""

from jaxtyping import Float
from torch import Tensor

from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.algorithm.objectives import (
    CriticObjective,
    ImportanceWeightedReinforce,
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
    """Return the objective that an off-policy rule stands for.

    Args:
        rule: which.
        config: settings of the run.
        network: the learned objective's architecture.
        objective_params: α, read at every use; for the rules "learned" and "untrained".
    """
    terminal_bonus = float(config.critic.terminal_bonus)
    if rule in ("ddpg", "td3"):
        return CriticObjective()
    if rule == "reinforce":
        return ReinforceObjective(discount=config.critic.discount, terminal_bonus=terminal_bonus)
    if needs_behaviour(rule):
        return ImportanceWeightedReinforce(
            discount=config.critic.discount,
            noise=config.exploration.noise,
            weight_clip=config.reinforce.weight_clip if rule == "reinforce-is-clipped" else None,
            terminal_bonus=terminal_bonus,
        )
    return LearnedObjectiveLoss(network, objective_params)


def needs_behaviour(rule: Rule) -> bool:
    """Return whether a rule's objective looks at how replayed actions came about."""
    return rule in ("reinforce-is", "reinforce-is-clipped")


def config_of_rule(config: RunConfig, rule: Rule) -> RunConfig:
    """Return the settings under which a rule runs: the run's own, but for "td3".

    TD3's networks, step sizes, batches, targets and delay of the policy are those published,
    whatever the preset. Discount, smoothing, exploration and rounds stay the run's: agents differ
    in nothing else.
    """
    if rule != "td3":
        return config
    network = {
        "hidden": config.td3.hidden,
        "learning_rate": config.td3.learning_rate,
        "layer_norm": False,
        "initialisation": "fan_in",
    }
    policy = {"last_layer_scale": 1.0, "pre_activation_limit": 0.0, "clip_norm": 0.0}
    critic = {"batch": "transitions", "terminal_bonus": False, "timeout_is_terminal": False}
    # Windows of one step are independent transitions. No learned objective reads them, for which a
    # run's windows have at least two.
    windows = {"batch": config.td3.batch, "steps": 1, "sample_by": "start"}
    return config.model_copy(
        update={
            "policy": config.policy.model_copy(update={**network, **policy}),
            "critic": config.critic.model_copy(update={**network, **critic}),
            "windows": config.windows.model_copy(update=windows),
            "schedule": config.schedule.model_copy(update={"policy_interval": 2}),
        }
    )
