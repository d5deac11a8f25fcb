"""Who is in a run: its agents, and the objective they start from."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mgrl_cli.agents.streams import random_stream
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork, ObjectiveShape
from mgrl_cli.config import EnvConfig, Rule, RunConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentSpec:
    """Who an agent is within its run."""

    agent_id: int
    """Global number of the agent."""
    env: EnvConfig
    rule: Rule
    seed_index: int
    """Which of the run's streams it draws from: its id in meta-training; in meta-testing the number
    of the test seed, so that all rules compared share initial networks and episode seeds."""
    first_life_steps: int
    """Env steps after which its first life ends; 0: never."""


def agent_specs(config: RunConfig) -> list[AgentSpec]:
    """Return every agent of a run in order of its id."""
    if config.kind == "meta-test":
        return [
            AgentSpec(
                agent_id=rule_number * config.seeds + seed_index,
                env=config.envs[0],
                rule=rule,
                seed_index=seed_index,
                first_life_steps=0,
            )
            for rule_number, rule in enumerate(config.rules)
            for seed_index in range(config.seeds)
        ]
    return [
        AgentSpec(
            agent_id=agent_id,
            env=config.environment_of(agent_id),
            rule="learned",
            seed_index=agent_id,
            # Lives end evenly spread over the population, so that all ages meet the objective.
            first_life_steps=-(-config.meta.lifetime * (agent_id + 1) // config.agents),
        )
        for agent_id in range(config.agents)
    ]


def objective_shape(config: RunConfig) -> ObjectiveShape:
    """Return the architecture of a fresh objective under these settings."""
    return ObjectiveShape(
        bound=config.objective.bound,
        terminal_value=config.objective.terminal_value,
        padding_first=config.objective.padding_first,
        without=tuple(config.objective.without),
        normalise=config.objective.normalise,
    )


def fresh_objective(config: RunConfig) -> Float[Tensor, " param"]:
    """Return the initial objective parameters of a run."""
    rng = random_stream(config.seed, "objective")
    network = ObjectiveNetwork(objective_shape(config))
    return network.initialise(rng, last_layer=config.objective.last_layer)
