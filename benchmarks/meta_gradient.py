"""One meta-gradient: what training runs against the two usual ways to get it.

All three compute ∂J/∂α for one virtual step on the sum over B windows, judged by the critic on 2 B
windows (see `mgrl_cli.algorithm.meta_gradient` for the equations):

* `ours` is what an agent runs: it contracts in action space, in compiled kernels alone (in float64,
  which agents do not know, with torch between the networks' kernels);
* `plain` keeps the graph of the virtual step (`create_graph=True`) and differentiates through it:
  our oracle, but with torch's own LayerNorm, which is faster than the one written out;
* `higher` (0.2.1) does so with the policy as an `nn.Module`, a differentiable SGD and the critic's
  parameters frozen, as its documentation has it. The objective is the plain one, its parameters a
  tensor that requires a gradient: fewer operations than a module's many small tensors.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import (
    Effort,
    Result,
    Timings,
    interleaved,
    median_and_quartiles,
    one_thread,
)
from benchmarks.problems import (
    ACT_SIZE,
    OBS_SIZE,
    MetaSetup,
    Size,
    meta_setup,
    relative_error,
    require_kernels,
    sizes,
    torch_layer_norm,
)
from mgrl_cli.agents.learner import Learner
from mgrl_cli.algorithm.batches import Windows, masked_mean
from mgrl_cli.algorithm.meta_gradient import meta_gradient, meta_gradient_by_double_backward
from mgrl_cli.algorithm.objectives import PolicyEvidence
from mgrl_cli.algorithm.parameters import ParameterLayout
from mgrl_cli.presets import resolve_config

PEERS = ("higher",)
Contender = Callable[[MetaSetup], Callable[[], Tensor]]
"""Takes the problem and returns what computes its meta-gradient."""
TARGETS = {"laptop": 8.0, "middle": 5.0, "paper": 2.0}
LARGEST_ERROR = {torch.float32: 5e-3, torch.float64: 1e-9}
"""Norm of a gradient's error, as a share of the oracle's. In float32 a few ReLUs fall on the other
side of zero, for every implementation."""


def run(effort: Effort) -> Iterator[Result]:
    """Measure at each size; with SMOKE effort the smallest, and against plain torch only."""
    is_full = effort is Effort.FULL
    require_kernels()
    with one_thread():
        for size in sizes(effort):
            setup = meta_setup(size)
            contenders = {"ours": ours, "plain": plain}
            if is_full:
                contenders["higher"] = HigherMetaGradient
            check = assert_equal_gradients(setup, contenders, is_full=is_full)
            timings = interleaved(
                {name: make(setup) for name, make in contenders.items()},
                repeats=21 if is_full else 9,
            )
            yield _result(timings, size, "plain", "plain double backward", check)
            if is_full:
                yield _result(timings, size, "higher", "higher", check)


def ours(setup: MetaSetup) -> Callable[[], Tensor]:
    """Return what training runs."""
    compiled = setup.with_kernels()
    if setup.params.dtype == torch.float64:
        return lambda: meta_gradient(*compiled).gradient
    learner, (problem, params, _, batches) = learner_of(setup), compiled
    arrays = [Windows(*(tensor.numpy() for tensor in windows[:-1])) for windows in batches]
    return lambda: learner.meta_gradient(problem.objective, params, arrays).gradient


def learner_of(setup: MetaSetup) -> Learner:
    """Return an agent's learner with the networks and the virtual step of a problem."""
    problem = setup.problem
    width = problem.policy.layout.shapes["linear_1.weight"][1]
    config = resolve_config(
        kind="meta-train",
        preset="laptop",
        assignments=(
            f"policy.hidden={width}",
            f"critic.hidden={width}",
            f"meta.inner_step={problem.virtual_step.kind}",
            f"meta.inner_step_size={problem.virtual_step.size}",
        ),
        options={"envs": [{"id": "cheetah"}]},
    )
    learner = Learner(config, OBS_SIZE, ACT_SIZE, np.random.default_rng(0))
    learner.policy_params.copy_(setup.policy_params)
    learner.critic_params.copy_(problem.critic_params)
    return learner


def plain(setup: MetaSetup) -> Callable[[], Tensor]:
    """Return the double backward through the whole graph."""

    def gradient() -> Tensor:
        with torch_layer_norm():
            return meta_gradient_by_double_backward(*setup).gradient

    return gradient


class HigherMetaGradient:
    """The meta-gradient by the library `higher`."""

    def __init__(self, setup: MetaSetup) -> None:
        self._setup = setup
        problem = setup.problem
        self._policy = nn.Sequential(
            torch_module(problem.policy.layout, setup.policy_params), nn.Tanh()
        )
        self._critic = torch_module(problem.critic.layout, problem.critic_params[0])
        self._critic.requires_grad_(False)
        self._optimizer = torch.optim.SGD(self._policy.parameters(), lr=problem.virtual_step.size)

    def _q_first(self, obs: Tensor, action: Tensor) -> Tensor:
        return self._critic(torch.cat([obs, action], dim=-1)).squeeze(-1)

    def __call__(self) -> Tensor:
        """Return ∂J/∂α."""
        from higher import innerloop_ctx

        batches, problem = self._setup.batches, self._setup.problem
        alpha = self._setup.params.detach().requires_grad_()
        with (
            torch_layer_norm(),
            innerloop_ctx(self._policy, self._optimizer) as (policy, optimizer),
        ):
            for windows in batches[1:]:
                evidence = PolicyEvidence(windows, policy(windows.obs), self._q_first)
                optimizer.step(problem.loss(alpha, evidence))
            obs = torch.cat([windows.obs[:, :-1] for windows in batches])
            is_valid = torch.cat([windows.is_valid for windows in batches])
            meta_loss = -masked_mean(self._q_first(obs, policy(obs)), is_valid)
            (gradient,) = torch.autograd.grad(meta_loss, alpha)
        return gradient


def torch_module(layout: ParameterLayout, params: Tensor) -> nn.Sequential:
    """Return a policy's or critic's network as anyone would write it, with these parameters."""
    width_in, hidden = layout.shapes["linear_1.weight"]
    _, width_out = layout.shapes["output.weight"]
    layers = {
        "linear_1": nn.Linear(width_in, hidden),
        "relu_1": nn.ReLU(),
        "norm_1": nn.LayerNorm(hidden),
        "linear_2": nn.Linear(hidden, hidden),
        "relu_2": nn.ReLU(),
        "norm_2": nn.LayerNorm(hidden),
        "output": nn.Linear(hidden, width_out),
    }
    network = nn.Sequential(*layers.values()).to(params.dtype)
    views = layout.views(params)
    with torch.no_grad():
        for name, layer in layers.items():
            if isinstance(layer, nn.Linear):
                layer.weight.copy_(views[f"{name}.weight"].T)
                layer.bias.copy_(views[f"{name}.bias"])
            elif isinstance(layer, nn.LayerNorm):
                layer.weight.copy_(views[f"{name}.gain"])
                layer.bias.copy_(views[f"{name}.bias"])
    return network


def assert_equal_gradients(
    setup: MetaSetup, contenders: dict[str, Contender], *, is_full: bool
) -> str:
    """Hold everyone's gradient to the oracle's in float64; return what was found.

    Args:
        setup: the problem, in float32 as it is timed.
        contenders: who computes it.
        is_full: in float64 too, for which numba may have to compile first.
    """
    doubled = setup.in_float64()
    exact = meta_gradient_by_double_backward(*doubled).gradient
    found: list[str] = []
    for each in (setup, doubled) if is_full else (setup,):
        errors = {name: relative_error(make(each)(), exact) for name, make in contenders.items()}
        dtype = each.params.dtype
        worst = max(errors, key=errors.__getitem__)
        assert errors[worst] < LARGEST_ERROR[dtype], (
            f"the meta-gradient of '{worst}' is off by {errors[worst]:.1e} of its norm in {dtype}, "
            f"expected less than {LARGEST_ERROR[dtype]:.0e}"
        )
        listed = ", ".join(f"{name} {error:.0e}" for name, error in errors.items())
        found.append(f"{str(dtype).removeprefix('torch.')}: {listed}")
    return f"gradients' error as a share of the float64 oracle's norm: {'; '.join(found)}"


def _result(timings: Timings, size: Size, peer: str, name: str, check: str) -> Result:
    value, spread = median_and_quartiles(timings.ratios(peer, "ours"))
    return Result(
        benchmark="meta_gradient",
        setting=str(size),
        figure=f"times faster than {name}",
        value=value,
        spread=spread,
        direction="at least",
        target=TARGETS[size.name],
        milliseconds=timings.median_ms(),
        check=check,
    )
