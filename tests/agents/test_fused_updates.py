"""The updates made of kernels alone against the plain ones, at every setting that they read."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from mgrl_cli.agents.learner import Learner
from mgrl_cli.algorithm.batches import Transitions, Windows, transitions_of
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork, ObjectiveShape
from mgrl_cli.algorithm.objectives import CriticObjective, LearnedObjectiveLoss, Objective
from mgrl_cli.presets import resolve_config

pytest.importorskip("numba", reason="the kernels need numba")

OBS_SIZE, ACT_SIZE, BATCH, STEPS = 5, 3, 18, 7
HIDDEN = 8

VARIANTS: Sequence[Sequence[str]] = (
    (),
    ("windows.mean_over_padding=true", "critic.terminal_bonus=true"),
    ("policy.pre_activation_limit=0.2", "policy.clip_norm=0"),
    ("policy.pre_activation_limit=0", "policy.clip_norm=1e-3"),
    ("meta.inner_step=unit", "meta.inner_step_size=0.03"),
    ("meta.anneal_by=learning_rate", "critic.discount=0.5", "critic.target_noise=1.0"),
    ("policy.hidden=5", "critic.hidden=5", "policy.layer_norm=false"),
    ("policy.layer_norm=false", "critic.layer_norm=false", "critic.polyak=0.7"),
)


SHAPES: Sequence[ObjectiveShape] = (
    ObjectiveShape(),
    ObjectiveShape(padding_first=True, terminal_value="mean"),
    ObjectiveShape(normalise=False, without=("time", "value"), bound=2.0),
)


def learner_of(assignments: Sequence[str], *, compiled: bool) -> Learner:
    config = resolve_config(
        kind="meta-train",
        preset="smoke",
        assignments=(
            f"policy.hidden={HIDDEN}",
            f"critic.hidden={HIDDEN}",
            f"compiled={str(compiled).lower()}",
            *assignments,
        ),
        options={"envs": [{"id": "pendulum"}]},
    )
    learner = Learner(config, OBS_SIZE, ACT_SIZE, np.random.default_rng(0))
    # Further from the start: actions of some size, and targets that are not the networks.
    for name in ("policy.params", "critic.params"):
        tensor = learner.tensors()[name]
        tensor += 0.3 * torch.from_numpy(np.random.default_rng(1).standard_normal(tensor.shape))
    return learner


def draw_windows(seed: int) -> Windows:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, STEPS + 1, BATCH)
    is_valid = np.arange(STEPS) < lengths[:, None]
    normal = rng.standard_normal
    return Windows(
        obs=normal((BATCH, STEPS + 1, OBS_SIZE), np.float32),
        action=rng.uniform(-1, 1, (BATCH, STEPS, ACT_SIZE)).astype(np.float32),
        reward=normal((BATCH, STEPS), np.float32) * is_valid,
        terminated=(rng.random((BATCH, STEPS)) < 0.2) & is_valid,
        is_valid=is_valid,
    )


def draw_transitions(seed: int) -> tuple[Transitions, np.ndarray]:
    noise = np.random.default_rng(seed).standard_normal((BATCH * STEPS, ACT_SIZE), np.float32)
    return transitions_of(draw_windows(seed)), noise


def assert_alike(ours: Learner, plain: Learner) -> None:
    expected = plain.tensors()
    for name, tensor in ours.tensors().items():
        # Adam's first steps have the length of the learning rate: 1e-3.
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=2e-5, msg=name)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference as a share of the norm, which must not be 0."""
    assert expected.norm() > 0
    return ((found - expected).norm() / expected.norm()).item()


def test_actions_are_the_plain_ones() -> None:
    ours, plain = (learner_of((), compiled=compiled) for compiled in (True, False))
    for obs in np.random.default_rng(5).standard_normal((20, OBS_SIZE), dtype=np.float32):
        found = ours.act(obs)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, plain.act(obs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("assignments", VARIANTS)
def test_critic_updates_are_the_plain_ones(assignments: Sequence[str]) -> None:
    ours, plain = (learner_of(assignments, compiled=compiled) for compiled in (True, False))
    for seed in range(3):
        found, expected = (each.update_critic(*draw_transitions(seed)) for each in (ours, plain))
        assert found[0] == pytest.approx(expected[0], rel=1e-4)
        assert found[1] is expected[1] is True
        for each in (ours, plain):
            each.update_targets()
    assert_alike(ours, plain)


@pytest.mark.parametrize("assignments", VARIANTS)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("is_learned", [True, False])
def test_policy_updates_are_the_plain_ones(
    assignments: Sequence[str], share: float, is_learned: bool
) -> None:
    params = ObjectiveNetwork().initialise(np.random.default_rng(2), last_layer="plain")
    learners = tuple(learner_of(assignments, compiled=compiled) for compiled in (True, False))
    for seed in range(3):
        updates = []
        for learner, compiled in zip(learners, (True, False), strict=True):
            objective: Objective = CriticObjective()
            if is_learned:
                objective = LearnedObjectiveLoss(ObjectiveNetwork(compiled=compiled), params)
            updates.append(learner.update_policy(draw_windows(seed), objective, share))
        found, expected = updates
        assert found.loss == pytest.approx(expected.loss, rel=1e-3, abs=1e-5)
        assert found.action_slack == pytest.approx(expected.action_slack, rel=1e-4)
        assert found.applied is expected.applied is True
    assert_alike(*learners)


@pytest.mark.parametrize("assignments", VARIANTS)
def test_the_meta_gradient_is_the_plain_one(assignments: Sequence[str]) -> None:
    params = ObjectiveNetwork().initialise(np.random.default_rng(2), last_layer="plain")
    found, expected = (
        learner_of(assignments, compiled=compiled).meta_gradient(
            ObjectiveNetwork(compiled=compiled), params, [draw_windows(3), draw_windows(4)]
        )
        for compiled in (True, False)
    )
    assert relative_error(found.gradient, expected.gradient) < 1e-4
    assert relative_error(found.virtual_policy, expected.virtual_policy) < 1e-4
    assert relative_error(found.inner_gradient, expected.inner_gradient) < 1e-4
    assert found.inner_gradient_norm == pytest.approx(expected.inner_gradient_norm, rel=1e-4)


@pytest.mark.parametrize("assignments", VARIANTS)
def test_diagnostics_are_the_plain_ones(assignments: Sequence[str]) -> None:
    params = ObjectiveNetwork().initialise(np.random.default_rng(2), last_layer="plain")
    batches = [draw_windows(3), draw_windows(4)]
    gains, cosines = [], []
    for compiled in (True, False):
        learner, network = (
            learner_of(assignments, compiled=compiled),
            ObjectiveNetwork(compiled=compiled),
        )
        result = learner.meta_gradient(network, params, batches)
        gains.append(learner.gain(network, result, batches))
        cosines.append(learner.cosine_with_critic(batches[1], result.inner_gradient))
    assert gains[0] == pytest.approx(gains[1], rel=1e-3) != 0
    assert cosines[0] == pytest.approx(cosines[1], rel=1e-3) != 0


@pytest.mark.parametrize("rate", [0.005, 0.7, 1.0])
def test_targets_follow_as_the_plain_ones(rate: float) -> None:
    ours, plain = (
        learner_of((f"critic.polyak={rate}",), compiled=compiled) for compiled in (True, False)
    )
    for learner in (ours, plain):
        learner.policy_target.fill_(1e8)  # forgotten at once where the rate is 1
        learner.update_targets()
        assert rate < 1.0 or torch.equal(learner.policy_target, learner.policy_params)
    torch.testing.assert_close(ours.policy_target, plain.policy_target)
    torch.testing.assert_close(ours.critic_target, plain.critic_target)


@pytest.mark.parametrize("scale", ["unit", "clip"])
@pytest.mark.parametrize("size", [0.0, 1e-3, 0.5, 2.0, 1e18, 1e30])
def test_contributions_are_the_plain_ones(scale: str, size: float) -> None:
    """1e30: the squares overflow, which must not pass for a gradient of zero."""
    settings = (f"meta.gradient_scale={scale}", "meta.clip_norm=1.0")
    gradient = size * torch.ones(100) / 10.0
    (found, norm), (expected, plain_norm) = (
        learner_of(settings, compiled=compiled).contribution(gradient) for compiled in (True, False)
    )
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert size == 1e30 or norm == pytest.approx(plain_norm, rel=1e-5) == pytest.approx(size)


def test_where_the_objective_asks_for_nothing_the_unit_step_is_the_plain_one() -> None:
    settings = ("meta.inner_step=unit",)
    params = ObjectiveNetwork().initialise(np.random.default_rng(2), last_layer="zero")
    found, expected = (
        learner_of(settings, compiled=compiled).meta_gradient(
            ObjectiveNetwork(compiled=compiled), params, [draw_windows(3), draw_windows(4)]
        )
        for compiled in (True, False)
    )
    assert found.inner_gradient_norm == expected.inner_gradient_norm == 0.0
    assert relative_error(found.gradient, expected.gradient) < 1e-4


@pytest.mark.parametrize("shape", SHAPES)
def test_every_objective_drives_as_its_plain_form(shape: ObjectiveShape) -> None:
    params = ObjectiveNetwork(shape).initialise(np.random.default_rng(2))
    learners = tuple(learner_of((), compiled=compiled) for compiled in (True, False))
    gradients = []
    for learner, compiled in zip(learners, (True, False), strict=True):
        network = ObjectiveNetwork(shape, compiled=compiled)
        for seed in range(3):
            learner.update_policy(draw_windows(seed), LearnedObjectiveLoss(network, params), 0.5)
        batches = [draw_windows(3), draw_windows(4)]
        gradients.append(learner.meta_gradient(network, params, batches).gradient)
    assert_alike(*learners)
    assert relative_error(*gradients) < 1e-3


def test_two_virtual_steps_take_the_general_form() -> None:
    params = ObjectiveNetwork().initialise(np.random.default_rng(2))
    found, expected = (
        learner_of((), compiled=compiled).meta_gradient(
            ObjectiveNetwork(compiled=compiled), params, [draw_windows(k) for k in (3, 4, 5)]
        )
        for compiled in (True, False)
    )
    assert relative_error(found.gradient, expected.gradient) < 1e-4


def test_one_target_critic_that_is_not_a_number_is_enough_to_learn_nothing() -> None:
    learner = learner_of((), compiled=True)
    learner.critic_target[1].fill_(torch.nan)
    assert not learner.update_critic(*draw_transitions(0))[1]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_gradients_that_are_not_finite_change_nothing(bad: float) -> None:
    learner = learner_of((), compiled=True)
    before = {name: tensor.clone() for name, tensor in learner.tensors().items()}
    transitions, noise = draw_transitions(0)
    transitions = transitions._replace(reward=np.full_like(transitions.reward, bad))
    _, applied = learner.update_critic(transitions, noise)
    assert not applied
    windows = draw_windows(0)
    windows = windows._replace(obs=np.full_like(windows.obs, np.nan))
    assert not learner.update_policy(windows, CriticObjective(), 1.0).applied
    for name, tensor in learner.tensors().items():
        assert torch.equal(tensor, before[name]), name
