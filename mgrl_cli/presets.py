"""Where a run's settings come from: preset, then `--config`, then `--set`, then options.

Each later source wins over the earlier ones, key by key; what results is validated once.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mgrl_cli.config import RunConfig, validate_config
from mgrl_cli.errors import FileError, UsageError, did_you_mean

_SMALL_NETWORKS: dict[str, dict[str, Any]] = {
    "policy": {"hidden": 64, "learning_rate": 3e-4, "last_layer_scale": 0.1},
    "critic": {"hidden": 64, "batch": "transitions"},
    "windows": {"batch": 16},
    "objective": {"last_layer": "zero"},
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"steps": 1_000_000, "agents": 20},
    "laptop": {
        **_SMALL_NETWORKS,
        "steps": 30_000,
        "agents": 4,
        "policy": {**_SMALL_NETWORKS["policy"], "pre_activation_limit": 2.0},
        "exploration": {"random_steps": 2000},
        "schedule": {"updates_start": 2000},
        "meta": {
            "anneal_steps": 8000,
            "inner_step": "unit",
            "inner_step_size": 0.03,
            "gradient_scale": "unit",
            "lifetime": 12_000,
        },
    },
    "smoke": {
        **_SMALL_NETWORKS,
        "steps": 1500,
        "agents": 2,
        "policy": {**_SMALL_NETWORKS["policy"], "hidden": 32},
        "critic": {**_SMALL_NETWORKS["critic"], "hidden": 32},
        "windows": {"batch": 8, "steps": 10},
        "exploration": {"random_steps": 500},
        "schedule": {"round_steps": 250, "updates_start": 500},
        "meta": {
            "anneal_steps": 1000,
            "inner_step": "unit",
            "inner_step_size": 0.03,
            "gradient_scale": "unit",
        },
        "evaluation": {"interval": 500, "episodes": 2},
        "vpg": {"epoch_steps": 500},
        "ppo": {"rollout_steps": 512},
    },
}
"""Differences from the paper's settings. `laptop` is what learned something on a few cores."""

META_TEST_STEPS = {"paper": 1_000_000, "laptop": 40_000, "smoke": 1500}
"""Env steps of a meta-test where none are given."""

_LONGEST_SETTINGS = 2**20
"""Characters; twice what the largest population takes."""
_MOST_DOTS = 200


def resolve_config(
    *,
    kind: Literal["meta-train", "meta-test"],
    preset: str,
    base: Mapping[str, Any] | None = None,
    config_file: Path | None = None,
    assignments: Sequence[str] = (),
    options: Mapping[str, Any],
) -> RunConfig:
    """Return the validated settings of a run.

    Args:
        kind: what the run does.
        preset: "smoke", "laptop" or "paper".
        base: settings that follow from an input, such as the window length of an objective; win
            over the preset.
        config_file: TOML with any of the settings; wins over the preset and `base`.
        assignments: "section.key=value" with TOML values; win over the file.
        options: settings given as command-line options (None: not given); win over everything.

    Raises:
        UsageError: unknown preset or key, wrong type, value out of range.
        FileError: the configuration file is missing.
    """
    if preset not in PRESETS:
        known = ", ".join(PRESETS)
        raise UsageError(
            f"unknown preset '{preset}', expected one of {known}.{did_you_mean(preset, PRESETS)}"
        )
    settings: dict[str, Any] = {"kind": kind, "preset": preset}
    _merge(settings, PRESETS[preset])
    if kind == "meta-test":
        settings["steps"] = META_TEST_STEPS[preset]
    else:
        settings["validation"] = {"steps": META_TEST_STEPS[preset]}
    _merge(settings, base or {})
    try:
        if config_file is not None:
            _merge(settings, _without_provenance(_read_toml(config_file)))
        for assignment in assignments:
            _merge(settings, _parse_assignment(assignment))
    except RecursionError as error:
        raise UsageError(
            "--config or --set is nested too deeply, expected section.key = value"
        ) from error
    for key, fixed in (("kind", kind), ("preset", preset)):
        if settings[key] != fixed:
            raise UsageError(
                f"--config or --set got {key} = {settings[key]!r}, expected '{fixed}' or nothing; "
                "the command decides the kind, --preset the preset"
            )
    _merge(settings, {key: value for key, value in options.items() if value is not None})
    _settle_agents(settings, is_free=options.get("agents") is None)
    return validate_config(settings)


def parse_toml(text: str) -> dict[str, Any]:
    """Return a TOML document, also of a stranger's file.

    Raises:
        ValueError: not TOML, or nothing that settings can be.
        RecursionError: nested too deeply.
    """
    if len(text) > _LONGEST_SETTINGS:
        raise ValueError(f"it has {len(text)} characters, expected at most {_LONGEST_SETTINGS}")
    # The parser takes time with the square of the dots in a key: hours for a megabyte.
    most_dots = max((line.count(".") for line in text.splitlines()), default=0)
    if most_dots > _MOST_DOTS:
        raise ValueError(f"a line has {most_dots} dots, expected at most {_MOST_DOTS}; break it")
    return tomllib.loads(text)


def _settle_agents(settings: dict[str, Any], *, is_free: bool) -> None:
    """Derive the number of agents where rules and seeds, or the environments' counts, decide it.

    What does not have the right type is left for the validation to name.
    """
    if settings["kind"] == "meta-test":
        rules, seeds = settings.get("rules", ["learned"]), settings.get("seeds", 1)
        if isinstance(rules, list) and isinstance(seeds, int):
            settings["agents"] = max(1, len(rules) * seeds)
        return
    envs = settings.get("envs")
    if is_free and isinstance(envs, list) and all(isinstance(env, dict) for env in envs):
        counts = [env.get("agents", 0) for env in envs]
        if all(isinstance(count, int) for count in counts) and sum(counts) > 0:
            settings["agents"] = sum(counts)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return parse_toml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileError(f"configuration file '{path}' does not exist; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read configuration file '{path}': {error}") from error
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise UsageError(f"configuration file '{path}' is not TOML: {error}") from error


def _without_provenance(document: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a file; a run's own config.toml can be used again for another run."""
    if "provenance" not in document:
        return document
    own = ("provenance", "kind", "preset")
    return {key: value for key, value in document.items() if key not in own}


def _parse_assignment(assignment: str) -> dict[str, Any]:
    """Return "a.b=value" as {"a": {"b": value}}; a value that is no TOML value is a string."""
    path, separator, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise UsageError(f"--set got '{assignment}', expected section.key=value")
    try:
        document: dict[str, Any] = tomllib.loads(f"value = {text}")
    except ValueError:  # TOMLDecodeError, or a number of thousands of digits
        document = {}
    # Text with a line break may parse as several settings.
    value = document["value"] if document.keys() == {"value"} else text.strip()
    settings: dict[str, Any] = {keys[-1]: value}
    for key in reversed(keys[:-1]):
        settings = {key: settings}
    return settings


def _merge(target: dict[str, Any], source: Mapping[str, Any]) -> None:
    """Overlay `source` on `target`, tables key by key, without sharing nested tables."""
    for key, value in source.items():
        if isinstance(value, Mapping):
            existing = target.get(key)
            table: dict[str, Any] = dict(existing) if isinstance(existing, Mapping) else {}
            _merge(table, value)
            target[key] = table
        else:
            target[key] = value
