"""`mgrl baseline`: train agents with rules that need no objective, as yardsticks."""

from pathlib import Path
from typing import Annotated

import typer

from mgrl_cli.commands import DebugOption, JsonOption
from mgrl_cli.commands.meta_test import run_test
from mgrl_cli.commands.run_options import (
    ConfigOption,
    DeviceOption,
    MaxRestartsOption,
    PresetOption,
    QuietOption,
    RunOption,
    RunsDirOption,
    SeedOption,
    SetOption,
    StepsOption,
    StuckBelowOption,
    WorkersOption,
    check_device,
    prepare_for_workers,
    split_rules,
    supervision_options,
)


def baseline(
    names: Annotated[
        str,
        typer.Argument(
            metavar="NAME[,NAME...]",
            help="ddpg, td3, reinforce, reinforce-is, reinforce-is-clipped, vpg, ppo or untrained.",
        ),
    ],
    *,
    env: Annotated[
        str | None,
        typer.Option("--env", help="Environment (names: mgrl envs), or one in --config."),
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Fresh agents per rule [3].")] = None,
    steps: StepsOption = None,
    preset: PresetOption = "laptop",
    run: RunOption = None,
    runs_dir: RunsDirOption = Path("runs"),
    seed: SeedOption = None,
    workers: WorkersOption = None,
    max_restarts: MaxRestartsOption = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
    device: DeviceOption = "cpu",
    quiet: QuietOption = False,
    stuck_below: StuckBelowOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train fresh agents with hand-written rules on an environment: what to compare with.

    An ordinary test run without an objective: same seeds, env steps, evaluations and files as
    mgrl meta-test gives its rules. Example: mgrl baseline td3,ppo --env hopper
    """
    prepare_for_workers(workers)
    from mgrl_cli.presets import resolve_config

    check_device(device)
    rules = split_rules(names, "NAME", baselines_only=True)
    settings = resolve_config(
        kind="meta-test",
        preset=preset,
        base={"seeds": 3},
        config_file=config,
        assignments=assignments or (),
        options={
            "envs": [{"id": env}] if env is not None else None,
            "rules": rules,
            "seeds": seeds,
            "steps": steps,
            "seed": seed,
            **supervision_options(max_restarts),
        },
    )
    run_test(
        settings,
        None,
        name=run,
        runs_dir=runs_dir,
        workers=workers,
        quiet=quiet,
        json=json,
        stuck_below=stuck_below,
    )
