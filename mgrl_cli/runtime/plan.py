"""What a run is made of, decided before anything starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mgrl_cli.agents.population import AgentSpec
from mgrl_cli.algorithm.objective_network import ObjectiveShape
from mgrl_cli.config import RunConfig
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.runtime.validation import Validator


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """A run: what it is made of, wherever it stands."""

    config: RunConfig
    run: RunDirectory
    specs: Sequence[AgentSpec]
    shape: ObjectiveShape
    objective_params: Mapping[int, NDArray[np.float32]]
    """Frozen parameters of each agent; empty where α is meta-learned from `initial_params`."""
    initial_params: Tensor | None
    """α to start meta-training from; None where the objective is frozen."""
    workers: int
    """Processes; 0 runs everything in this one."""
    validator: Validator | None = None
    """Makes the validations; None where the run has none."""
