"""A batch of 100 windows of 20 steps from a replay of a million, against two other ways to draw it.

The replay holds 1,000 episodes of 1,000 steps of HalfCheetah's sizes, everybody the same ones.

* `ours` is `mgrl_cli.replay.ring.ReplayRing`;
* `torchrl` is `TensorDictReplayBuffer` with a `SliceSampler`, drawing whole windows: an episode at
  random, then a start in it (our `sample_by="episode"`). Trajectory boundaries are cached, which is
  what its documentation advises where the storage rests between draws, as it does in a round of
  ours. Which key it takes them from, whether it compiles and where it stores is tried out first;
  the fastest counts. It stores the next observation beside the observation, as its format has it;
* `numpy` is a plain loop over windows that copies slices of NumPy arrays and pads where the episode
  ends (our `sample_by="start"`).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Effort, Result, interleaved, median_and_quartiles, one_thread
from benchmarks.problems import ACT_SIZE, OBS_SIZE, random_episode
from mgrl_cli.algorithm.batches import Windows
from mgrl_cli.replay.ring import ReplayRing
from mgrl_cli.replay.schema import Episode

PEERS = ("torchrl", "tensordict")
EPISODES = LENGTH = 1000
BATCH, STEPS = 100, 20
CHECKED_BATCHES = 20
TORCHRL_TARGET, NUMPY_TARGET = 25.0, 2.0


@final
class Stored(NamedTuple):
    """What everybody stores. An observation begins with the numbers of its episode and step."""

    obs: NDArray[np.float32]
    """[episode, step + 1, obs]"""
    action: NDArray[np.float32]
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]

    @classmethod
    def draw(cls) -> "Stored":
        """Return random episodes; every second one was terminated."""
        rng = np.random.default_rng(0)
        stored = cls(
            np.empty((EPISODES, LENGTH + 1, OBS_SIZE), np.float32),
            np.empty((EPISODES, LENGTH, ACT_SIZE), np.float32),
            np.empty((EPISODES, LENGTH), np.float32),
            np.empty((EPISODES, LENGTH), np.bool_),
            np.empty((EPISODES, LENGTH), np.bool_),
        )
        for number in range(EPISODES):
            episode = random_episode(rng, LENGTH, terminated=number % 2 == 1)
            for name, array in stored._asdict().items():
                array[number] = getattr(episode, name)
            stored.obs[number, :, 0] = number
            stored.obs[number, :, 1] = np.arange(LENGTH + 1)
        return stored

    def episode(self, number: int) -> Episode:
        """Return one episode as our replay takes it."""
        rng = np.random.default_rng(number)
        arrays = {name: array[number] for name, array in self._asdict().items()}
        return random_episode(rng, LENGTH, terminated=False)._replace(**arrays)


@final
class Contender(NamedTuple):
    """Who draws windows."""

    draw: Callable[[], Any]
    """Draws one batch; this is timed."""
    windows: Callable[[Any], Windows] = lambda drawn: drawn
    """Puts a batch into our layout, for the check."""


def run(effort: Effort) -> Iterator[Result]:
    """Measure; with SMOKE effort against the NumPy loop only."""
    is_full = effort is Effort.FULL
    stored = Stored.draw()
    ring = ReplayRing(EPISODES * LENGTH, OBS_SIZE, ACT_SIZE)
    for number in range(EPISODES):
        ring.append(stored.episode(number))
    rng = np.random.default_rng(1)
    with one_thread():
        ours = Contender(lambda: ring.sample_windows(rng, BATCH, STEPS, "start"))
        numpy_loop = Contender(NumpyLoop(stored))
        yield _result(
            stored, ours, numpy_loop, "a NumPy loop over windows", NUMPY_TARGET, is_full=is_full
        )
        if is_full:
            from benchmarks.torchrl_sampling import fastest_torchrl, windows_of

            ours = Contender(lambda: ring.sample_windows(rng, BATCH, STEPS, "episode"))
            how, draw = fastest_torchrl(stored, BATCH, STEPS)
            torchrl = Contender(draw, lambda rows: windows_of(rows, BATCH))
            result = _result(
                stored, ours, torchrl, "torchrl's SliceSampler", TORCHRL_TARGET, is_full=is_full
            )
            yield replace(result, setting=f"{result.setting}; torchrl: {how}")


def _result(
    stored: Stored, ours: Contender, peer: Contender, name: str, target: float, *, is_full: bool
) -> Result:
    contenders = {"ours": ours, name: peer}
    for who, contender in contenders.items():
        for _ in range(CHECKED_BATCHES):
            assert_true_windows(stored, contender.windows(contender.draw()), who)
    timings = interleaved(
        {who: contender.draw for who, contender in contenders.items()},
        repeats=21 if is_full else 9,
    )
    value, spread = median_and_quartiles(timings.ratios(name, "ours"))
    return Result(
        benchmark="sampling",
        setting=f"{BATCH}x{STEPS} windows from {EPISODES * LENGTH:,} steps",
        figure=f"times faster than {name}",
        value=value,
        spread=spread,
        direction="at least",
        target=target,
        milliseconds=timings.median_ms(),
        check=f"{CHECKED_BATCHES * BATCH:,} windows of each: consecutive steps of one episode, "
        "every number as stored",
    )


def assert_true_windows(stored: Stored, windows: Windows, contender: str) -> None:
    """Raise AssertionError unless every window is what one episode holds from one step on."""
    obs, action, reward, terminated, is_valid = windows[:-1]
    assert obs.shape == (BATCH, STEPS + 1, OBS_SIZE), f"'{contender}' drew {obs.shape}"
    for b in range(BATCH):
        number, first = int(obs[b, 0, 0]), int(obs[b, 0, 1])
        length = min(STEPS, LENGTH - first)
        where = f"'{contender}', window from step {first} of episode {number}"
        rows = slice(first, first + length)
        wrong = [
            name
            for name, got, expected in (
                ("obs", obs[b, : length + 1], stored.obs[number, first : first + length + 1]),
                ("action", action[b, :length], stored.action[number, rows]),
                ("reward", reward[b, :length], stored.reward[number, rows]),
                ("terminated", terminated[b, :length], stored.terminated[number, rows]),
                ("is_valid", is_valid[b], np.arange(STEPS) < length),
                (
                    "padding",
                    obs[b, length:],
                    np.broadcast_to(obs[b, length], obs[b, length:].shape),
                ),
                ("padding", action[b, length:], np.zeros_like(action[b, length:])),
            )
            if not np.array_equal(got, expected)
        ]
        assert not wrong, f"{where}: wrong {', '.join(wrong)}"


@final
class NumpyLoop:
    """Windows one after the other, as a first version of every replay does."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._rng = np.random.default_rng(1)

    def __call__(self) -> Windows:
        """Draw a batch; each stored step starts a window equally likely."""
        obs = np.empty((BATCH, STEPS + 1, OBS_SIZE), np.float32)
        action = np.zeros((BATCH, STEPS, ACT_SIZE), np.float32)
        reward = np.zeros((BATCH, STEPS), np.float32)
        terminated = np.zeros((BATCH, STEPS), np.bool_)
        is_valid = np.zeros((BATCH, STEPS), np.bool_)
        positions = self._rng.integers(EPISODES * LENGTH, size=BATCH)
        stored = self._stored
        for b, position in enumerate(positions.tolist()):
            number, first = divmod(position, LENGTH)
            length = min(STEPS, LENGTH - first)
            last = first + length
            obs[b, : length + 1] = stored.obs[number, first : last + 1]
            obs[b, length + 1 :] = stored.obs[number, last]
            action[b, :length] = stored.action[number, first:last]
            reward[b, :length] = stored.reward[number, first:last]
            terminated[b, :length] = stored.terminated[number, first:last]
            is_valid[b, :length] = True
        return Windows(obs, action, reward, terminated, is_valid)
