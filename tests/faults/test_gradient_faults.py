"""Bad numbers of one agent in a whole run: they must reach neither the objective nor the others.

The poison is put in by hand, in the serial twin: an agent's own meta-gradient is replaced as it
comes out of the learner, before it is clipped and handed to the exchange. What it is compared with
is a run in which the agent hands in nothing at these meta-steps.
"""

import json
import math
import re
from collections.abc import Callable, Container
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from mgrl_cli.agents.health import DIVERGED
from mgrl_cli.agents.off_policy import OffPolicyAgent
from mgrl_cli.algorithm.meta_gradient import clipped, unit
from mgrl_cli.errors import DivergedError
from mgrl_cli.inspection.verification import verify
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.run_dir.checkpoints import checkpoint_paths, load_checkpoint
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.tensor_file import read_tensor_file
from mgrl_cli.runtime.exchange import Exchange
from mgrl_cli.runtime.launch import claim_run, meta_train
from mgrl_cli.runtime.resumption import resume
from mgrl_cli.runtime.stop import StopRequest
from tests.commands.tiny_runs import Outcome, tiny
from tests.envs import conftest as environments
from tests.faults.tally import trial
from tests.runtime.conftest import Remembering, fingerprint, tiny_config

registered = environments.registered
slow = pytest.mark.slow

PATIENCE = 4
CONFIG = tiny_config(
    agents=3,
    steps=60,
    assignments=(
        "schedule.round_steps=30",
        "schedule.updates_start=30",
        f"supervision.max_skipped_updates={PATIENCE}",
        "checkpoints.interval_s=0",
        "checkpoints.keep=10000",
    ),
)
"""Two rounds of 15 meta-steps each: agents 0 and 2 on pendulum, agent 1 on cartpole."""
BAD_AGENT = 1

Poison = Callable[[Tensor], Tensor]


def one_entry(value: float) -> Poison:
    def poison(gradient: Tensor) -> Tensor:
        poisoned = gradient.clone()
        poisoned[7] = value
        return poisoned

    return poison


POISONS: dict[str, Poison] = {
    "one NaN": one_entry(math.nan),
    "one inf": one_entry(math.inf),
    "one -inf": one_entry(-math.inf),
    "one beyond what float32 can square": one_entry(1e30),
    "all NaN": lambda gradient: torch.full_like(gradient, math.nan),
    "all huge": lambda gradient: torch.full_like(gradient, 3e38),
    "norm beyond float32": lambda gradient: torch.full_like(gradient, 3e18),
}


class Moment:
    """The meta-gradient in the making."""

    meta_step = -1


def intervene(
    patch: pytest.MonkeyPatch, act: Callable[[OffPolicyAgent, int], Poison | None]
) -> Moment:
    """Ask `act` before every meta-gradient; what it returns is done to what the learner returns."""
    moment, original = Moment(), OffPolicyAgent.meta_gradient

    def meta_gradient(agent: OffPolicyAgent, meta_step: int) -> Tensor:
        moment.meta_step = meta_step
        poison = act(agent, meta_step)
        if poison is None:
            return original(agent, meta_step)
        honest = agent.learner.meta_gradient

        def poisoned(*arguments: object) -> object:
            result = honest(*arguments)
            return result._replace(gradient=poison(result.gradient))

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(agent.learner, "meta_gradient", poisoned)
            return original(agent, meta_step)

    patch.setattr(OffPolicyAgent, "meta_gradient", meta_gradient)
    return moment


def poisoning(
    agents: Container[int], meta_steps: Container[int], poison: Poison
) -> Callable[[OffPolicyAgent, int], Poison | None]:
    def act(agent: OffPolicyAgent, meta_step: int) -> Poison | None:
        return poison if agent.spec.agent_id in agents and meta_step in meta_steps else None

    return act


def abstain(patch: pytest.MonkeyPatch, meta_steps: Container[int], moment: Moment) -> None:
    """Let the bad agent hand in nothing at these meta-steps, whatever its gradient."""
    original = Exchange.contribute

    def contribute(exchange: Exchange, agent_id: int, gradient: Tensor) -> bool:
        if agent_id == BAD_AGENT and moment.meta_step in meta_steps:
            return True
        return original(exchange, agent_id, gradient)

    patch.setattr(Exchange, "contribute", contribute)


def run_with(
    act: Callable[[OffPolicyAgent, int], Poison | None],
    runs_dir: Path,
    *,
    abstains_at: Container[int] = (),
) -> tuple[RunDirectory, list[str]]:
    """Make the run; return it and what was announced."""
    run, progress = claim_run(CONFIG, runs_dir, "run"), Remembering()
    with pytest.MonkeyPatch.context() as patch:
        abstain(patch, abstains_at, intervene(patch, act))
        meta_train(CONFIG, run, progress, workers=0)
    return run, progress.events


def nothing(_agent: OffPolicyAgent, _meta_step: int) -> None:
    """Do not intervene."""


def bits(run: RunDirectory) -> dict[str, object]:
    """Everything a run leaves, but for how often and how far the bad agent's numbers were off."""
    marks = fingerprint(run)
    metrics = {
        name: [{key: value for key, value in row.items() if key not in NOTES} for row in rows]
        for name, rows in marks.pop("metrics").items()  # type: ignore[attr-defined]
    }
    marks.pop("checkpoint")
    tensors = {
        f"{path.stem}.{name}": tensor.numpy().tobytes()
        for path in checkpoint_paths(run)[-1].glob("*.safetensors")
        for name, tensor in tensors_of(path).items()
        if name != "counters"
    }
    version, _skipped, barren = counters_of(run)
    return {**marks, "metrics": metrics, "tensors": tensors, "version": version, "barren": barren}


NOTES = ("skipped_gradients", "skipped_updates", "meta_gradient_norm")


def tensors_of(path: Path) -> dict[str, Tensor]:
    return read_tensor_file(path, what="part of a checkpoint", max_bytes=2**24)[1]


def counters_of(run: RunDirectory) -> list[int]:
    """version, skipped gradients, barren meetings"""
    path = checkpoint_paths(run)[-1] / "exchange.safetensors"
    return tensors_of(path)["counters"].tolist()


def rows_of(run: RunDirectory, agent_id: int) -> list[dict[str, float]]:
    return [json.loads(line) for line in run.agent_metrics(agent_id).read_text().splitlines()]


def assert_finite(run: RunDirectory) -> None:
    """Every checkpoint and every objective."""
    for path in checkpoint_paths(run):
        load_checkpoint(path)
        for part in path.glob("*.safetensors"):
            assert all(torch.isfinite(each).all() for each in tensors_of(part).values()), part
    for path in (run.objective, *run.objectives.glob("*")):
        assert torch.isfinite(LearnedObjective.load(path).params).all()


# ---- row 24: one agent


@pytest.mark.parametrize("scale", [unit, lambda gradient: clipped(gradient, limit=1.0)])
@pytest.mark.parametrize("size", [3e18, 1e25, 3e38])
def test_a_gradient_whose_norm_overflows_never_passes_for_zero(scale, size):
    assert torch.isfinite(scale(torch.full((100,), 1e15))).all()
    assert not torch.isfinite(scale(torch.full((100,), size))).any()


@pytest.mark.parametrize("size", [1e20, 3e38])
def test_what_adam_cannot_square_never_enters_its_moments(size):
    """However large `meta.clip_norm` is: an infinite second moment would stop an entry for good."""
    exchange = Exchange(torch.ones(3), 2, learning_rate=0.1, num_workers=1, stop=StopRequest())
    assert not exchange.contribute(0, torch.tensor([0.0, size, 0.0]))
    assert exchange.contribute(1, torch.tensor([1.0, 1.0, 1.0]))
    exchange.meet()
    assert exchange.params.tolist() == pytest.approx([0.9] * 3)  # Adam's first step: its rate
    assert all(torch.isfinite(tensor).all() for tensor in exchange.tensors().values())


NOW_AND_THEN = (5, 6, 7, 20)


@pytest.fixture(scope="module")
def abstaining(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """A run whose agent 1 hands in nothing now and then."""
    return bits(run_with(nothing, tmp_path_factory.mktemp("run"), abstains_at=NOW_AND_THEN)[0])


@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=() if what == "norm beyond float32" else slow) for what in POISONS],
)
def test_a_bad_meta_gradient_counts_as_none_at_all(abstaining, tmp_path, what):
    with trial("24 bad meta-gradient now and then: as if abstained"):
        act = poisoning({BAD_AGENT}, NOW_AND_THEN, POISONS[what])
        run, events = run_with(act, tmp_path)
        assert [row["skipped_gradients"] for row in rows_of(run, BAD_AGENT)] == [3, 1]
        assert counters_of(run) == [30, 4, 0]
        assert bits(run) == abstaining
        assert events == []


@pytest.mark.slow
def test_a_meta_gradient_that_is_large_but_finite_weighs_no_more_than_its_clipped_self(tmp_path):
    """Powers of two, by which floating-point numbers are scaled exactly."""

    def scaled(exponent: int) -> Poison:
        return lambda gradient: 2.0**exponent * unit(gradient)

    with trial("24 large meta-gradient: clipped"):
        large, _ = run_with(poisoning({BAD_AGENT}, {5}, scaled(20)), tmp_path / "large")
        huge, _ = run_with(poisoning({BAD_AGENT}, {5}, scaled(40)), tmp_path / "huge")
        assert counters_of(huge) == [30, 0, 0]
        assert bits(huge) == bits(large)


def test_an_agent_whose_meta_gradients_stay_bad_leaves_and_the_others_never_notice(tmp_path):
    last = 10 + PATIENCE - 1
    reason = f"{DIVERGED}: {PATIENCE} meta-gradients in a row were not finite"

    def leave(agent: OffPolicyAgent, meta_step: int) -> None:
        if agent.spec.agent_id == BAD_AGENT and meta_step == last:
            agent.health.quarantine = reason

    with trial("24 bad meta-gradients in a row: as if it had left"):
        bad = poisoning({BAD_AGENT}, range(10, 1000), POISONS["one NaN"])
        run, events = run_with(bad, tmp_path / "poisoned")
        assert f"agent-001 left the population: {reason}" in events
        assert len(rows_of(run, BAD_AGENT)) == 1
        assert counters_of(run) == [30, PATIENCE, 0]
        twin, _ = run_with(leave, tmp_path / "left", abstains_at=range(10, last + 1))
        assert bits(run) == bits(twin)


def test_a_critic_that_became_nan_harms_nobody_else(tmp_path):
    reason = f"{DIVERGED}: {PATIENCE} critic updates in a row were not finite"

    def spoil(agent: OffPolicyAgent, meta_step: int) -> None:
        if agent.spec.agent_id == BAD_AGENT and meta_step == 10:
            agent.learner.critic_params.fill_(math.nan)

    def leave(agent: OffPolicyAgent, meta_step: int) -> None:
        if agent.spec.agent_id == BAD_AGENT and meta_step == 10:
            agent.health.quarantine = reason

    with trial("24 critic of NaN: as if the agent had left"):
        run, events = run_with(spoil, tmp_path / "spoiled")
        assert f"agent-001 left the population: {reason}" in events
        assert_finite(run)
        twin, _ = run_with(leave, tmp_path / "left", abstains_at={10})
        spoiled, left = bits(run), bits(twin)
        for marks in (spoiled, left):  # its own last round differs by a few updates
            del marks["metrics"]["agent-001.jsonl"]  # type: ignore[attr-defined]
            for row in marks["metrics"]["population.jsonl"]:  # type: ignore[index]
                del row["action_slack"], row["cosine"], row["gain"]
        assert spoiled == left


class Rich(gymnasium.Env):
    """Pays more than a critic can square."""

    observation_space = Box(-1.0, 1.0, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.uniform(-1.0, 1.0, 2), {}

    def step(self, action):
        self.steps += 1
        return self.np_random.uniform(-1.0, 1.0, 2), 1e38, self.steps >= 20, False, {}


def test_rewards_of_1e38_put_an_agent_out_and_leave_the_objective_finite(registered, tmp_path):
    envs = [{"id": "cartpole"}, {"id": registered(Rich)}]
    config = CONFIG.model_validate({**CONFIG.model_dump(), "envs": envs, "agents": 2})
    with trial("24 rewards of 1e38"):
        run, progress = claim_run(config, tmp_path, "run"), Remembering()
        meta_train(config, run, progress, workers=0)
        left = [event for event in progress.events if "left the population" in event]
        assert len(left) == 1
        assert left[0].startswith(f"agent-001 left the population: {DIVERGED}")
        assert_finite(run)
        assert counters_of(run)[0] == 30
        assert len(rows_of(run, 0)) == 2


# ---- row 25: all agents


def test_where_all_diverge_nothing_is_applied_and_the_last_good_checkpoint_is_named(tmp_path):
    first = 18
    seen: list[Tensor] = []

    def act(agent: OffPolicyAgent, meta_step: int) -> Poison | None:
        if meta_step < first:
            return None
        seen.append(agent._objective_params.clone())
        return POISONS["one inf"]

    with trial("25 all agents diverge"):
        run = claim_run(CONFIG, tmp_path, "run")
        with pytest.MonkeyPatch.context() as patch:
            intervene(patch, act)
            with pytest.raises(DivergedError) as caught:
                meta_train(CONFIG, run, Remembering(), workers=0)
        assert caught.value.exit_code == 6
        good = run.checkpoints / "round-000001"
        assert f"the last good checkpoint is '{good}'" in str(caught.value)
        assert len(seen) == CONFIG.agents * PATIENCE
        on_disk = LearnedObjective.load(run.objective)
        assert on_disk.metadata.meta_steps == first
        assert all(torch.equal(params, on_disk.params) for params in seen)
        assert_finite(run)
        assert verify(run.path).problems == ()
        # What was bad was put in by hand: without it the run goes on from there.
        resume(run, Remembering(), workers=0, say=lambda _: None)
        assert LearnedObjective.load(run.objective).metadata.meta_steps == 30


def test_divergence_is_exit_code_6_in_one_line(registered, tmp_path, capsys):
    patience = ("--set", f"supervision.max_skipped_updates={PATIENCE}")
    command = tiny("meta-train", "--envs", registered(Rich), *patience, runs_dir=tmp_path / "runs")
    with trial("25 all agents diverge by rewards of 1e38"):
        outcome = Outcome(capsys, [*command, "--agents", "2", "--run", "run", "--quiet"])
        assert outcome.exit_code == 6
        run = RunDirectory(tmp_path / "runs" / "run")
        (named,) = re.findall(r"the last good checkpoint is '(.*?)'", outcome.refusal)
        assert load_checkpoint(Path(named)).manifest.barren_meetings == 0
        assert_finite(run)
