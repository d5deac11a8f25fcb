"""One agent: a learner on its own environment with its own replay and random streams.

The runtime decides when an agent plays, learns and is evaluated; an agent knows nothing of
processes, files or other agents.
"""

from collections.abc import Callable
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mgrl_cli.agents.counters import Counters
from mgrl_cli.agents.episodes import Exploration
from mgrl_cli.agents.health import Health
from mgrl_cli.agents.learner import Learner
from mgrl_cli.agents.player import Player
from mgrl_cli.agents.population import AgentSpec
from mgrl_cli.agents.round_statistics import RoundStatistics
from mgrl_cli.agents.rules import objective_of
from mgrl_cli.agents.streams import Streams, draw_seed
from mgrl_cli.algorithm.batches import Transitions, Windows, transitions_of
from mgrl_cli.algorithm.meta_gradient import clipped, unit
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.config import RunConfig
from mgrl_cli.replay.ring import ReplayRing
from mgrl_cli.replay.schema import Episode
from mgrl_cli.telemetry import AgentState

_DIAGNOSTICS_INTERVAL = 20
"""Meta-steps between measurements of gain and cosine, which cost extra passes."""


@final
class Agent:
    """Learner, environment, replay, counters and streams of one agent."""

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
            config: settings of the run.
            network: the learned objective's architecture.
            objective_params: α; may be shared memory that others change between updates.
            on_step: called before every env step, as a sign of life.

        Raises:
            EnvironmentSetupError: the environment cannot be made.
            EnvironmentFailure: its constructor raised.
        """
        self.spec = spec
        self._config = config
        self._network = network
        self._objective_params = objective_params
        self.streams = Streams(config.seed, spec.seed_index)
        self.player = Player(spec.env, on_step)
        sizes = (self.player.obs_size, self.player.act_size)
        self.learner = Learner(config, *sizes, self.streams.networks)
        self.replay = ReplayRing(config.replay.capacity, *sizes)
        self.counters = Counters()
        self.statistics = RoundStatistics()
        self.health = Health()
        self.new_episodes: list[Episode] = []
        """Episodes played since the runtime last took them to the log."""
        self._objective = objective_of(spec.rule, config, network, objective_params)

    @property
    def life_steps(self) -> int:
        """Env steps of the present life."""
        return self.counters.env_steps - self.counters.life_start

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
        """P of the annealing: the objective's share in the policy's loss, 1 in later lives."""
        anneal_steps = self._config.meta.anneal_steps
        is_annealed = self._config.kind == "meta-train" and self.counters.life == 0
        if not is_annealed or anneal_steps == 0:
            return 1.0
        return min(1.0, self.counters.env_steps / anneal_steps)

    @property
    def state(self) -> AgentState:
        """What the agent is doing, for the live view."""
        if self.health.quarantine:
            return AgentState.QUARANTINED
        if self.counters.env_steps >= self._config.steps:
            return AgentState.FINISHED
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
        self.statistics = RoundStatistics()
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

    def play(
        self,
        target_env_steps: int,
        objective_version: int,
        go_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """Play whole episodes until `env_steps` reaches the target; one that overshot may rest.

        An episode in which the environment fails is dropped and counted; too many in a row put the
        agent into quarantine.

        Args:
            target_env_steps: over the whole run, not this life.
            objective_version: meta-steps applied so far, stored with every step.
            go_on: asked before every episode.
        """
        while self.counters.env_steps < target_env_steps and not self.health.quarantine and go_on():
            self._play_one_episode(objective_version)

    def _play_one_episode(self, objective_version: int) -> None:
        """Play one episode with exploration noise into replay."""
        random_steps = self._config.exploration.random_steps - self.life_steps
        exploration = Exploration(
            self.streams.exploration,
            random_steps=random_steps if self._acts_randomly else 0,
            noise=self._config.exploration.noise,
        )
        seed = draw_seed(self.streams.environment)
        episode = self.player.play(self.learner.act, exploration, seed)
        failure = self.player.last_failure if episode is None else ""
        self.health.count_episode(failure, self._config.supervision)
        if episode is None:
            self.statistics.count("failed_episodes")
            return
        episode = episode._replace(
            objective_version=np.full(len(episode.reward), objective_version, dtype=np.int64),
            life=self.counters.life,
        )
        self.replay.append(episode)
        self.new_episodes.append(episode)
        episode_return = float(episode.reward.sum(dtype=np.float64))
        self.counters.add_episode(len(episode.reward), episode_return)
        self.statistics.add("mean_return", episode_return)

    def learn(self, update_index: int) -> None:
        """Make update j: the critic always, policy and targets where j is even.

        Args:
            update_index: j, counted over the whole run.
        """
        transitions = self._critic_batch()
        shape = tuple(transitions.action.shape)
        noise = self.streams.target_noise.standard_normal(shape, dtype=np.float32)
        loss, applied = self.learner.update_critic(transitions, torch.from_numpy(noise))
        self.statistics.add("critic_loss", loss)
        self.statistics.count("skipped_updates", not applied)
        self.health.count_critic_update(applied, self._config.supervision)
        self.counters.updates += 1
        if update_index % self._config.schedule.policy_interval == 0:
            windows = self._windows(self._config.windows.batch)
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
            Windows(*(tensor[k * batch : (k + 1) * batch] for tensor in drawn))
            for k in range(settings.inner_steps + 1)
        ]
        result = self.learner.meta_gradient(self._network, self._objective_params, batches)
        self.statistics.add("inner_gradient_norm", result.inner_gradient_norm.item())
        self.statistics.add("meta_gradient_norm", result.gradient.norm().item())
        if meta_step % _DIAGNOSTICS_INTERVAL == 0:
            self.statistics.add("gain", self.learner.gain(self._network, result, batches))
            cosine = self.learner.cosine_with_critic(batches[1], self._objective)
            self.statistics.add("cosine", cosine)
        if settings.gradient_scale == "unit":
            return unit(result.gradient)
        return clipped(result.gradient, limit=settings.clip_norm)

    def evaluate_if_due(self) -> None:
        """Evaluate without noise when `env_steps` has passed the next multiple of the interval."""
        interval = self._config.evaluation.interval
        is_due = interval and self.counters.env_steps // interval > self.counters.evaluations
        if self.health.quarantine or not is_due:
            return
        seeds: list[int] = []
        while self.counters.evaluations < self.counters.env_steps // interval:
            # A long episode may pass several multiples at once; what was passed over still uses up
            # its seeds, so that evaluation n plays the same episodes for every rule.
            seeds = [
                draw_seed(self.streams.evaluation) for _ in range(self._config.evaluation.episodes)
            ]
            self.counters.evaluations += 1
        returns = self.player.evaluate(self.learner.act, seeds)
        for _ in range(len(seeds) - len(returns)):
            self.statistics.count("failed_episodes")
        if returns:
            self.counters.last_evaluation = float(np.mean(returns))
            self.statistics.add("evaluation", self.counters.last_evaluation)

    def end_round(self) -> None:
        """Close the round in progress."""
        self.counters.rounds += 1
        self.counters.has_played = False
        self.counters.round_updates = 0

    def metrics_row(self) -> dict[str, float | int | str | None]:
        """Return the last round's figures: counters, then means over it (None: none)."""
        return {
            "agent_id": self.spec.agent_id,
            "environment": self.spec.env.id,
            "rule": self.spec.rule,
            "seed": self.spec.seed_index,
            "round": self.counters.rounds,
            "life": self.counters.life,
            "env_steps": self.counters.env_steps,
            "updates": self.counters.updates,
            "episodes": self.counters.episodes,
            "annealing": self.objective_share,
            **self.statistics.summary(),
        }

    def close(self) -> None:
        """Release the environments."""
        self.player.close()

    def _windows(self, batch: int) -> Windows:
        return self.replay.sample_windows(
            self.streams.replay,
            batch,
            self._config.windows.steps,
            self._config.windows.sample_by,
            timeout_is_terminal=self._config.critic.timeout_is_terminal,
        )

    def _critic_batch(self) -> Transitions:
        if self._config.critic.batch == "windows":
            return transitions_of(self._windows(self._config.windows.batch))
        return self.replay.sample_transitions(
            self.streams.replay,
            self._config.windows.batch * self._config.windows.steps,
            timeout_is_terminal=self._config.critic.timeout_is_terminal,
        )
