"""REINFORCE with GAE on policy: a Gaussian policy, a value function, one policy step per epoch.

Everything here is Spinning Up's "vanilla policy gradient" at its benchmark's sizes. Data come in
from outside; here is nothing random but the initial parameters.

Source: https://spinningup.openai.com/en/latest/algorithms/vpg.html
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mgrl_cli.algorithm.adam import Adam
from mgrl_cli.algorithm.objectives import gaussian_log_density
from mgrl_cli.algorithm.on_policy import discounted_sums, episode_advantages, standardised
from mgrl_cli.algorithm.parameters import ParameterLayout, linear_shapes
from mgrl_cli.config import VpgConfig
from mgrl_cli.replay.ring import StoredEpisode

_HIDDEN = (64, 32)
_INITIAL_LOG_DEVIATION = -0.5


class VpgUpdate(NamedTuple):
    """What an epoch's learning did."""

    policy_loss: float
    value_loss: float
    """Mean squared error before the first value step."""
    policy_applied: bool
    """False where the policy's gradient was not finite and its step was skipped."""
    value_applied: bool
    """False where a value step was skipped, and with it those after it."""


class Epoch(NamedTuple):
    """All steps of some whole episodes, one after the other."""

    obs: Float[Tensor, "steps obs"]
    raw_action: Float[Tensor, "steps act"]
    """Before clipping: what the Gaussian drew."""
    advantage: Float[Tensor, " steps"]
    """Standardised over the epoch."""
    value_target: Float[Tensor, " steps"]
    """Discounted rewards to go."""


@final
class VpgLearner:
    """Policy N(μ(s), diag(exp(log σ))²), value function, and their Adam states."""

    def __init__(
        self, settings: VpgConfig, obs_size: int, act_size: int, rng: np.random.Generator
    ) -> None:
        """Draw fresh networks from `rng`."""
        self._settings = settings
        self._policy = ParameterLayout(
            {**_network_shapes(obs_size, act_size), "log_deviation": (act_size,)}
        )
        self._value = ParameterLayout(_network_shapes(obs_size, 1))
        self.policy_params = self._policy.initialise(rng)
        self._policy.views(self.policy_params)["log_deviation"].fill_(_INITIAL_LOG_DEVIATION)
        self.value_params = self._value.initialise(rng)
        self._policy_adam = Adam(self.policy_params, settings.policy_learning_rate)
        self._value_adam = Adam(self.value_params, settings.value_learning_rate)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that learning changes, by name: the tensors themselves, no copies."""
        return {
            "policy.params": self.policy_params,
            **{f"policy.{name}": state for name, state in self._policy_adam.tensors().items()},
            "value.params": self.value_params,
            **{f"value.{name}": state for name, state in self._value_adam.tensors().items()},
        }

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Return μ(s) for one observation [obs] as float32 [act]; it may leave [-1, 1]."""
        return _network(self._policy.views(self.policy_params), torch.from_numpy(obs)).numpy()

    @property
    def deviation(self) -> np.ndarray:
        """σ, float32 [act]."""
        return self._policy.views(self.policy_params)["log_deviation"].exp().numpy()

    def epoch_of(self, episodes: Sequence[StoredEpisode]) -> Epoch:
        """Return what is learned from these episodes, with the value function as it stands."""
        settings = self._settings
        advantages: list[Tensor] = []
        targets: list[Tensor] = []
        for episode in episodes:
            reward = torch.from_numpy(episode.reward)
            value = self.value(self.value_params, torch.from_numpy(episode.obs))
            is_over = bool(episode.terminated[-1]) or settings.timeout_is_terminal
            last = 0.0 if is_over else value[-1].item()
            value[-1] = last
            advantages.append(
                episode_advantages(
                    reward, value, discount=settings.discount, trace_decay=settings.trace_decay
                )
            )
            targets.append(discounted_sums(reward, rate=settings.discount, last=last))
        return Epoch(
            obs=_rows(episode.obs[:-1] for episode in episodes),
            raw_action=_rows(episode.raw_action for episode in episodes),
            advantage=standardised(torch.cat(advantages)),
            value_target=torch.cat(targets),
        )

    def learn(self, epoch: Epoch, on_step: Callable[[], None] = lambda: None) -> VpgUpdate:
        """Make one policy step, then the value steps, each on the whole epoch.

        Args:
            epoch: what to learn from.
            on_step: called before every value step, as a sign of life.
        """
        policy_loss, policy_applied = _step_down(
            self._policy_adam, lambda params: self.policy_loss(params, epoch)
        )
        value_losses: list[float] = []
        value_applied = True
        while value_applied and len(value_losses) < self._settings.value_steps:
            on_step()
            loss, value_applied = _step_down(
                self._value_adam, lambda params: self.value_loss(params, epoch)
            )
            value_losses.append(loss)
        return VpgUpdate(policy_loss, value_losses[0], policy_applied, value_applied)

    def policy_loss(self, params: Float[Tensor, " param"], epoch: Epoch) -> Float[Tensor, ""]:
        """Return -mean Â_t log N(a_t; μ(s_t), σ²)."""
        parts = self._policy.views(params)
        log_density = gaussian_log_density(
            epoch.raw_action, _network(parts, epoch.obs), parts["log_deviation"].exp()
        )
        return -(epoch.advantage * log_density).mean()

    def value_loss(self, params: Float[Tensor, " param"], epoch: Epoch) -> Float[Tensor, ""]:
        """Return the mean squared error of V."""
        return (self.value(params, epoch.obs) - epoch.value_target).square().mean()

    def value(
        self, params: Float[Tensor, " param"], obs: Float[Tensor, "rows obs"]
    ) -> Float[Tensor, " rows"]:
        """Return V(s)."""
        return _network(self._value.views(params), obs).squeeze(-1)


def _network_shapes(width_in: int, width_out: int) -> dict[str, tuple[int, ...]]:
    first, second = _HIDDEN
    return {
        **linear_shapes("first", width_in, first),
        **linear_shapes("second", first, second),
        **linear_shapes("output", second, width_out),
    }


def _network(
    parts: Mapping[str, Tensor], obs: Float[Tensor, "*rows obs"]
) -> Float[Tensor, "*rows out"]:
    hidden = torch.tanh(obs @ parts["first.weight"] + parts["first.bias"])
    hidden = torch.tanh(hidden @ parts["second.weight"] + parts["second.bias"])
    return hidden @ parts["output.weight"] + parts["output.bias"]


def _rows(parts: Iterable[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(list(parts)))


def _step_down(adam: Adam, loss_of: Callable[[Tensor], Tensor]) -> tuple[float, bool]:
    """Make one Adam step; a gradient that is not finite changes nothing."""
    params = adam.params.detach().requires_grad_()
    loss = loss_of(params)
    (gradient,) = torch.autograd.grad(loss, params)
    return loss.item(), adam.descend_if_finite(gradient)
