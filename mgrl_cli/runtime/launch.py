"""From settings to a run: check environments, claim the directory, lock it, start it."""

import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.preflight import check_environment
from envs.quiet import quiet_libraries
from envs.registry import make
from mgrl_cli.agents.population import (
    AgentSpec,
    agent_specs,
    fresh_objective,
    objective_shape,
)
from mgrl_cli.agents.streams import random_stream
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork, ObjectiveShape
from mgrl_cli.config import EnvConfig, RunConfig
from mgrl_cli.cores import usable_cores
from mgrl_cli.errors import UsageError
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.run_dir.atomic import remove_unfinished
from mgrl_cli.run_dir.layout import RunDirectory, create_run_directory, refuse_taken
from mgrl_cli.run_dir.lock import locked
from mgrl_cli.run_dir.settings import write_settings
from mgrl_cli.runtime.coordinator import Coordinator, Progress
from mgrl_cli.runtime.plan import RunPlan
from mgrl_cli.runtime.validation import Validator


def check_environments(config: RunConfig, say: Callable[[str], None]) -> None:
    """Play every environment for a moment, where nothing can be lost yet.

    Args:
        config: names them.
        say: told in one line of what is odd about one.

    Raises:
        EnvironmentSetupError: unknown environment, missing extra, unsupported spaces, bad options,
            or it breaks its contract.
        EnvironmentFailure: it raised.
        UsageError: an episode could be longer than the replay.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # `module:Name-v0` may name a module of the user's, here
    with quiet_libraries():
        for env in (*config.envs, *_watched(config)):
            make_one = partial(make, env.id, env.kwargs, env.randomise)
            for warning in check_environment(make_one):
                say(warning)
            made = make_one()
            made.close()
            if made.max_episode_steps > config.replay.capacity:
                raise UsageError(
                    f"replay.capacity={config.replay.capacity} is less than an episode of "
                    f"'{env.id}', expected at least {made.max_episode_steps}"
                )


def _watched(config: RunConfig) -> list[EnvConfig]:
    """Return the environments of the validations that are not trained on."""
    if config.kind != "meta-train":
        return []
    trained = {env.id for env in config.envs}
    return [EnvConfig(id=name) for name in config.validation.envs if name not in trained]


def check_rules(config: RunConfig) -> None:
    """Check that what the run's rules need is installed.

    Raises:
        UsageError: it is not.
    """
    if "ppo" in config.rules and find_spec("stable_baselines3") is None:
        raise UsageError(
            "rule 'ppo' needs a package that is not installed: pip install 'mgrl[baselines]'"
        )


def claim_run(config: RunConfig, runs_dir: Path, name: str | None) -> RunDirectory:
    """Claim a new run directory and write its settings.

    Raises:
        UsageError: the run's name is taken or not usable.
        RunLockedError: another process claims it at this moment.
        StorageError: the directory cannot be written.
    """
    stem = "-".join(env.id.rpartition("/")[2] for env in config.envs)
    if not config.needs_objective:
        stem = f"baseline-{'-'.join(config.rules)}-{stem}"
    elif config.kind == "meta-test":
        stem = f"test-{stem}"
    run = create_run_directory(runs_dir, name, stem)
    with locked(run):
        refuse_taken(run.path)
        remove_unfinished(run.path)
        write_settings(run, config)
    return run


def settings_of_objective(objective: LearnedObjective) -> dict[str, Any]:
    """Return the settings that a frozen objective brings along."""
    metadata = objective.metadata
    return {
        "windows": {"steps": metadata.window_steps},
        "objective": {
            "bound": metadata.bound,
            "terminal_value": metadata.terminal_value,
            "padding_first": metadata.padding_first,
            "without": list(metadata.shape.without),
            "normalise": metadata.shape.normalise,
        },
    }


def check_objective_fits(config: RunConfig, objective: LearnedObjective) -> None:
    """Refuse settings that would change what a frozen objective computes.

    Raises:
        UsageError: a setting differs from the objective's own.
    """
    for key, own in settings_of_objective(objective)["objective"].items():
        given = getattr(config.objective, key)
        if given != own:
            raise UsageError(
                f"objective.{key}={given!r} contradicts the objective, which was trained with "
                f"{own!r}; leave it out"
            )


def meta_train(
    config: RunConfig,
    run: RunDirectory,
    progress: Progress,
    *,
    workers: int | None,
    validator: Validator | None = None,
) -> None:
    """Meta-learn one objective with a population; see `Coordinator.execute` for what it raises.

    Args:
        config: settings.
        run: claimed directory.
        progress: what shows the run.
        workers: processes; None: one per agent, 0: everything in this process.
        validator: makes the validations, where the settings ask for any.
    """
    with locked(run):
        Coordinator(meta_train_plan(config, run, workers, validator), progress).execute()


def meta_test(
    config: RunConfig,
    run: RunDirectory,
    objective: LearnedObjective | None,
    progress: Progress,
    *,
    workers: int | None,
) -> None:
    """Train fresh agents with a frozen objective, hand-written rules, or both.

    See `Coordinator.execute` for what it raises.
    A copy of the objective is kept in the run directory, where a rule needs it.

    Args:
        config: settings.
        run: claimed directory.
        objective: what drives the agents of the rule "learned"; None where no rule is it.
        progress: what shows the run.
        workers: processes; None: one per core, 0: everything in this process.
    """
    with locked(run):
        if not config.needs_objective:
            objective = None  # as it will be when the run is resumed
        if objective is not None:
            objective.save(run.objective)
        Coordinator(meta_test_plan(config, run, objective, workers), progress).execute()


def meta_train_plan(
    config: RunConfig, run: RunDirectory, workers: int | None, validator: Validator | None
) -> RunPlan:
    """Return the plan of a meta-training; arguments as in `meta_train`."""
    specs = agent_specs(config)
    return RunPlan(
        config=config,
        run=run,
        specs=specs,
        shape=objective_shape(config),
        objective_params={},
        initial_params=fresh_objective(config),
        workers=len(specs) if workers is None else workers,
        validator=validator,
    )


def meta_test_plan(
    config: RunConfig, run: RunDirectory, objective: LearnedObjective | None, workers: int | None
) -> RunPlan:
    """Return the plan of a meta-test; arguments as in `meta_test`."""
    specs = agent_specs(config)
    shape = objective_shape(config) if objective is None else objective.metadata.shape
    return RunPlan(
        config=config,
        run=run,
        specs=specs,
        shape=shape,
        objective_params={
            spec.agent_id: _frozen_params(spec, config, shape, objective) for spec in specs
        },
        initial_params=None,
        workers=min(usable_cores(), len(specs)) if workers is None else workers,
    )


def _frozen_params(
    spec: AgentSpec, config: RunConfig, shape: ObjectiveShape, objective: LearnedObjective | None
) -> NDArray[np.float32]:
    """Return the objective parameters of an agent in a meta-test; most rules read none."""
    if spec.rule == "untrained":
        stream = random_stream(config.seed, "objective", spec.seed_index)
        return ObjectiveNetwork(shape).initialise(stream).numpy()
    return np.empty(0, np.float32) if objective is None else objective.params.numpy()
