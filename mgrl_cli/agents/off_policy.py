"""The kind of agent that the algorithm is about: a replay, a critic, and an objective's policy.

Every rule whose policy learns from replayed windows is one of these and differs in its objective:
the learned one, -Q, off-policy REINFORCE. "td3" alone also has settings of its own.
"""

from collections.abc import Callable
from typing import final

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mgrl_cli.agents.agent import Agent
from mgrl_cli.agents.episodes import Exploration
from mgrl_cli.agents.learner import Learner
from mgrl_cli.agents.population import AgentSpec
from mgrl_cli.agents.rules import config_of_rule, needs_behaviour, objective_of
from mgrl_cli.algorithm.batches import Transitions, Windows, part_of, transitions_of
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.config import RunConfig
from mgrl_cli.telemetry import AgentState

_DIAGNOSTICS_INTERVAL = 20
"""Meta-steps between measurements of gain and cosine, which cost extra passes."""


@final
class OffPolicyAgent(Agent):
    """A learner with targets and twin critics on an agent's replay, and its lives."""

    def __init__(
        self,
        spec: AgentSpec,
        config: RunConfig,
        network: ObjectiveNetwork,
        objective_params: Float[Tensor, " param"],
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        """Make a fresh agent.

        Args:
            spec: who it is.
            config: settings of the run; the agent's rule may change some.
            network: the learned objective's architecture.
            objective_params: α; may be shared memory that others change, but not while it is read.
            on_step: called before every env step, as a sign of life.

        Raises:
            EnvironmentSetupError: the environment cannot be made.
            EnvironmentFailure: its constructor raised.
        """
        config = config_of_rule(config, spec.rule)
        self._with_behaviour = needs_behaviour(spec.rule)
        noise = config.exploration.noise if self._with_behaviour else None
        super().__init__(
            spec, config, on_step, capacity=config.replay.capacity, exploration_noise=noise
        )
        self._network = network
        self._objective_params = objective_params
        self.learner = Learner(
            config, self.player.obs_size, self.player.act_size, self.streams.networks
        )
        self._objective = objective_of(spec.rule, config, network, objective_params)

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Return π_φ(s)."""
        return self.learner.act(obs)

    def tensors(self) -> dict[str, Tensor]:
        """Return networks, targets and optimisers."""
        return self.learner.tensors()

    @property
    def is_learning(self) -> bool:
        """True where this round's updates are made: the agent has played enough to learn from."""
        if self.health.quarantine:
            return False
        has_own_replay = self._config.meta.reset == "policy" and self.counters.life > 0
        has_played = has_own_replay or self.life_steps >= self._config.schedule.updates_start
        # One that overshot rests, and may do so right after a new life has cleared its replay.
        return has_played and self.replay.num_steps > 0

    @property
    def objective_share(self) -> float:
        """The annealing's p: the objective's share in the policy's loss, 1 in later lives."""
        anneal_steps = self._config.meta.anneal_steps
        is_annealed = self._config.kind == "meta-train" and self.counters.life == 0
        if not is_annealed or anneal_steps == 0:
            return 1.0
        return min(1.0, self.counters.env_steps / anneal_steps)

    def _working_state(self) -> AgentState:
        if self.counters.life and self.life_steps <= self._config.schedule.round_steps:
            return AgentState.RESTARTED
        if not self.is_learning or self._acts_randomly:
            return AgentState.EXPLORING
        return AgentState.ANNEALING if self.objective_share < 1.0 else AgentState.LEARNING

    @property
    def _acts_randomly(self) -> bool:
        keeps_policy_only = self._config.meta.reset == "policy" and self.counters.life > 0
        return not keeps_policy_only and self.life_steps < self._config.exploration.random_steps

    def begin_round(self) -> None:
        """Open a round's statistics and start a new life where the old one has ended."""
        super().begin_round()
        lifetime = self._config.meta.lifetime
        length = lifetime if self.counters.life else self.spec.first_life_steps
        if self._config.kind == "meta-train" and lifetime and self.life_steps >= length:
            self._start_new_life()

    def _start_new_life(self) -> None:
        self.counters.life += 1
        self.counters.life_start = self.counters.env_steps
        self.learner.renew_policy(self.streams.networks)
        if self._config.meta.reset == "agent":
            self.learner.renew_critic(self.streams.networks)
            self.replay.clear()

    def _collect(self, objective_version: int) -> None:
        """Play one episode: first random actions, then the policy with noise."""
        random_steps = self._config.exploration.random_steps - self.life_steps
        exploration = Exploration(
            self.streams.exploration,
            random_steps=random_steps if self._acts_randomly else 0,
            noise=self._config.exploration.noise,
        )
        self._play_one_episode(exploration, objective_version)

    def learn(self, update_index: int) -> None:
        """Make update j: the critic always, policy and targets where j is even.

        Args:
            update_index: j, counted over the whole run.
        """
        transitions = self._critic_batch()
        noise = self.streams.target_noise.standard_normal(
            transitions.action.shape, dtype=np.float32
        )
        loss, applied = self.learner.update_critic(transitions, noise)
        self.statistics.add("critic_loss", loss)
        self.statistics.count("skipped_updates", not applied)
        self.health.count_critic_update(applied, self._config.supervision)
        self.counters.updates += 1
        if update_index % self._config.schedule.policy_interval == 0:
            windows = self._windows(self._config.windows.batch, with_behaviour=self._with_behaviour)
            update = self.learner.update_policy(windows, self._objective, self.objective_share)
            self.statistics.add("policy_loss", update.loss)
            self.statistics.add("action_slack", update.action_slack)
            self.statistics.count("skipped_updates", not update.applied)
            self.health.count_policy_update(update.applied, self._config.supervision)
            self.learner.update_targets()

    def count_meta_gradient(self, is_finite: bool) -> None:
        """Count a contribution to the objective, or one left out because it was not finite."""
        self.statistics.count("skipped_gradients", not is_finite)
        self.health.count_meta_gradient(is_finite, self._config.supervision)

    def meta_gradient(self, meta_step: int) -> Float[Tensor, " param"]:
        """Return the agent's contribution g_i to the objective, clipped or of unit norm.

        Args:
            meta_step: number of the meta-step; some also measure gain and cosine.
        """
        settings = self._config.meta
        batch = self._config.windows.batch
        drawn = self._windows((settings.inner_steps + 1) * batch)
        batches = [
            part_of(drawn, slice(k * batch, (k + 1) * batch))
            for k in range(settings.inner_steps + 1)
        ]
        result = self.learner.meta_gradient(self._network, self._objective_params, batches)
        contribution, norm = self.learner.contribution(result.gradient)
        self.statistics.add("inner_gradient_norm", result.inner_gradient_norm)
        self.statistics.add("meta_gradient_norm", norm)
        if meta_step % _DIAGNOSTICS_INTERVAL == 0:
            self.statistics.add("gain", self.learner.gain(self._network, result, batches))
            cosine = self.learner.cosine_with_critic(batches[1], result.inner_gradient)
            self.statistics.add("cosine", cosine)
        return contribution

    def _windows(self, batch: int, *, with_behaviour: bool = False) -> Windows:
        return self.replay.sample_windows(
            self.streams.replay,
            batch,
            self._config.windows.steps,
            self._config.windows.sample_by,
            timeout_is_terminal=self._config.critic.timeout_is_terminal,
            with_behaviour=with_behaviour,
        )

    def _critic_batch(self) -> Transitions:
        if self._config.critic.batch == "windows":
            return transitions_of(self._windows(self._config.windows.batch))
        return self.replay.sample_transitions(
            self.streams.replay,
            self._config.windows.batch * self._config.windows.steps,
            timeout_is_terminal=self._config.critic.timeout_is_terminal,
        )
