"""What may drive an agent's learning, and the settings of the rules that have their own.

Imports no torch.
"""

from typing import Annotated, Literal, get_args

from pydantic import Field

from mgrl_cli.config.sections import (
    Fraction,
    LearningRate,
    PositiveFloat,
    PositiveInt,
    Section,
)

Rule = Literal[
    "learned",
    "ddpg",
    "td3",
    "reinforce",
    "reinforce-is",
    "reinforce-is-clipped",
    "vpg",
    "ppo",
    "untrained",
]
"""The learned objective; -Q (DDPG with TD3 tricks) at the run's settings; TD3 as published;
off-policy REINFORCE with GAE, plain, with importance weights and with clipped ones; REINFORCE with
GAE on policy; PPO; a freshly initialised objective network."""
RULES: tuple[Rule, ...] = get_args(Rule)
BASELINES = tuple(rule for rule in RULES if rule != "learned")
"""Rules that need no objective file."""
ON_POLICY: tuple[Rule, ...] = ("vpg", "ppo")
"""Rules that learn as they play, from what they have just played."""


class Td3Config(Section):
    """The rule "td3", the same under every preset.

    Source: Fujimoto et al. 2018, https://arxiv.org/abs/1802.09477, with the sizes of the authors'
    later code.
    """

    hidden: Annotated[int, Field(ge=1, le=16_384)] = 256
    """Units of each of the two hidden layers, of policy and critics."""
    learning_rate: LearningRate = 3e-4
    """Adam step size of both."""
    batch: Annotated[int, Field(ge=1, le=10**6)] = 256
    """Independent transitions per batch."""


class ReinforceConfig(Section):
    """The rules "reinforce-is" and "reinforce-is-clipped"."""

    weight_clip: PositiveFloat = 10.0
    """Largest product of importance weights up to a step under "reinforce-is-clipped"."""


class VpgConfig(Section):
    """The rule "vpg": REINFORCE with GAE, on policy (Spinning Up's "vanilla policy gradient")."""

    epoch_steps: PositiveInt = 4000
    """Env steps per policy update; an epoch ends with the episode that reaches them."""
    policy_learning_rate: LearningRate = 3e-4
    """Adam step size of the policy, which makes one step per epoch."""
    value_learning_rate: LearningRate = 1e-3
    """Adam step size of the value function."""
    value_steps: Annotated[int, Field(ge=1, le=10_000)] = 80
    """Steps of the value function per epoch, each on all of it."""
    discount: Fraction = 0.99
    """γ per env step."""
    trace_decay: Fraction = 0.97
    """λ of the advantages."""
    timeout_is_terminal: bool = True
    """Nothing is expected after a time limit, as in the published code; false: bootstrap."""


class PpoConfig(Section):
    """The rule "ppo"; all else is stable-baselines3's default."""

    rollout_steps: Annotated[int, Field(ge=64, le=65_536, multiple_of=64)] = 2048
    """Env steps between updates."""
