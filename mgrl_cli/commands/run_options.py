"""Options that every command which starts a run shares."""

from collections.abc import Callable
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from mgrl_cli.errors import UsageError, did_you_mean

StepsOption = Annotated[int | None, typer.Option("--steps", help="Env steps per agent.")]
PresetOption = Annotated[
    str, typer.Option("--preset", help="Settings to start from: smoke, laptop or paper.")
]
RunOption = Annotated[
    str | None,
    typer.Option("--run", help="Name of the run; made up if left out, never overwritten."),
]
RunsDirOption = Annotated[Path, typer.Option("--runs-dir", help="Where runs are kept.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Root of all randomness [0].")]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Worker processes; never changes the results. 0: everything in this process.",
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file with settings; wins over the preset.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="One setting, e.g. critic.learning_rate=1e-3; repeatable, wins over files."
    ),
]
MaxRestartsOption = Annotated[
    int | None,
    typer.Option(
        "--max-restarts",
        min=0,
        help="Deaths in a row that an agent may cause before it is left out [3].",
    ),
]
StuckBelowOption = Annotated[
    float | None,
    typer.Option(
        "--stuck-below",
        help="Count the runs that end below this score; fix it before looking, and give it to mgrl "
        "resume again, which writes the results anew.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu (cuda: not yet).")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


def supervision_options(max_restarts: int | None) -> dict[str, Any]:
    """Return the settings that `--max-restarts` stands for."""
    return {} if max_restarts is None else {"supervision": {"max_restarts": max_restarts}}


def check_device(device: str) -> None:
    """Refuse what does not run yet.

    Raises:
        UsageError: the device is not "cpu".
    """
    if device == "cuda":
        raise UsageError("device 'cuda' is not supported yet; leave --device out to use the CPU")
    if device != "cpu":
        raise UsageError(f"unknown device '{device}', expected cpu")


def prepare_for_workers(workers: int | None) -> None:
    """Begin what worker processes need and takes seconds, before this process does its own part.

    Args:
        workers: what `--workers` says.
    """
    if workers != 0:
        from mgrl_cli.fork_server import start_fork_server

        with suppress(OSError):  # said where the first worker is started
            start_fork_server()


def check_stuck_below(stuck_below: float | None) -> None:
    """Refuse a floor that no score can be compared with, before anything is spent on the run.

    Raises:
        UsageError: it is not finite.
    """
    if stuck_below is not None and not isfinite(stuck_below):
        raise UsageError(f"--stuck-below got {stuck_below}, expected a finite score")


def progress_line(*, quiet: bool) -> Callable[[str], None]:
    """Return what tells the user one line about a run's start."""
    return lambda line: None if quiet else typer.echo(f"mgrl: {line}", err=True)


def split_list(text: str, option: str) -> list[str]:
    """Return the items of a comma-separated option.

    Raises:
        UsageError: an item is empty.
    """
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise UsageError(f"{option} got '{text}', expected names separated by commas")
    return items


def split_rules(text: str, option: str, *, baselines_only: bool = False) -> list[str]:
    """Return the rules of a comma-separated option, each once.

    Args:
        text: what was given.
        option: where.
        baselines_only: refuse the learned objective, which needs a file.

    Raises:
        UsageError: an item is empty, or no such rule.
    """
    from mgrl_cli.config import BASELINES, RULES

    known = BASELINES if baselines_only else RULES
    names = split_list(text, option)
    for name in names:
        if name in known:
            continue
        if name == "learned":
            raise UsageError(
                f"{option} got 'learned', which needs an objective: use mgrl meta-test for it"
            )
        raise UsageError(
            f"{option} got '{name}', expected some of {', '.join(known)}."
            f"{did_you_mean(name, known)}"
        )
    return list(dict.fromkeys(names))
