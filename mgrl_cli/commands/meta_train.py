"""`mgrl meta-train`: meta-learn one objective with a population of agents."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mgrl_cli.commands import DebugOption
from mgrl_cli.commands.resume import resume_run
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
    WorkersOption,
    check_device,
    prepare_for_workers,
    progress_line,
    split_list,
    supervision_options,
)
from mgrl_cli.errors import UsageError


def meta_train(
    context: typer.Context,
    *,
    envs: Annotated[
        str | None,
        typer.Option(
            "--envs",
            help="Training environments, e.g. lunar,cheetah or lunar:3,cheetah:1 (with numbers of "
            "agents). Names: mgrl envs.",
        ),
    ] = None,
    agents: Annotated[
        int | None, typer.Option("--agents", help="Population size; agent i trains on i mod E.")
    ] = None,
    steps: StepsOption = None,
    preset: PresetOption = "laptop",
    run: RunOption = None,
    runs_dir: RunsDirOption = Path("runs"),
    seed: SeedOption = None,
    workers: WorkersOption = None,
    max_restarts: MaxRestartsOption = None,
    watch: Annotated[
        str | None,
        typer.Option(
            "--watch",
            help="Test the objective on fresh agents in these environments on the way, and keep "
            "the best as objective-best.safetensors.",
        ),
    ] = None,
    validate_every: Annotated[
        int | None,
        typer.Option("--validate-every", help="Rounds between such tests [10]."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Continue this run instead (see mgrl resume).")
    ] = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
    device: DeviceOption = "cpu",
    quiet: QuietOption = False,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON line per round on stdout.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Meta-train one objective on several environments.

    One worker process per agent; the objective, its history, metrics and all replay go to
    RUNS_DIR/NAME. Example: mgrl meta-train --envs lunar,cheetah
    """
    prepare_for_workers(workers)
    from rich.console import Console

    from mgrl_cli.presets import resolve_config
    from mgrl_cli.run_dir.layout import check_run_name, find_run
    from mgrl_cli.runtime.kernel_cache import prepare_kernels
    from mgrl_cli.runtime.launch import check_environments, claim_run
    from mgrl_cli.runtime.launch import meta_train as launch
    from mgrl_cli.studies.validation import validate
    from mgrl_cli.ui.progress import open_progress

    check_device(device)
    if resume is not None:
        _refuse_settings_beside_resume(context)
        resume_run(find_run(resume, runs_dir), workers=workers, quiet=quiet, json=json)
        return
    settings = resolve_config(
        kind="meta-train",
        preset=preset,
        config_file=config,
        assignments=assignments or (),
        options={
            **_population(envs, agents),
            "steps": steps,
            "seed": seed,
            "validation": _validation(watch, validate_every),
            **supervision_options(max_restarts),
        },
    )
    if validate_every is not None and not settings.validation.envs:
        raise UsageError(
            f"--validate-every {validate_every} without environments to test on; name them with "
            "--watch"
        )
    check_run_name(runs_dir, run)
    say = progress_line(quiet=quiet)
    check_environments(settings, say)
    prepare_kernels(settings, say, workers=workers)
    directory = claim_run(settings, runs_dir, run)
    with open_progress(quiet=quiet, json=json, console=Console(stderr=True)) as progress:
        validator = partial(validate, workers=workers)
        launch(settings, directory, progress, workers=workers, validator=validator)
    if not json:
        typer.echo(f"{directory.objective}")


def _refuse_settings_beside_resume(context: typer.Context) -> None:
    """A resumed run has its settings; an option that looks as if it changed them is a mistake."""
    harmless = {"resume", "runs_dir", "workers", "device", "quiet", "json", "debug"}
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in harmless and source is not None and source.name == "COMMANDLINE":
            raise UsageError(
                f"{parameter.opts[0]} was given beside --resume, expected no settings: "
                "a resumed run has its own; leave it out, or start a new run"
            )


def _population(envs: str | None, agents: int | None) -> dict[str, Any]:
    """Return the settings that `--envs` and `--agents` stand for."""
    if envs is None:
        return {"agents": agents}
    from mgrl_cli.studies.settings import population

    found = population(split_list(envs, "--envs"), "--envs")
    counted = [env["agents"] for env in found if "agents" in env]
    if counted and len(counted) < len(found):
        raise UsageError(
            f"--envs got '{envs}', expected a number of agents for every environment or for none"
        )
    total = sum(counted) or agents
    if agents is not None and total != agents:
        raise UsageError(f"--agents {agents} contradicts --envs '{envs}', which makes {total}")
    return {"envs": found, "agents": total}


def _validation(watch: str | None, every: int | None) -> dict[str, Any]:
    """Return the settings that `--watch` and `--validate-every` stand for."""
    settings: dict[str, Any] = {}
    if watch is not None:
        settings["envs"] = split_list(watch, "--watch")
    if every is not None:
        settings["interval"] = every
    return settings
