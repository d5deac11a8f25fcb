"""When an agent does more harm than good: failures in a row, and the quarantine they lead to."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, final

from pydantic import ConfigDict, Field

from mgrl_cli.config import SupervisionConfig

DIVERGED = "diverged"
"""How the reason begins where the agent's numbers, not its environment, gave out."""
_MAX_SKIPPED_EPOCHS = 3
"""Epochs in a row that may teach nothing."""


def patience_per_epoch(limits: SupervisionConfig) -> SupervisionConfig:
    """Return the limits of agents that learn once per epoch: tens to hundreds of times in a run."""
    patience = min(limits.max_skipped_updates, _MAX_SKIPPED_EPOCHS)
    return limits.model_copy(update={"max_skipped_updates": patience})


@final
@dataclass
class Health:
    """An agent's failures since the last success of their kind."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    failed_episodes: Annotated[int, Field(ge=0)] = 0
    """Episodes dropped because the environment failed."""
    # Counts of their own: a critic that fails at every update would else hide behind a policy that
    # does not, and the other way round.
    skipped_critic_updates: Annotated[int, Field(ge=0)] = 0
    """Critic updates left out because they were not finite."""
    skipped_policy_updates: Annotated[int, Field(ge=0)] = 0
    """Policy updates left out because they were not finite."""
    skipped_gradients: Annotated[int, Field(ge=0)] = 0
    """Meta-gradients left out because they were not finite."""
    quarantine: str = ""
    """Why the agent is out of the population; empty: it is not."""

    def count_episode(self, failure: str, limits: SupervisionConfig) -> None:
        """Count an episode.

        Args:
            failure: why it was dropped; empty for a whole one.
            limits: when patience ends.
        """
        self.failed_episodes = self.failed_episodes + 1 if failure else 0
        if self.failed_episodes >= limits.max_failed_episodes:
            self.quarantine = (
                f"{self.failed_episodes} episodes in a row failed, the last with: {failure}"
            )

    def count_critic_update(self, is_finite: bool, limits: SupervisionConfig) -> None:
        """Count an update of the critic, made or left out."""
        self.skipped_critic_updates = 0 if is_finite else self.skipped_critic_updates + 1
        self._judge(self.skipped_critic_updates, "critic updates", limits)

    def count_policy_update(self, is_finite: bool, limits: SupervisionConfig) -> None:
        """Count an update of the policy, made or left out."""
        self.skipped_policy_updates = 0 if is_finite else self.skipped_policy_updates + 1
        self._judge(self.skipped_policy_updates, "policy updates", limits)

    def count_meta_gradient(self, is_finite: bool, limits: SupervisionConfig) -> None:
        """Count a contribution to the objective."""
        self.skipped_gradients = 0 if is_finite else self.skipped_gradients + 1
        self._judge(self.skipped_gradients, "meta-gradients", limits)

    def count_divergence(self, what: str) -> None:
        """Take note that the agent's own numbers gave out, for good."""
        self.quarantine = f"{DIVERGED}: {what}"

    def _judge(self, skipped: int, what: str, limits: SupervisionConfig) -> None:
        if skipped >= limits.max_skipped_updates:
            self.count_divergence(f"{skipped} {what} in a row were not finite")
