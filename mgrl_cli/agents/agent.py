"""What every agent is, whatever it learns by: environments, streams, counts, rounds, evaluation.

The runtime decides when an agent plays, learns and is evaluated; an agent knows nothing of
processes, files or other agents. How one collects and learns is its kind's concern, see `kinds`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from mgrl_cli.agents.counters import Counters
from mgrl_cli.agents.episodes import Exploration
from mgrl_cli.agents.health import Health
from mgrl_cli.agents.player import Player
from mgrl_cli.agents.population import AgentSpec
from mgrl_cli.agents.round_statistics import RoundStatistics
from mgrl_cli.agents.streams import Streams, draw_seed
from mgrl_cli.config import RunConfig
from mgrl_cli.replay.ring import ReplayRing
from mgrl_cli.replay.schema import Episode
from mgrl_cli.telemetry import AgentState


class Agent(ABC):
    """Environment, replay, counters and streams of one agent."""

    def __init__(
        self,
        spec: AgentSpec,
        config: RunConfig,
        on_step: Callable[[], None],
        *,
        capacity: int,
        keeps_raw_actions: bool = False,
        exploration_noise: float | None = None,
    ) -> None:
        """Make what all kinds of agents have.

        Args:
            spec: who it is.
            config: settings of the run.
            on_step: called before every env step, as a sign of life.
            capacity: steps that its replay holds at most.
            keeps_raw_actions: as in `ReplayRing`.
            exploration_noise: as in `ReplayRing`.

        Raises:
            EnvironmentSetupError: the environment cannot be made.
            EnvironmentFailure: its constructor raised.
        """
        self.spec = spec
        self._config = config
        self.streams = Streams(config.seed, spec.seed_index)
        self.player = Player(spec.env, on_step)
        self.replay = ReplayRing(
            capacity,
            self.player.obs_size,
            self.player.act_size,
            keeps_raw_actions=keeps_raw_actions,
            exploration_noise=exploration_noise,
            compiled=config.compiled,
        )
        """What a checkpoint fills again from the log; empty where the kind needs none."""
        self.counters = Counters()
        self.statistics = RoundStatistics()
        self.health = Health()
        self.new_episodes: list[Episode] = []
        """Episodes played since the runtime last took them to the log."""

    @abstractmethod
    def act(self, obs: np.ndarray) -> np.ndarray:
        """Return the policy's action at one observation [obs], without noise, float32 [act]."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return everything that learning changes, by name: the tensors themselves, no copies."""

    @abstractmethod
    def _collect(self, objective_version: int) -> None:
        """Play the least that can be played at once, and count it."""

    def restore_tensors(self, tensors: Mapping[str, Tensor], counters: Counters) -> str:
        """Come to hold these tensors; return why the agent cannot go on from them ("": it can).

        Args:
            tensors: they have the names, shapes and types of the agent's own.
            counters: what the agent had done when they were saved.

        Raises:
            ValueError: no agent can have come to hold them.
        """
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])
        return ""

    @property
    def objective_share(self) -> float:
        """The annealing's p: the objective's share in the policy's loss."""
        return 1.0

    @property
    def life_steps(self) -> int:
        """Env steps of the present life."""
        return self.counters.env_steps - self.counters.life_start

    @property
    def state(self) -> AgentState:
        """What the agent is doing, for the live view."""
        if self.health.quarantine:
            return AgentState.QUARANTINED
        if self.counters.env_steps >= self._config.steps:
            return AgentState.FINISHED
        return self._working_state()

    def _working_state(self) -> AgentState:
        return AgentState.LEARNING

    def begin_round(self) -> None:
        """Open a round's statistics."""
        self.statistics = RoundStatistics()

    def play(
        self,
        target_env_steps: int,
        objective_version: int,
        go_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """Play until `env_steps` reaches the target; one that overshot may rest.

        An episode in which the environment fails is dropped and counted; too many in a row put the
        agent into quarantine.

        Args:
            target_env_steps: over the whole run, not this life.
            objective_version: meta-steps applied so far, stored with every step.
            go_on: asked before every episode, or whatever else is played at once.
        """
        while self.counters.env_steps < target_env_steps and not self.health.quarantine and go_on():
            self._collect(objective_version)

    def _play_one_episode(self, exploration: Exploration, objective_version: int) -> None:
        """Play one episode with exploration into replay."""
        seed = draw_seed(self.streams.environment)
        episode = self.player.play(self.act, exploration, seed)
        self._count_episode(self.player.last_failure if episode is None else "")
        if episode is None:
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

    def _count_episode(self, failure: str) -> None:
        """Count a training episode that ended, or why it did not."""
        self.health.count_episode(failure, self._config.supervision)
        if failure:
            self.statistics.count("failed_episodes")

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
        returns = self.player.evaluate(self.act, seeds)
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
