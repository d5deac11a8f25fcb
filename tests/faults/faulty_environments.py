"""An environment that breaks on demand; the fixture `faulty` copies this file as `faulty_module`.

It imports nothing of ours, so that a spawned worker can load it from a scratch directory.
A small body on a line: two observations (position, speed), one action, rewards around -1. What it
shows depends on the seed and the actions only, never on the fault, up to the moment it fires.

Arguments, all of them bool, int, float or str, as a run's `kwargs` must be:

- `fault`, what happens:
  - "none"
  - "raise_step", "raise_reset", "raise_constructor": a RuntimeError
  - "nan_reward", "inf_reward", "nan_obs", "inf_obs": a step returns it, everything else as usual
  - "exit", "exit_reset": `os._exit(9)` in a step, in a reset
  - "kill": SIGKILL to the own process, in a step
  - "hang": a step that never returns
  - "sleep": a step that takes `sleep_s` longer
- `at`: fires at the step of this number, counted from 1 over the life of the instance; "..._reset"
  counts resets. 0: at each. "raise_constructor" ignores it.
- `rate`: if above 0, in place of `at`: the probability per step (per reset). It is drawn from a
  generator that the episode's seed fixes, so an episode played again fails at the same step.
- `marker`: path of a file that counts firings over all processes and instances: one byte each,
  written before the fault happens. Nothing fires once it holds `times` bytes. "": no limit.
- `times`: see `marker`.
- `spare_main`: True: nothing fires in a process that multiprocessing did not start, as the one
  that checks environments before a run. "exit", "exit_reset", "kill" and "hang" always spare it:
  it is pytest itself, or the coordinator.
- `episode_steps`: an episode terminates after so many steps.
- `sleep_s`: see "sleep".
"""

import fcntl
import multiprocessing
import os
import signal
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.spaces import Box

_RESET_FAULTS = ("raise_reset", "exit_reset")
_DEADLY_FAULTS = ("exit", "exit_reset", "kill", "hang")
_FAULTS = (
    *("none", "raise_step", "raise_constructor", "nan_reward", "inf_reward", "nan_obs", "inf_obs"),
    *("sleep", "raise_reset", *_DEADLY_FAULTS),
)


class Faulty(gymnasium.Env):
    observation_space = Box(-2.0, 2.0, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(
        self,
        fault: str = "none",
        at: int = 0,
        rate: float = 0.0,
        marker: str = "",
        times: int = 1,
        spare_main: bool = False,
        episode_steps: int = 20,
        sleep_s: float = 0.01,
    ):
        if fault not in _FAULTS:
            raise ValueError(f"fault got {fault!r}, expected one of {_FAULTS}")
        self.fault, self.at, self.rate = fault, at, rate
        self.marker, self.times = marker, times
        self.spare_main = spare_main or fault in _DEADLY_FAULTS
        self.episode_steps, self.sleep_s = episode_steps, sleep_s
        self.steps = self.resets = 0
        self.fault_rng = np.random.default_rng(0)
        if fault == "raise_constructor" and self.may_fire():
            raise RuntimeError("no motor found")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets += 1
        self.episode_step = 0
        self.position, self.speed = self.np_random.uniform(-0.5, 0.5, 2)
        self.fault_rng = np.random.default_rng(self.np_random.integers(2**32))
        if self.fault in _RESET_FAULTS and self.is_due(self.resets) and self.may_fire():
            if self.fault == "raise_reset":
                raise RuntimeError("the hinge is stuck")
            os._exit(9)
        return self.observed(), {}

    def step(self, action):
        self.steps += 1
        self.episode_step += 1
        force = float(action[0])
        self.speed = 0.9 * self.speed + 0.1 * force
        self.position = min(max(self.position + 0.1 * self.speed, -2.0), 2.0)
        obs = self.observed()
        reward = -((1.0 - self.position) ** 2) - 0.01 * force**2
        if self.fires_in_step():
            reward = self.happen(obs, reward)
        return obs, reward, self.episode_step >= self.episode_steps, False, {}

    def observed(self):
        return np.array([self.position, self.speed], np.float32)

    def happen(self, obs, reward):
        """Let the fault happen; return the reward, spoil `obs` in place."""
        match self.fault:
            case "raise_step":
                raise RuntimeError("the motor burned out")
            case "nan_reward" | "inf_reward":
                return float(self.fault[:3])
            case "nan_obs":
                obs[0] = np.nan
            case "inf_obs":
                obs[1] = np.inf
            case "exit":
                os._exit(9)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "sleep":
                time.sleep(self.sleep_s)
            case "hang":
                while True:
                    time.sleep(3600.0)
        return reward

    def fires_in_step(self):
        if self.fault in ("none", "raise_constructor", *_RESET_FAULTS):
            return False
        return self.is_due(self.steps) and self.may_fire()

    def is_due(self, count):
        if self.rate > 0.0:
            return self.fault_rng.random() < self.rate
        return self.at in (0, count)

    def may_fire(self):
        """Return whether it may fire here and now, and count it if so."""
        if self.spare_main and multiprocessing.parent_process() is None:
            return False
        if not self.marker:
            return True
        with Path(self.marker).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # two workers must not both be the last to fire
            if os.fstat(file.fileno()).st_size >= self.times:
                return False
            file.write(b".")
            return True


gymnasium.register("Faulty-v0", entry_point="faulty_module:Faulty")
