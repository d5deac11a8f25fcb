"""The newest episodes of one agent in memory, laid out so that a batch is a few gathers.

Knows nothing of files. Keeps only what learning needs; the log keeps the rest.

Two rings. Step slots hold action, reward and flags, one per step. Observation rows hold one row per
step and one more per episode, for its final observation, so the successor of row k is row k + 1.
Both wrap, in the middle of an episode too.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32
from numpy import ndarray
from numpy.typing import NDArray

from mgrl_cli.algorithm.batches import Behaviour, Transitions, Windows
from mgrl_cli.errors import UsageError
from mgrl_cli.replay.behaviour import behaviour_log_density
from mgrl_cli.replay.sampling import SampleBy, StartTable, check_request
from mgrl_cli.replay.schema import Episode, check_episode


class StoredEpisode(NamedTuple):
    """What an on-policy rule learns from in one episode of L steps; copies."""

    obs: Float32[ndarray, "steps_plus_1 obs"]
    """The last row is the final observation."""
    raw_action: Float32[ndarray, "steps act"]
    """Before clipping to [-1, 1]."""
    reward: Float32[ndarray, " steps"]
    terminated: Bool[ndarray, " steps"]


class ReplayRing:
    """A first-in, first-out store of whole episodes, for sampling.

    Drawing depends only on the stored episodes and the generator, not on where the rings stand: a
    ring filled again from the log gives the same batches. Not safe to use from several threads.
    """

    def __init__(
        self,
        capacity: int,
        obs_size: int,
        act_size: int,
        *,
        keeps_raw_actions: bool = False,
        exploration_noise: float | None = None,
    ) -> None:
        """Reserve (not touch) memory.

        Args:
            capacity: most steps kept at once.
            obs_size: numbers in an observation.
            act_size: numbers in an action.
            keeps_raw_actions: whether actions before clipping are kept too.
            exploration_noise: standard deviation of the exploration; then raw actions are kept and
                their log densities too. None: no densities are.

        Raises:
            UsageError: a size below 1, or a noise under which nothing has a density.
        """
        if min(capacity, obs_size, act_size) < 1:
            raise UsageError(
                "A replay ring needs capacity, obs_size and act_size of at least 1, "
                f"got {capacity}, {obs_size}, {act_size}."
            )
        if exploration_noise is not None and not exploration_noise > 0:
            raise UsageError(
                f"A replay ring that keeps densities needs exploration_noise above 0, got "
                f"{exploration_noise}; without noise an action has none."
            )
        self._capacity = capacity
        self._sizes = (obs_size, act_size)
        # Twice the capacity: with episodes of one step every step takes two rows. Pages that were
        # never written cost nothing.
        self._obs = np.empty((2 * capacity, obs_size), np.float32)
        self._action = np.empty((capacity, act_size), np.float32)
        self._reward = np.empty(capacity, np.float32)
        self._terminated = np.empty(capacity, np.bool_)
        self._truncated = np.empty(capacity, np.bool_)
        self._row_of_slot = np.empty(capacity, np.int64)
        self._steps_left = np.empty(capacity, np.int64)
        """Steps from this slot to the end of its episode, itself included."""
        self._lengths = np.empty(capacity, np.int64)
        """Steps of each episode, a ring of its own."""
        self._exploration_noise = exploration_noise
        keeps_densities = exploration_noise is not None
        self._keeps_raw_actions = keeps_raw_actions or keeps_densities
        self._raw_action = np.empty((capacity * self._keeps_raw_actions, act_size), np.float32)
        self._log_density = np.empty(capacity * keeps_densities, np.float32)
        self.clear()

    @property
    def num_steps(self) -> int:
        """Steps stored now."""
        return self._num_steps

    @property
    def num_episodes(self) -> int:
        """Episodes stored now."""
        return self._num_episodes

    def clear(self) -> None:
        """Forget everything, for example when the agent begins a new life."""
        self._num_steps = self._num_episodes = 0
        self._first_slot = self._first_episode = self._next_row = 0
        self._starts: StartTable | None = None

    def append(self, episode: Episode) -> None:
        """Copy `episode` in, evicting the oldest episodes, whole, until it fits.

        Raises:
            UsageError: the episode is longer than the capacity, or not storable
                (see `schema.check_episode`). Nothing is evicted then.
        """
        check_episode(episode, *self._sizes)
        length = len(episode.reward)
        if length > self._capacity:
            raise UsageError(
                f"An episode of {length} steps does not fit a replay of {self._capacity}; "
                "raise the replay capacity."
            )
        while self._num_steps + length > self._capacity:
            self._evict_oldest()
        step = np.arange(length)
        slots = (self._first_slot + self._num_steps + step) % self._capacity
        rows = (self._next_row + np.arange(length + 1)) % len(self._obs)
        self._obs[rows] = episode.obs
        self._action[slots] = episode.action
        self._reward[slots] = episode.reward
        self._terminated[slots] = episode.terminated
        self._truncated[slots] = episode.truncated
        self._row_of_slot[slots] = rows[:-1]
        self._steps_left[slots] = length - step
        if self._keeps_raw_actions:
            self._raw_action[slots] = episode.raw_action
        if self._exploration_noise is not None:
            self._log_density[slots] = behaviour_log_density(
                episode.raw_action,
                episode.behaviour_mean,
                episode.behaviour_kind,
                self._exploration_noise,
            )
        self._lengths[(self._first_episode + self._num_episodes) % self._capacity] = length
        self._next_row = (self._next_row + length + 1) % len(self._obs)
        self._num_steps += length
        self._num_episodes += 1
        self._starts = None

    def sample_windows(
        self,
        rng: np.random.Generator,
        batch: int,
        steps: int,
        sample_by: SampleBy = "start",
        *,
        timeout_is_terminal: bool = False,
        with_behaviour: bool = False,
    ) -> Windows:
        """Draw windows with replacement; padding as described in `Windows`.

        Args:
            rng: the only source of chance.
            batch: number of windows.
            steps: steps of a window, T.
            sample_by: how a start is drawn, see `sampling.SampleBy`.
            timeout_is_terminal: count a truncated step as terminated too.
            with_behaviour: add how the actions came about; the draws stay the same.

        Raises:
            UsageError: the ring is empty or keeps no behaviour, or the request is impossible.
        """
        check_request(batch, steps, sample_by)
        slots = self._draw_slots(rng, batch, steps, sample_by)
        time = np.arange(steps + 1)
        left = self._steps_left[slots][:, None]
        rows = self._row_of_slot[slots][:, None] + np.minimum(time, left)
        obs = self._obs.take(rows, axis=0, mode="wrap")
        is_valid = time[:-1] < left
        step_slots = slots[:, None] + np.minimum(time[:-1], left - 1)
        action = self._action.take(step_slots, axis=0, mode="wrap")
        reward = self._reward.take(step_slots, mode="wrap")
        terminated = self._take_terminated(step_slots, timeout_is_terminal)
        if not is_valid.all():
            action *= is_valid[:, :, None]
            reward *= is_valid
            terminated &= is_valid
        behaviour = self._take_behaviour(step_slots, is_valid) if with_behaviour else None
        tensors = map(_tensor, (obs, action, reward, terminated, is_valid))
        return Windows(*tensors, behaviour=behaviour)

    def sample_transitions(
        self, rng: np.random.Generator, batch: int, *, timeout_is_terminal: bool = False
    ) -> Transitions:
        """Draw steps with replacement, each stored step equally likely; all are valid.

        Raises:
            UsageError: the ring is empty or `batch` is below 1.
        """
        check_request(batch, 1, "start")
        slots = self._draw_slots(rng, batch, 1, "start")
        rows = self._row_of_slot[slots]
        obs, next_obs = self._obs.take(np.stack((rows, rows + 1)), axis=0, mode="wrap")
        action = self._action.take(slots, axis=0)
        reward = self._reward.take(slots)
        terminated = self._take_terminated(slots, timeout_is_terminal)
        is_valid = np.ones(batch, np.bool_)
        return Transitions(*map(_tensor, (obs, action, reward, next_obs, terminated, is_valid)))

    def read_all(self) -> list[StoredEpisode]:
        """Return every stored episode, oldest first; `UsageError` without raw actions."""
        if not self._keeps_raw_actions:
            raise UsageError("The replay keeps no raw actions; make it with keeps_raw_actions.")
        episodes: list[StoredEpisode] = []
        slot = self._first_slot
        for number in range(self._num_episodes):
            length = int(self._lengths[(self._first_episode + number) % self._capacity])
            slots = (slot + np.arange(length)) % self._capacity
            rows = (self._row_of_slot[slot] + np.arange(length + 1)) % len(self._obs)
            episodes.append(
                StoredEpisode(
                    obs=self._obs[rows],
                    raw_action=self._raw_action[slots],
                    reward=self._reward[slots],
                    terminated=self._terminated[slots],
                )
            )
            slot = (slot + length) % self._capacity
        return episodes

    def _evict_oldest(self) -> None:
        length = int(self._lengths[self._first_episode])
        self._first_episode = (self._first_episode + 1) % self._capacity
        self._first_slot = (self._first_slot + length) % self._capacity
        self._num_episodes -= 1
        self._num_steps -= length

    def _draw_slots(
        self, rng: np.random.Generator, batch: int, steps: int, sample_by: SampleBy
    ) -> NDArray[np.int64]:
        if self._num_steps == 0:
            raise UsageError("The replay is empty; append an episode before sampling.")
        if sample_by == "start":
            positions = rng.integers(self._num_steps, size=batch)
        elif sample_by == "inside":
            positions = self._start_table(steps).draw_inside(rng, batch)
        else:
            positions = self._start_table(steps).draw_episode(rng, batch)
        return (self._first_slot + positions) % self._capacity

    def _start_table(self, steps: int) -> StartTable:
        # Costs a pass over the episodes, so it is kept until the next one arrives.
        if self._starts is None or self._starts.steps != steps:
            episodes = self._first_episode + np.arange(self._num_episodes)
            self._starts = StartTable(self._lengths[episodes % self._capacity], steps)
        return self._starts

    def _take_terminated(
        self, slots: NDArray[np.int64], timeout_is_terminal: bool
    ) -> NDArray[np.bool_]:
        terminated = self._terminated.take(slots, mode="wrap")
        if timeout_is_terminal:
            terminated |= self._truncated.take(slots, mode="wrap")
        return terminated

    def _take_behaviour(self, slots: NDArray[np.int64], is_valid: NDArray[np.bool_]) -> Behaviour:
        if self._exploration_noise is None:
            raise UsageError(
                "The replay keeps no behaviour; give it exploration_noise before sampling it."
            )
        raw_action = self._raw_action.take(slots, axis=0, mode="wrap") * is_valid[:, :, None]
        log_density = self._log_density.take(slots, mode="wrap") * is_valid
        return Behaviour(_tensor(raw_action), _tensor(log_density))


_tensor: Callable[[NDArray[np.generic]], torch.Tensor] = torch.from_numpy
