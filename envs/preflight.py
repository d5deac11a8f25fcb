"""Play an environment for a moment before a run depends on it, and say what is wrong with it.

What would otherwise turn up after hours, inside a worker, costs two seconds here. It must not know
training: what it finds is an error or a list of sentences.
"""

import itertools
import time
from collections.abc import Callable, Iterable
from typing import final

import numpy as np
from numpy.typing import NDArray

from envs.control import ControlEnvironment
from envs.errors import (
    BrokenContractError,
    EnvironmentFailure,
    InvalidEnvironmentError,
    NotFiniteError,
)

MakeOne = Callable[[], ControlEnvironment]

_TRIAL_STEPS = 200
_EPISODE_STEPS = 50
"""Long episodes are left here, so that resets happen in the middle of them."""
_TRIAL_TIME_S = 1.0
_MOST_FAILURES = 3
_ROUNDING = 1e-3
"""Part of the larger declared bound by which rounding may put an observation outside."""

_Moment = tuple[bytes, float, bool, bool]
"""All that a reset or a step showed, comparable bit for bit."""


def check_environment(make_one: MakeOne) -> list[str]:
    """Play two instances for at most 200 steps and about a second each.

    Actions are random, all -1 and all +1 in turn. The second instance plays the episodes of the
    first in the opposite order with the same seeds and actions. An episode that raises or shows a
    NaN now and then is what a run survives, so it is refused only where at least half of an
    instance's episodes end like that.

    Args:
        make_one: makes an instance with the arguments of the run.

    Returns:
        One sentence for each thing that a run survives but its user should know: failures that
        are rare, observations outside the declared bounds, episodes that cannot be repeated.

    Raises:
        EnvironmentSetupError: as `envs.registry.make`. Also InvalidEnvironmentError: `reset` or
            `step` returned something of the wrong kind or shape, seldom a finite number, or
            `reset` an observation outside the declared bounds.
        EnvironmentFailure: constructor, `reset` or `step` raised, and not just now and then.
    """
    first = _Trial(make_one)
    first.play(itertools.count())
    second = _Trial(make_one)
    second.play(sorted(first.moments, reverse=True))
    found = (
        _rare_failures(first, second),
        first.outside or second.outside,
        _difference(first, second),
    )
    return [sentence for sentence in found if sentence]


@final
class _Trial:
    """One instance being played, replaced where it fails.

    Attributes:
        env: the instance.
        episodes: number of episodes started.
        moments: what each episode showed that did not fail, by the episode's seed.
        failures: what ended the others.
        outside: the first observation seen outside the declared bounds, as a sentence, or "".
    """

    def __init__(self, make_one: MakeOne) -> None:
        self.env = make_one()
        self.episodes = 0
        self.moments: dict[int, list[_Moment]] = {}
        self.failures: list[EnvironmentFailure] = []
        self.outside = ""
        self._make_one = make_one
        self._steps_left = _TRIAL_STEPS
        self._end_s = time.monotonic() + _TRIAL_TIME_S

    def play(self, seeds: Iterable[int]) -> None:
        """Play one episode per seed until steps, time or patience run out, then close.

        Raises:
            InvalidEnvironmentError: see `check_environment`.
            EnvironmentFailure: likewise.
        """
        try:
            for seed in seeds:
                if self._is_over() or len(self.failures) == _MOST_FAILURES:
                    break
                self.episodes += 1
                self._play_episode(seed)
        except BrokenContractError as error:
            raise InvalidEnvironmentError(str(error)) from error
        finally:
            self.env.close()
        if self.failures and 2 * len(self.failures) >= self.episodes:
            error = self.failures[0]
            refusal = (
                InvalidEnvironmentError if isinstance(error, NotFiniteError) else EnvironmentFailure
            )
            raise refusal(f"{error}; {_count(len(self.failures), self.episodes)}") from error

    def _is_over(self) -> bool:
        return self._steps_left <= 0 or time.monotonic() > self._end_s

    def _play_episode(self, seed: int) -> None:
        try:
            self.moments[seed] = self._shown_in_episode(seed)
        except BrokenContractError:
            raise
        except EnvironmentFailure as error:
            self.failures.append(error)
            self.env.close()
            self.env = self._make_one()

    def _shown_in_episode(self, seed: int) -> list[_Moment]:
        obs = self.env.reset(seed)
        outside = _outside(self.env, obs)
        if outside:
            raise InvalidEnvironmentError(f"{self.env.id}: reset() {outside}")
        shown: list[_Moment] = [(obs.tobytes(), 0.0, False, False)]
        for action in _actions(self.env.act_size, seed):
            self._steps_left -= 1
            obs, reward, terminated, truncated = self.env.step(action)
            shown.append((obs.tobytes(), reward, terminated, truncated))
            outside = _outside(self.env, obs)
            if outside and not self.outside:
                self.outside = f"{self.env.id}: step() {outside}"
            if terminated or truncated or self._is_over():
                break
        return shown


def _actions(act_size: int, seed: int) -> NDArray[np.float32]:
    """Return the actions of an episode: random, all -1, or all +1, float32 [steps, act_size]."""
    size = (_EPISODE_STEPS, act_size)
    kind = seed % 3
    if kind == 0:
        return np.random.default_rng(seed).uniform(-1.0, 1.0, size).astype(np.float32)
    return np.full(size, -1.0 if kind == 1 else 1.0, np.float32)


def _outside(env: ControlEnvironment, obs: NDArray[np.float32]) -> str:
    """Return which entry is outside its declared bounds by more than rounding, or ""."""
    low, high = env.declared_low, env.declared_high
    bounds = np.abs(np.stack([low, high]))
    margin = _ROUNDING * np.where(np.isfinite(bounds), bounds, 0.0).max(axis=0)
    is_outside = (obs < low - margin) | (obs > high + margin)
    if not is_outside.any():
        return ""
    index = int(np.argmax(is_outside))
    return f"obs[{index}] is {obs[index]:g}, outside its bounds [{low[index]:g}, {high[index]:g}]"


def _rare_failures(first: _Trial, second: _Trial) -> str:
    failures = [*first.failures, *second.failures]
    if not failures:
        return ""
    return f"{failures[0]}; {_count(len(failures), first.episodes + second.episodes)}"


def _count(failures: int, episodes: int) -> str:
    return f"{failures} of {episodes} trial episodes failed"


def _difference(first: _Trial, second: _Trial) -> str:
    for seed, repeated in second.moments.items():
        for step, (moment, again) in enumerate(zip(first.moments[seed], repeated, strict=False)):
            if moment != again:
                where = f"step {step} after reset(seed={seed})" if step else f"reset(seed={seed})"
                return (
                    f"{first.env.id}: {where} differs in a second instance, so runs cannot be "
                    "repeated exactly; draw everything from self.np_random and keep nothing from "
                    "one episode to the next"
                )
    return ""
