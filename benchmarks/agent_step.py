"""One agent-step without its environment: what a whole update costs.

Timed is what an agent does between two meetings, two such steps: it draws a critic batch, updates
the critic, draws windows, updates the policy by the learned objective, moves the targets, draws
twice as many windows for a meta-gradient; then again a critic batch and an update of the critic.
Both contenders do so from equal parameters, with equal draws from one replay, in the settings of
the laptop preset; see `learners`.

* `ours` is `mgrl_cli.agents.learner.Learner`.
* `plain` is the same equations in PyTorch as usual: autograd for every derivative, the
  meta-gradient by double backward, `torch.optim.Adam`, torch's own LayerNorm, no compiled kernels.
"""

from collections.abc import Callable, Iterator

import numpy as np
from torch import Tensor

from benchmarks.flops import MatrixProduct, fastest_matrix_product, step_flop
from benchmarks.learners import Fused, Plain, Updates
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
    Size,
    filled_replay,
    relative_error,
    require_kernels,
    sizes,
    torch_layer_norm,
)
from mgrl_cli.algorithm.batches import Windows, part_of
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.config import RunConfig
from mgrl_cli.presets import resolve_config
from mgrl_cli.replay.ring import ReplayRing

TARGETS = {"laptop": 6.0, "middle": 4.0, "paper": 1.5}
ROOFLINE_TARGETS = {"laptop": 0.4, "paper": 0.7}
LARGEST_ERROR = 1e-3
"""Norm of the difference between two float32 changes of parameters, as a share of the change."""
_OURS, _PLAIN, _PRODUCT = "ours", "plain", "matrix product"


def run(effort: Effort) -> Iterator[Result]:
    """Measure at each size; with SMOKE effort the smallest only, and no roofline."""
    is_full = effort is Effort.FULL
    require_kernels()
    with one_thread():
        product = fastest_matrix_product() if is_full else None
        for size in sizes(effort):
            ours, plain = pairs(size)
            check = assert_equal_updates(ours, plain)
            contenders: dict[str, Callable[[], object]] = {_OURS: ours, _PLAIN: plain}
            if product is not None:
                contenders[_PRODUCT] = product
            timings = interleaved(contenders, repeats=15 if is_full else 9)
            yield _result(
                timings,
                timings.ratios(_PLAIN, _OURS),
                setting=str(size),
                figure="times faster than plain PyTorch",
                target=TARGETS[size.name],
                check=check,
            )
            if product is not None and size.name in ROOFLINE_TARGETS:
                yield _roofline(timings, size, product)


def _roofline(timings: Timings, size: Size, product: MatrixProduct) -> Result:
    flop = step_flop(size)
    counted = (
        f"{flop.agent_step / 1e6:.0f} MFLOP, {flop.objective_share:.0%} of them the objective's"
    )
    peak = product.flop / timings.median_ms()[_PRODUCT] / 1e6
    # Operations of a pair over those of the product, times its seconds over the pair's.
    scale = 2 * flop.agent_step / product.flop
    return _result(
        timings,
        [scale * ratio for ratio in timings.ratios(_PRODUCT, _OURS)],
        setting=f"{size}; {counted}",
        figure="share of the core's peak rate of matrix products",
        target=ROOFLINE_TARGETS[size.name],
        check=f"operations as torch counts them (tests); peak of {peak:.0f} GFLOP/s timed in turns",
    )


def _result(
    timings: Timings, values: list[float], *, setting: str, figure: str, target: float, check: str
) -> Result:
    value, spread = median_and_quartiles(values)
    return Result(
        benchmark="agent_step",
        setting=setting,
        figure=figure,
        value=value,
        spread=spread,
        direction="at least",
        target=target,
        milliseconds={name: timings.median_ms()[name] / 2 for name in (_OURS, _PLAIN)},
        check=check,
    )


def settings(size: Size) -> RunConfig:
    """Return the laptop preset's settings at this size, past annealing."""
    return resolve_config(
        kind="meta-train",
        preset="laptop",
        options={
            "envs": [{"id": "cheetah"}],
            "agents": 1,
            "policy": {"hidden": size.hidden},
            "critic": {"hidden": size.hidden},
            "windows": {"batch": size.batch, "steps": size.steps},
            "meta": {"anneal_steps": 0, "lifetime": 0},
        },
    )


def pairs(size: Size) -> tuple["Pair", "Pair"]:
    """Return ours and plain PyTorch's, with equal parameters, draws and noise."""
    config = settings(size)
    rng = np.random.default_rng(0)
    replay = filled_replay(rng)
    params = ObjectiveNetwork().initialise(rng)
    fused = Fused(config, params)
    plain = Plain(config, params, fused.learner)
    return Pair(fused, config, replay), PlainPair(plain, config, replay)


class Pair:
    """Two agent-steps: j even, with policy and meta-gradient, and j + 1."""

    def __init__(self, updates: Updates, config: RunConfig, replay: ReplayRing) -> None:
        self.updates = updates
        self._config = config
        self._replay = replay
        self._draws, self._noise = np.random.default_rng(1), np.random.default_rng(2)

    def __call__(self) -> Tensor:
        """Make both; return the contribution to α's gradient."""
        batch = self._config.windows.batch
        self._update_critic()
        self.updates.update_policy(self._windows(batch))
        self.updates.update_targets()
        drawn = self._windows(2 * batch)
        batches = [part_of(drawn, slice(batch)), part_of(drawn, slice(batch, None))]
        contribution = self.updates.meta_gradient(batches)
        self._update_critic()
        return contribution

    def _update_critic(self) -> None:
        settings = self._config.windows
        rows = settings.batch * settings.steps
        batch = self._replay.sample_transitions(self._draws, rows)
        noise = self._noise.standard_normal((rows, ACT_SIZE), dtype=np.float32)
        self.updates.update_critic(batch, noise)

    def _windows(self, batch: int) -> Windows:
        return self._replay.sample_windows(self._draws, batch, self._config.windows.steps)


class PlainPair(Pair):
    """The same with torch's own LayerNorm in the plain networks."""

    def __call__(self) -> Tensor:
        """Make both; return the contribution to α's gradient."""
        with torch_layer_norm():
            return super().__call__()


def assert_equal_updates(ours: Pair, plain: Pair) -> str:
    """Make a pair of agent-steps with both, compare, and return what was found."""
    before = {name: tensor.clone() for name, tensor in ours.updates.parameters().items()}
    errors = {"meta-gradient": relative_error(ours(), plain())}
    expected = plain.updates.parameters()
    for name, tensor in ours.updates.parameters().items():
        errors[name] = relative_error(tensor - before[name], expected[name] - before[name])
    worst = max(errors, key=errors.__getitem__)
    assert errors[worst] < LARGEST_ERROR, (
        f"after one pair of agent-steps '{worst}' differs by {errors[worst]:.1e} of its change, "
        f"expected less than {LARGEST_ERROR:.0e}"
    )
    return (
        "after a pair of steps the meta-gradient and the changes of all parameters and targets "
        f"differ by at most {errors[worst]:.0e} of their norm ({worst})"
    )
