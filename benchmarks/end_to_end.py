"""A whole agent, environment included, against stable-baselines3's TD3.

Every contender learns on its own HalfCheetah-v5, one update per env step, and has the same sizes:
hidden units, transitions per batch, a policy update after every second one of the critic. What is
compared is the time of 1,000 env steps with their 1,000 updates, replay half filled or not; the
first 1,000 steps, at random and without updates, are not timed. Twice the comparison:

* `meta`: an agent as it meta-trains. Besides what TD3 does it computes a meta-gradient at every
  policy update and, alone in its population, makes the objective's step. The policy learns by the
  objective alone, as it does once annealing is over.
* `td3`: the rule `ddpg`, which is TD3 itself: what the peer does, and no more.

stable-baselines3 runs as its documentation has it: one environment made by `gymnasium.make`,
`train_freq=1`, `gradient_steps=1`, the exploration noise 0.1 of its published HalfCheetah settings,
no logging.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, final

import gymnasium
import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Effort, Result, Timings, in_turns, median_and_quartiles, one_thread
from mgrl_cli.agents.kernels import load_kernels
from mgrl_cli.agents.off_policy import OffPolicyAgent
from mgrl_cli.agents.population import agent_specs, fresh_objective, objective_shape
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.config import RunConfig
from mgrl_cli.presets import resolve_config
from mgrl_cli.runtime.exchange import Exchange
from mgrl_cli.runtime.stop import StopRequest

ROUND_STEPS = 1000
"""Env steps, and updates, of a round: one episode of HalfCheetah."""


class Meeting(NamedTuple):
    """Where an agent's meta-gradients go."""

    arrive: Callable[[int, Tensor], bool]
    """(agent, gradient): hands it in; returns whether it was finite."""
    leave: Callable[[], object]
    """Before the next one: waits for the others."""


class Sizes(NamedTuple):
    """What both sides agree on."""

    hidden: int
    windows: int
    steps: int

    @property
    def transitions(self) -> int:
        """Transitions of a critic batch."""
        return self.windows * self.steps


LAPTOP = Sizes(hidden=64, windows=16, steps=20)
MIDDLE = Sizes(hidden=256, windows=16, steps=16)
"""A common TD3 elsewhere: 256-256, 256 transitions."""


def population(env: str, agents: int, sizes: Sizes = LAPTOP) -> RunConfig:
    """Return the laptop preset's settings, past annealing and without new lives."""
    return resolve_config(
        kind="meta-train",
        preset="laptop",
        options={
            "envs": [{"id": env}],
            "agents": agents,
            "policy": {"hidden": sizes.hidden},
            "critic": {"hidden": sizes.hidden},
            "windows": {"batch": sizes.windows, "steps": sizes.steps},
            "exploration": {"random_steps": ROUND_STEPS},
            "meta": {"anneal_steps": 0, "lifetime": 0},
        },
    )


def plain_td3(env: str, sizes: Sizes = LAPTOP) -> RunConfig:
    """Return the settings of one agent whose objective is the critic."""
    return resolve_config(
        kind="meta-test",
        preset="laptop",
        options={
            "envs": [{"id": env}],
            "rules": ["ddpg"],
            "policy": {"hidden": sizes.hidden},
            "critic": {"hidden": sizes.hidden},
            "windows": {"batch": sizes.windows, "steps": sizes.steps},
            "exploration": {"random_steps": ROUND_STEPS},
        },
    )


def new_exchange(config: RunConfig, *, num_workers: int) -> Exchange:
    """Return what a population of these settings shares."""
    return Exchange(
        fresh_objective(config),
        config.agents,
        learning_rate=config.objective.learning_rate,
        num_workers=num_workers,
        stop=StopRequest(),
        compiled=config.compiled,
    )


def meeting_in(exchange: Exchange) -> Meeting:
    """Return what a worker does with a meta-gradient where it has one agent."""

    def arrive(agent_id: int, gradient: Tensor) -> bool:
        is_finite = exchange.contribute(agent_id, gradient)
        exchange.arrive()
        return is_finite

    return Meeting(arrive, exchange.leave)


@final
class DrivenAgent:
    """One agent, made to play and learn as `mgrl_cli.runtime.worker` does, without its files."""

    def __init__(
        self,
        config: RunConfig,
        objective_params: Tensor,
        meeting: Meeting | None,
        agent_id: int = 0,
    ) -> None:
        """Make it fresh.

        Args:
            config: of the run that it is an agent of.
            objective_params: α.
            meeting: where its meta-gradients go; None: it computes none.
            agent_id: its number in the population.
        """
        network = ObjectiveNetwork(objective_shape(config), compiled=config.compiled)
        load_kernels(config)
        self.agent = OffPolicyAgent(
            agent_specs(config)[agent_id], config, network, objective_params
        )
        self._meeting = meeting
        self._updates = 0

    def play(self) -> None:
        """Play a round's env steps."""
        self.agent.begin_round()
        self.agent.play(self.agent.counters.env_steps + ROUND_STEPS, objective_version=0)
        self.agent.new_episodes.clear()  # the worker hands them to the log

    def pair_step(self) -> None:
        """Make two updates, the first with policy and meta-gradient: from meeting to meeting."""
        first = self._updates
        self.agent.learn(first)
        if self._meeting is not None:
            gradient = self.agent.meta_gradient(first // 2)
            is_finite = self._meeting.arrive(self.agent.spec.agent_id, gradient)
            self.agent.count_meta_gradient(is_finite)
        self.agent.learn(first + 1)
        if self._meeting is not None:
            self._meeting.leave()
        self._updates += 2

    def round(self) -> None:
        """Play a round and make its updates."""
        self.play()
        for _ in range(ROUND_STEPS // 2):
            self.pair_step()
        self.agent.end_round()


@final
class PeerTD3:
    """stable-baselines3's TD3 on an environment of its own."""

    def __init__(self, sizes: Sizes) -> None:
        from stable_baselines3 import TD3
        from stable_baselines3.common.noise import NormalActionNoise

        env = gymnasium.make("HalfCheetah-v5")
        act_size = int(np.prod(env.action_space.shape or ()))
        self.model: Any = TD3(
            "MlpPolicy",
            env,
            policy_kwargs={"net_arch": [sizes.hidden, sizes.hidden]},
            batch_size=sizes.transitions,
            train_freq=1,
            gradient_steps=1,
            policy_delay=2,
            learning_starts=ROUND_STEPS,
            action_noise=NormalActionNoise(np.zeros(act_size), 0.1 * np.ones(act_size)),
            device="cpu",
            seed=0,
            verbose=0,
        )

    def round(self) -> None:
        """Take a round's env steps; those after the first round with an update each."""
        self.model.learn(ROUND_STEPS, log_interval=None, reset_num_timesteps=False)


def run(effort: Effort) -> Iterator[Result]:
    """Measure at laptop size, and with FULL effort plain TD3 at a middle size too."""
    repeats = 36 if effort is Effort.FULL else 1
    with one_thread():
        meta_config, td3_config = population("cheetah", 1), plain_td3("cheetah")
        exchange = new_exchange(meta_config, num_workers=1)
        ours = {
            "meta": DrivenAgent(meta_config, exchange.params, meeting_in(exchange)),
            "td3": DrivenAgent(td3_config, fresh_objective(meta_config), None),
        }
        timings, check = _race(ours, LAPTOP, repeats)
        assert exchange.status.version == ours["meta"].agent.counters.updates // 2, "meta-steps"
        assert not exchange.status.skipped_gradients, "meta-gradients that are not finite"
        yield _result(
            timings.ratios("meta", "stable-baselines3"),
            timings,
            figure="share of stable-baselines3's time while meta-training",
            target=0.6,
            setting="HalfCheetah-v5, 64-64, 16x20 windows",
            check=f"{check}; {exchange.status.version} meta-steps, all finite",
        )
        yield _td3_result(timings, "HalfCheetah-v5, 64-64, 320 transitions", check, target=2.0)
        if effort is Effort.FULL:
            ours = {"td3": DrivenAgent(plain_td3("cheetah", MIDDLE), exchange.params, None)}
            timings, check = _race(ours, MIDDLE, repeats // 6)
            setting = "HalfCheetah-v5, 256-256, 256 transitions (for orientation)"
            yield _td3_result(timings, setting, check, target=1.0)


def _race(ours: dict[str, DrivenAgent], sizes: Sizes, repeats: int) -> tuple[Timings, str]:
    """Time rounds in turns; return also what proves that all did the same."""
    peer = PeerTD3(sizes)
    for each in ours.values():
        each.play()
        each.agent.end_round()
        each.pair_step()  # warm
    peer.round()
    contenders: dict[str, Callable[[], object]] = {
        **{name: each.round for name, each in ours.items()},
        "stable-baselines3": peer.round,
    }
    timings = in_turns(contenders, repeats=repeats)
    for name, each in ours.items():
        _assert_equal_work(name, each.agent, peer)
        each.agent.close()
    peer.model.env.close()
    steps = ROUND_STEPS * (repeats + 1)
    updates = steps - ROUND_STEPS
    return timings, f"{steps} env steps in each replay, {updates} updates, parameters finite"


def _assert_equal_work(name: str, agent: OffPolicyAgent, peer: PeerTD3) -> None:
    """Raise AssertionError where an agent and the peer differ in env steps, replay or updates."""
    model = peer.model
    theirs = (model.num_timesteps, model.replay_buffer.pos, model._n_updates)
    warm_updates = 2
    own = (
        agent.counters.env_steps,
        agent.replay.num_steps,
        agent.counters.updates - warm_updates,
    )
    assert own == theirs, f"{name}: env steps, replay, updates {own}, the peer's {theirs}"
    tensors = [*agent.learner.tensors().values(), *model.policy.parameters()]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors), f"{name}: not finite"
    rewards = agent.statistics.latest["mean_return"], model.ep_info_buffer[-1]["r"]
    assert all(math.isfinite(reward) for reward in rewards), f"{name}: returns {rewards}"


def _td3_result(timings: Timings, setting: str, check: str, *, target: float) -> Result:
    return _result(
        timings.ratios("stable-baselines3", "td3"),
        timings,
        figure="times faster than stable-baselines3 as plain TD3",
        target=target,
        setting=setting,
        check=check,
    )


def _result(
    ratios: list[float], timings: Timings, *, figure: str, target: float, setting: str, check: str
) -> Result:
    value, spread = median_and_quartiles(ratios)
    rounds_ms = timings.median_ms()
    return Result(
        benchmark="end_to_end",
        setting=setting,
        figure=figure,
        value=value,
        spread=spread,
        direction="at least" if figure.startswith("times") else "at most",
        target=target,
        milliseconds={name: time_ms / ROUND_STEPS for name, time_ms in rounds_ms.items()},
        check=check,
    )
