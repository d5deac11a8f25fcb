"""Adam (Kingma & Ba 2015, https://arxiv.org/abs/1412.6980) on one flat vector.

The arithmetic is torch's own. `torch.optim.Adam` around it looks after parameter groups, hooks and
state dictionaries, which costs more than the step itself on vectors as short as ours.
"""

from functools import cache
from types import ModuleType
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.adam import adam

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8
_Array = NDArray[np.float32]


@cache
def _kernels() -> ModuleType:
    from mgrl_cli.algorithm.fused import descent

    return descent


@final
class Adam:
    """Parameters and the state of their optimiser, all changed in place."""

    def __init__(self, params: Tensor, learning_rate: float) -> None:
        """Begin with a fresh state.

        Args:
            params: what to optimise; any shape, contiguous.
            learning_rate: step size.
        """
        self._learning_rate = learning_rate
        self.params = params
        self.steps = torch.zeros(())
        """Steps made, as a number."""
        self.first_moment = torch.zeros_like(params)
        self.second_moment = torch.zeros_like(params)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state by name: the tensors themselves, no copies."""
        return {
            "adam_steps": self.steps,
            "first_moment": self.first_moment,
            "second_moment": self.second_moment,
        }

    def descend(self, gradient: Tensor, factor: float = 1.0) -> None:
        """Make one step with the learning rate times `factor`; the gradient must be finite."""
        adam(
            [self.params],
            [gradient],
            [self.first_moment],
            [self.second_moment],
            [],
            [self.steps],
            fused=True,
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=factor * self._learning_rate,
            weight_decay=0.0,
            eps=_EPSILON,
            maximize=False,
        )

    def descend_if_finite(self, gradient: Tensor, factor: float = 1.0) -> bool:
        """Make one step, if `is_finite_squared`; return whether it was."""
        is_finite = is_finite_squared(gradient)
        if is_finite:
            self.descend(gradient, factor)
        return is_finite

    def descend_compiled(
        self, gradient: NDArray[np.float32], *, factor: float = 1.0, limit: float = 0.0
    ) -> bool:
        """Do what `descend_if_finite` does in one kernel.

        Needs numba (the extra "fast").

        Args:
            gradient: of the parameters' shape.
            factor: on the learning rate.
            limit: norm that the gradient is cut to; 0: not cut.
        """
        params, *state = self._arrays()
        constants = (factor * self._learning_rate, *_BETAS, _EPSILON)
        return _kernels().descend(params, gradient.reshape(-1), *state, *constants, limit)

    def descend_mean_compiled(
        self, gradients: NDArray[np.float32], chosen: NDArray[np.int64]
    ) -> float:
        """Make a step by the mean of some gradients in one kernel; return the mean's norm.

        Needs numba (the extra "fast").

        Args:
            gradients: [gradient, param], finite where chosen.
            chosen: rows, summed in float64 in this order; at least one.
        """
        constants = (self._learning_rate, *_BETAS, _EPSILON)
        return _kernels().combine(gradients, chosen, *self._arrays(), *constants)

    def _arrays(self) -> tuple[_Array, _Array, _Array, _Array]:
        """Return parameters, moments and steps as the flat arrays that kernels take and change."""
        return (
            self.params.numpy().reshape(-1),
            self.first_moment.numpy().reshape(-1),
            self.second_moment.numpy().reshape(-1),
            self.steps.numpy().reshape(1),
        )


def is_finite_squared(gradient: Tensor) -> bool:
    """Return whether the gradient may enter Adam: its squares are finite, and so is their sum.

    Adam squares it, and a second moment that became infinite would stop its entry for good.
    """
    return bool(torch.isfinite(gradient.square().sum()))
