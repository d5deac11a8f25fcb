"""The meta-gradient ∇_α J: how the objective should change so that a policy it trains gets better.

    φ_0 = φ;   φ_k = φ_{k-1} - η s(g_k),   g_k = ∇_φ Σ_valid ℓ_α(τ_k, π_{φ_{k-1}}(s))   virtual step
    J   = - mean over the states s of τ_0..τ_K of Q_θ1(s, π_{φ_K}(s))                 critic frozen

with s(g) = g ("sum", the paper's) or s(g) = g / max(‖g‖, ε) ("unit"). Source: paper Eq. 6.

Two forms of the same gradient. `meta_gradient` runs: α reaches a virtual step only through
c = ∂Σℓ/∂a at a = π(s), so with v_k = ∂J/∂φ_k one Jacobian-vector product u = (∂π/∂φ) v_k gives

    ∂J/∂α  +=  -η ∇_α ⟨c_k(α), u⟩

and only the small objective is differentiated twice. For K > 1, v walks back through the steps by a
Hessian-vector product. `meta_gradient_by_double_backward` keeps the whole graph and differentiates
through it; it is slower, obviously right, and stays as the oracle of the tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from mgrl_cli.algorithm.batches import WindowTensors, masked_mean
from mgrl_cli.algorithm.networks import CriticNetwork, CriticTape, PolicyNetwork, PolicyTape
from mgrl_cli.algorithm.objective_curvature import ObjectiveCurvature, objective_curvature
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.algorithm.objectives import PolicyEvidence

SHORTEST_UNIT_GRADIENT = 1e-6
"""ε: below it the unit step is proportional to g. An objective that asks for nothing (zero last
layer) has g = 0; with a step of fixed length its meta-gradient would not exist."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VirtualStep:
    """How the virtual step moves the policy."""

    size: float
    """η; for "sum" it multiplies a sum over all valid steps, so quote it together with B · T."""
    kind: Literal["sum", "unit"] = "sum"


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class MetaProblem:
    """One agent's networks and frozen critic: all that J depends on besides φ, α and the data."""

    policy: PolicyNetwork
    critic: CriticNetwork
    objective: ObjectiveNetwork
    critic_params: Float[Tensor, "2 param"]
    virtual_step: VirtualStep

    def q_first(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return Q_θ1(s, a)."""
        return self.critic.first(self.critic_params, obs, action)

    def q_first_once(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return Q_θ1(s, a), differentiable once and in the action only."""
        return self.critic.first_once(self.critic_params, obs, action)

    def evidence(self, policy_params: Tensor, windows: WindowTensors) -> PolicyEvidence:
        """Return what the objective sees of the policy φ on `windows`."""
        return PolicyEvidence(windows, self.policy(policy_params, windows.obs), self.q_first)

    def loss(self, params: Tensor, evidence: PolicyEvidence) -> Float[Tensor, ""]:
        """Return Σ_valid ℓ_α, the sum that the virtual step descends."""
        windows = evidence.windows
        losses = self.objective(params, windows.action, evidence.policy_action, evidence.signals)
        is_valid = windows.is_valid
        return torch.where(is_valid, losses, torch.zeros_like(losses)).sum()

    def meta_loss(
        self, policy_params: Tensor, batches: Sequence[WindowTensors]
    ) -> Float[Tensor, ""]:
        """Return J = -mean Q_θ1(s, π_φ(s)) over the valid states of all batches."""
        obs = torch.cat([windows.obs[:, :-1] for windows in batches])
        is_valid = torch.cat([windows.is_valid for windows in batches])
        return -masked_mean(self.q_first(obs, self.policy(policy_params, obs)), is_valid)

    def scaled(self, gradient: Tensor) -> Tensor:
        """Return s(g), the direction and length of the virtual step over η."""
        if self.virtual_step.kind == "unit":
            norm = torch.linalg.vector_norm(gradient)
            return gradient / norm.clamp(min=SHORTEST_UNIT_GRADIENT)
        return gradient

    def scaled_vjp(self, gradient: Tensor, v: Tensor) -> Tensor:
        """Return (∂s/∂g)ᵀ v, for the unit step (v - ĝ⟨ĝ, v⟩)/‖g‖."""
        if self.virtual_step.kind == "sum":
            return v
        norm = torch.linalg.vector_norm(gradient)
        if norm <= SHORTEST_UNIT_GRADIENT:
            return v / SHORTEST_UNIT_GRADIENT
        direction = gradient / norm
        return (v - direction * torch.dot(direction, v)) / norm


class MetaGradient(NamedTuple):
    """A meta-gradient and what tells whether it means anything."""

    gradient: Float[Tensor, " param"]
    """∇_α J, raw."""
    virtual_policy: Float[Tensor, " policy_param"]
    """φ_K."""
    inner_gradient: Float[Tensor, " policy_param"]
    """g_1."""
    inner_gradient_norm: float
    """‖g_1‖."""


class _Step(NamedTuple):
    """One virtual step, kept for the walk back."""

    windows: WindowTensors
    policy_params: Tensor
    policy_tape: PolicyTape
    curvature: ObjectiveCurvature
    policy_gradient: Tensor
    """g."""


def meta_gradient(
    problem: MetaProblem,
    params: Float[Tensor, " param"],
    policy_params: Float[Tensor, " policy_param"],
    batches: Sequence[WindowTensors],
) -> MetaGradient:
    """Return ∇_α J by contraction, without a second derivative of the policy for K = 1.

    Args:
        problem: networks, critic and virtual step of one agent.
        params: objective parameters α.
        policy_params: φ_0.
        batches: τ_0, which only the critic judges, then τ_1..τ_K, one per virtual step.
    """
    phi = policy_params
    steps: list[_Step] = []
    for windows in batches[1:]:
        step = _virtual_step(problem, params, phi, windows)
        phi = phi - problem.virtual_step.size * problem.scaled(step.policy_gradient)
        steps.append(step)

    v = _meta_loss_gradient(problem, phi, batches)
    gradient = torch.zeros_like(params)
    for k, step in reversed(list(enumerate(steps, start=1))):
        w = problem.scaled_vjp(step.policy_gradient, v)
        u = problem.policy.jvp(step.policy_tape, w).view(*step.windows.obs.shape[:2], -1)[:, :-1]
        alpha_part, action_part = step.curvature.mixed_gradient(u)
        gradient -= problem.virtual_step.size * alpha_part
        if k > 1:
            v = v - problem.virtual_step.size * _hessian_vector(problem, step, w, action_part)
    g = steps[0].policy_gradient
    return MetaGradient(gradient, phi, g, g.norm().item())


def _virtual_step(
    problem: MetaProblem, params: Tensor, policy_params: Tensor, windows: WindowTensors
) -> _Step:
    """Differentiate Σ_valid ℓ in action space, where it stays differentiable, and then to φ."""
    tape = problem.policy.forward(policy_params, windows.obs.flatten(0, 1))
    actions = tape.action.view(*windows.obs.shape[:2], -1)
    evidence = PolicyEvidence(windows, actions, problem.q_first_once)
    curvature = objective_curvature(problem.objective, params, evidence)
    g = problem.policy.vjp(tape, _with_last_step(curvature.action_gradient).flatten(0, 1))
    return _Step(windows, policy_params, tape, curvature, g)


class _Judgement(NamedTuple):
    """The critic's view of a policy on the valid states of all batches."""

    policy_tape: PolicyTape
    critic_tape: CriticTape
    weights: Tensor
    """Of every state in the mean, [rows]."""


def _judgement(
    problem: MetaProblem, policy_params: Tensor, batches: Sequence[WindowTensors]
) -> _Judgement:
    obs = torch.cat([windows.obs[:, :-1] for windows in batches]).flatten(0, 1)
    is_valid = torch.cat([windows.is_valid for windows in batches]).flatten()
    policy_tape = problem.policy.forward(policy_params, obs)
    critic_tape = problem.critic.forward(problem.critic_params[:1], obs, policy_tape.action)
    weights = is_valid.to(obs.dtype) / is_valid.sum().clamp(min=1)
    return _Judgement(policy_tape, critic_tape, weights)


def _meta_loss_gradient(
    problem: MetaProblem, policy_params: Tensor, batches: Sequence[WindowTensors]
) -> Tensor:
    """Return ∂J/∂φ_K."""
    judgement = _judgement(problem, policy_params, batches)
    q_cotangent = -judgement.weights.unsqueeze(0)
    action_cotangent = problem.critic.action_vjp(judgement.critic_tape, q_cotangent).squeeze(0)
    return problem.policy.vjp(judgement.policy_tape, action_cotangent)


def gain(
    problem: MetaProblem,
    policy_params: Float[Tensor, " policy_param"],
    result: MetaGradient,
    batches: Sequence[WindowTensors],
) -> float:
    """Return J(φ_0) - J(φ_K): what the virtual step was worth in the critic's eyes."""
    before = _judgement(problem, policy_params, batches)
    after = _judgement(problem, result.virtual_policy, batches)
    difference = (after.critic_tape.q - before.critic_tape.q).squeeze(0)
    return torch.dot(before.weights, difference).item()


def _hessian_vector(
    problem: MetaProblem, step: _Step, direction: Tensor, action_part: Tensor
) -> Tensor:
    """Return (∇²_φ Σℓ) · w = Jᵀ (∂c/∂a · u) + ∇_φ ⟨c, (∂π/∂φ) w⟩, with c constant in the last term.

    `action_part` is ∂⟨c, u⟩/∂a, so the objective's second derivative is already in it; what is left
    is the policy's own curvature, reverse mode over forward mode.
    """
    phi = step.policy_params.detach().requires_grad_()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(phi, direction)
        actions, tangent = forward_ad.unpack_dual(problem.policy(dual, step.windows.obs[:, :-1]))
        assert tangent is not None  # phi carries a direction
        total = torch.sum(action_part * actions) + torch.sum(
            step.curvature.action_gradient * tangent
        )
        (product,) = torch.autograd.grad(total, phi)
    return product


def _with_last_step(per_step: Tensor) -> Tensor:
    """Return [batch, time + 1, act]: no loss looks at the action after a window's last step."""
    return torch.nn.functional.pad(per_step, (0, 0, 0, 1))


def meta_gradient_by_double_backward(
    problem: MetaProblem,
    params: Float[Tensor, " param"],
    policy_params: Float[Tensor, " policy_param"],
    batches: Sequence[WindowTensors],
) -> MetaGradient:
    """Return ∇_α J by differentiating through the whole graph of virtual steps (the oracle)."""
    alpha = params.detach().requires_grad_()
    phi = policy_params.detach().requires_grad_()
    inner_gradients: list[Tensor] = []
    for windows in batches[1:]:
        loss = problem.loss(alpha, problem.evidence(phi, windows))
        (g,) = torch.autograd.grad(loss, phi, create_graph=True)
        phi = phi - problem.virtual_step.size * problem.scaled(g)
        inner_gradients.append(g)
    (gradient,) = torch.autograd.grad(problem.meta_loss(phi, batches), alpha)
    g = inner_gradients[0].detach()
    return MetaGradient(gradient, phi.detach(), g, g.norm().item())


def _positive_norm(gradient: Tensor) -> Tensor:
    """Return ‖g‖, at least the smallest normal number: a zero gradient must stay zero.

    A norm that overflows becomes NaN: divided by infinity, a gradient out of all bounds would pass
    for zero.
    """
    norm = torch.linalg.vector_norm(gradient).clamp(min=torch.finfo(gradient.dtype).tiny)
    return torch.where(torch.isfinite(norm), norm, torch.nan)


def clipped(gradient: Tensor, *, limit: float) -> Tensor:
    """Return the gradient scaled down to norm `limit` where it is longer; NaN if ‖g‖ overflows."""
    return gradient * (limit / _positive_norm(gradient)).clamp(max=1.0)


def unit(gradient: Tensor) -> Tensor:
    """Return g / ‖g‖; a zero gradient stays zero, one whose norm overflows becomes NaN."""
    return gradient / _positive_norm(gradient)
