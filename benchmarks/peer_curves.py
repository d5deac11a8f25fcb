"""Learning curves of stable-baselines3's TD3, evaluated as the agents of mgrl are.

    python -m benchmarks.peer_curves --env hopper --steps 100000 --out peer --against runs/td3

The other half of the comparison is a run of `mgrl baseline td3` with the same environment, steps
and settings; `--against` draws both and prints the ratio of their mean areas under the curve, over
the env steps that all curves cover (`--floor`: above what a random policy gets, where returns have
no zero of their own). TD3's settings are those of its authors' code (256-256, batches
of 256, learning rate 3e-4), the loop is the library's own: one update per env step, none in the
random phase. Evaluation takes the episodes that `mgrl baseline` takes, seeds included. One CSV per
seed; a seed whose file is there is not trained again, and a file of another environment, length or
interval is refused. The files do not tell `--random-steps`: keep it with the directory.
"""

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, final

import gymnasium
import numpy as np
import torch
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise

from envs.registry import ALIASES, make
from mgrl_cli.agents.episodes import play_noise_free
from mgrl_cli.agents.streams import Streams, draw_seed
from mgrl_cli.errors import UsageError
from mgrl_cli.plots.curves import plot_learning_curves
from mgrl_cli.run_dir.csv_table import write_csv_table
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.metrics import EvaluationRow, read_evaluations
from mgrl_cli.statistics import Estimate, area_under_curve, ratio_of_means

RULE = "td3 (stable-baselines3)"
EVALUATION_EPISODES = 10
RESAMPLES = 10_000


@final
class Evaluations(BaseCallback):
    """Noise-free episodes at every multiple of an interval, on an environment of their own."""

    def __init__(self, env: str, seed: int, interval: int) -> None:
        super().__init__()
        self.rows: list[EvaluationRow] = []
        self._name = env
        self._environment = make(env, {}, {})
        self._seed = seed
        self._interval = interval
        self._stream = Streams(0, seed).evaluation
        self._returns: list[float] = []
        self._return = 0.0

    def _on_step(self) -> bool:
        self._return += float(self.locals["rewards"][0])
        if self.locals["dones"][0]:
            self._returns.append(self._return)
            self._return = 0.0
        if self.num_timesteps % self._interval == 0:
            self._evaluate()
        return True

    def _evaluate(self) -> None:
        seeds = [draw_seed(self._stream) for _ in range(EVALUATION_EPISODES)]
        returns = [
            play_noise_free(self._environment, self._act, seed, lambda: None) for seed in seeds
        ]
        row = EvaluationRow(
            rule=RULE,
            environment=self._name,
            seed=self._seed,
            env_steps=self.num_timesteps,
            evaluation_return=float(np.mean(returns)),
            training_return=float(np.mean(self._returns)) if self._returns else float("nan"),
        )
        self._returns.clear()
        self.rows.append(row)
        print(row, file=sys.stderr, flush=True)

    def _act(self, obs: np.ndarray) -> np.ndarray:
        policy = self.model.policy
        action, _ = policy.predict(obs, deterministic=True)
        return policy.scale_action(action).astype(np.float32)


def train(env: str, seed: int, options: argparse.Namespace) -> list[EvaluationRow]:
    """Train one agent and return its evaluations."""
    environment = gymnasium.make(ALIASES.get(env, env))
    noise = np.zeros(environment.action_space.shape or ())
    settings: dict[str, Any] = {
        "learning_rate": 3e-4,
        "batch_size": 256,
        "train_freq": 1,
        "gradient_steps": 1,
        "policy_kwargs": {"net_arch": [256, 256]},
    }
    model = TD3(
        "MlpPolicy",
        environment,
        learning_starts=options.random_steps,
        buffer_size=min(1_000_000, options.steps),
        action_noise=NormalActionNoise(noise, noise + 0.1),
        seed=seed,
        device="cpu",
        **settings,
    )
    evaluations = Evaluations(env, seed, options.interval)
    model.learn(options.steps, callback=evaluations)
    return evaluations.rows


def read(path: Path) -> list[EvaluationRow]:
    """Return the rows of one seed.

    Raises:
        UsageError: the file is no such table, or only half of one.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                EvaluationRow(
                    rule=row["rule"],
                    environment=row["environment"],
                    seed=int(row["seed"]),
                    env_steps=int(row["env_steps"]),
                    evaluation_return=float(row["evaluation_return"]),
                    training_return=float(row["training_return"] or "nan"),
                )
                for row in csv.DictReader(file)
            ]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"'{path}' is no table of one seed: {error}; remove it") from error


def write(rows: Sequence[EvaluationRow], path: Path) -> None:
    """Write the rows of one seed, whole or not at all: a file that is there counts as trained."""
    write_csv_table([field.name for field in fields(EvaluationRow)], map(astuple, rows), path)


def check(
    rows: Sequence[EvaluationRow], path: Path, seed: int, options: argparse.Namespace
) -> None:
    """Refuse rows that are not what training this seed with these options gives.

    Raises:
        UsageError: another rule, environment, seed, number of env steps or interval.
    """
    found = [(row.rule, row.environment, row.seed, row.env_steps) for row in rows]
    steps = range(options.interval, options.steps + 1, options.interval)
    if found != [(RULE, options.env, seed, it) for it in steps]:
        raise UsageError(
            f"'{path}' is not of --env {options.env} --steps {options.steps} --interval "
            f"{options.interval} and seed {seed}; give another --out, or remove it"
        )


def rows_of_td3(rows: Iterable[EvaluationRow], env: str, source: Path) -> list[EvaluationRow]:
    """Return those rows of a run that may be compared.

    Raises:
        UsageError: there are none.
    """
    found = [
        row
        for row in rows
        if row.rule == "td3"
        and ALIASES.get(row.environment, row.environment) == ALIASES.get(env, env)
    ]
    if not found:
        raise UsageError(f"run '{source}' has no evaluation of td3 on {env}; give --against one")
    return found


def areas(rows: Sequence[EvaluationRow], start: int, end: int) -> np.ndarray:
    """Return every seed's area under its curve between two env steps, linear in between."""
    grid = np.linspace(start, end, 501)
    curves: list[np.ndarray] = []
    for seed in sorted({row.seed for row in rows}):
        own = [row for row in rows if row.seed == seed]
        steps = [row.env_steps for row in own]
        curves.append(np.interp(grid, steps, [row.evaluation_return for row in own]))
    return area_under_curve(grid, np.stack(curves))


def ratio(
    ours: Sequence[EvaluationRow], peers: Sequence[EvaluationRow], floor: float = 0.0
) -> Estimate:
    """Return the ratio of mean areas under the curve, over the env steps that all curves cover.

    Args:
        ours: of mgrl.
        peers: of the other implementation.
        floor: return that counts as nothing, such as a random policy's: subtracted from both.

    Raises:
        UsageError: the peers' mean, or that of a resample, does not lie above `floor`.
    """
    curves = [
        [row.env_steps for row in rows if row.seed == seed]
        for rows in (ours, peers)
        for seed in {row.seed for row in rows}
    ]
    span = max(min(steps) for steps in curves), min(max(steps) for steps in curves)
    return ratio_of_means(
        areas(ours, *span) - floor,
        areas(peers, *span) - floor,
        np.random.default_rng(0),
        RESAMPLES,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train every seed whose file is not there yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer_curves", description=__doc__)
    parser.add_argument("--env", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--random-steps", type=int, default=10_000)
    parser.add_argument("--interval", type=int, default=5000, help="env steps between evaluations")
    parser.add_argument("--out", type=Path, required=True, help="directory")
    parser.add_argument("--against", type=Path, help="run of mgrl to compare with")
    parser.add_argument("--floor", type=float, default=0.0, help="return of a random policy [0]")
    options = parser.parse_args(arguments)
    try:
        compare(options)
    except UsageError as error:
        parser.error(str(error))
    return 0


def compare(options: argparse.Namespace) -> None:
    """Train what is missing, then compare where a run is given.

    Raises:
        UsageError: what is there is of something else.
    """
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    paths = {seed: options.out / f"seed-{seed}.csv" for seed in range(options.seeds)}
    for seed, path in paths.items():
        if path.exists():
            check(read(path), path, seed, options)
    for seed, path in paths.items():
        if not path.exists():
            write(train(options.env, seed, options), path)
    if options.against is not None:
        peers = [row for path in paths.values() for row in read(path)]
        ours = rows_of_td3(
            read_evaluations(RunDirectory(options.against)), options.env, options.against
        )
        title = f"td3 on {options.env}"
        plot_learning_curves([*ours, *peers], options.out / "curves.png", title=title)
        print("ours / stable-baselines3:", ratio(ours, peers, options.floor))


if __name__ == "__main__":
    sys.exit(main())
