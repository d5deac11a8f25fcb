"""The newest episodes of one agent in memory, laid out so that a window is one block.

Knows nothing of files. Keeps only what learning needs; the log keeps the rest.

Two rings. *Rows* hold all of a step side by side, and one more row per episode its final
observation, so the successor of row k is row k + 1. *Slots*, one per step, say which row that is.
Both wrap, in the middle of an episode too.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray
from numpy.typing import NDArray

from mgrl_cli.algorithm.batches import Behaviour, Transitions, Windows
from mgrl_cli.algorithm.fused.sources import is_numba_installed
from mgrl_cli.errors import UsageError
from mgrl_cli.replay.behaviour import behaviour_log_density
from mgrl_cli.replay.gather import FLAGS, Rows, gather
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
        compiled: bool = True,
    ) -> None:
        """Reserve (not touch) memory.

        Args:
            capacity: most steps kept at once.
            obs_size: numbers in an observation.
            act_size: numbers in an action.
            keeps_raw_actions: whether actions before clipping are kept too.
            exploration_noise: standard deviation of the exploration; then raw actions are kept and
                their log densities too. None: no densities are.
            compiled: whether to copy windows by compiled code where numba is installed; the same
                bits either way.

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
        # never written cost nothing; the ring comes round to all of them after so many steps.
        self._rows = np.empty((2 * capacity, obs_size + act_size + 1 + FLAGS), np.float32)
        self._gather = gather(compiled=compiled and is_numba_installed())
        self._places = np.empty((capacity, 2), np.int64)
        """Of each slot its row, and the steps from there to the episode's end, itself included."""
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
        rows = (self._next_row + np.arange(length + 1)) % len(self._rows)
        self._rows[rows] = _rows_of(episode)
        self._places[slots, 0] = rows[:-1]
        self._places[slots, 1] = length - step
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
        self._next_row = (self._next_row + length + 1) % len(self._rows)
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
        positions = self._draw(rng, batch, steps, sample_by)
        obs_size, act_size = self._sizes
        arrays = (
            np.empty((batch, steps + 1, obs_size), np.float32),
            np.empty((batch, steps, act_size), np.float32),
            np.empty((batch, steps), np.float32),
            np.empty((batch, steps), np.bool_),
            np.empty((batch, steps), np.bool_),
        )
        self._gather.windows(
            self._rows, self._places, self._first_slot, positions, timeout_is_terminal, *arrays
        )
        behaviour = self._take_behaviour(positions, steps) if with_behaviour else None
        return Windows(*arrays, behaviour=behaviour)

    def sample_transitions(
        self, rng: np.random.Generator, batch: int, *, timeout_is_terminal: bool = False
    ) -> Transitions:
        """Draw steps with replacement, each stored step equally likely; all are valid.

        Raises:
            UsageError: the ring is empty or `batch` is below 1.
        """
        check_request(batch, 1, "start")
        positions = self._draw(rng, batch, 1, "start")
        obs_size, act_size = self._sizes
        arrays = (
            np.empty((batch, obs_size), np.float32),
            np.empty((batch, act_size), np.float32),
            np.empty(batch, np.float32),
            np.empty((batch, obs_size), np.float32),
            np.empty(batch, np.bool_),
        )
        self._gather.transitions(
            self._rows, self._places, self._first_slot, positions, timeout_is_terminal, *arrays
        )
        return Transitions(*arrays, np.ones(batch, np.bool_))

    def read_all(self) -> list[StoredEpisode]:
        """Return every stored episode, oldest first; `UsageError` without raw actions."""
        if not self._keeps_raw_actions:
            raise UsageError("The replay keeps no raw actions; make it with keeps_raw_actions.")
        episodes: list[StoredEpisode] = []
        slot, reward_column = self._first_slot, sum(self._sizes)
        for number in range(self._num_episodes):
            length = int(self._lengths[(self._first_episode + number) % self._capacity])
            slots = (slot + np.arange(length)) % self._capacity
            rows = (self._places[slot, 0] + np.arange(length + 1)) % len(self._rows)
            stored = self._rows[rows]
            episodes.append(
                StoredEpisode(
                    obs=stored[:, : self._sizes[0]],
                    raw_action=self._raw_action[slots],
                    reward=stored[:-1, reward_column],
                    terminated=stored[:-1, reward_column + 1] > 0,
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

    def _draw(
        self, rng: np.random.Generator, batch: int, steps: int, sample_by: SampleBy
    ) -> NDArray[np.int64]:
        """Return positions, counted from the oldest step."""
        if self._num_steps == 0:
            raise UsageError("The replay is empty; append an episode before sampling.")
        if sample_by == "start":
            return rng.integers(self._num_steps, size=batch)
        if sample_by == "inside":
            return self._start_table(steps).draw_inside(rng, batch)
        return self._start_table(steps).draw_episode(rng, batch)

    def _start_table(self, steps: int) -> StartTable:
        # Costs a pass over the episodes, so it is kept until the next one arrives.
        if self._starts is None or self._starts.steps != steps:
            episodes = self._first_episode + np.arange(self._num_episodes)
            self._starts = StartTable(self._lengths[episodes % self._capacity], steps)
        return self._starts

    def _take_behaviour(self, positions: NDArray[np.int64], steps: int) -> Behaviour:
        if self._exploration_noise is None:
            raise UsageError(
                "The replay keeps no behaviour; give it exploration_noise before sampling it."
            )
        slots = (self._first_slot + positions) % self._capacity
        time, left = np.arange(steps), self._places[slots, 1:]
        step_slots = slots[:, None] + np.minimum(time, left - 1)
        is_valid = time < left
        raw_action = self._raw_action.take(step_slots, axis=0, mode="wrap") * is_valid[:, :, None]
        log_density = self._log_density.take(step_slots, mode="wrap") * is_valid
        return Behaviour(raw_action, log_density)


def _rows_of(episode: Episode) -> Rows:
    """Return an episode as the ring keeps it: a row per step, and one of its final observation."""
    steps = (episode.action, episode.reward, episode.terminated, episode.truncated)
    columns = np.column_stack(steps).astype(np.float32)
    final = np.zeros((1, columns.shape[1]), np.float32)
    return np.hstack((episode.obs, np.vstack((columns, final))))
