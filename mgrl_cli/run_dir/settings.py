"""`config.toml`: a run's settings with where they came from."""

import hashlib
import json
import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import tomli_w

from mgrl_cli.config import RunConfig, validate_config
from mgrl_cli.errors import FileError
from mgrl_cli.presets import parse_toml
from mgrl_cli.run_dir.atomic import write_atomically
from mgrl_cli.run_dir.layout import RunDirectory

_PROVENANCE = "provenance"
_PACKAGES = (
    *("mgrl", "torch", "numpy", "numba", "gymnasium", "mujoco", "box2d", "zarr"),
    "stable-baselines3",
)


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that decide results, as far as installed."""
    return {package: found for package in _PACKAGES if (found := _version(package)) is not None}


@cache  # looked up in files at every call, and every round names them in the objective
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_settings(run: RunDirectory, config: RunConfig) -> None:
    """Write the resolved settings, package versions and command line.

    Raises:
        StorageError: the operating system refused.
    """
    document = {
        **config.model_dump(mode="json"),
        _PROVENANCE: {
            # A path need not be UTF-8, TOML must be.
            "command": [word.encode(errors="backslashreplace").decode() for word in sys.argv],
            "python": platform.python_version(),
            "packages": package_versions(),
        },
    }
    write_atomically(run.config, tomli_w.dumps(document).encode())


def settings_sha256(config: RunConfig) -> str:
    """Return a digest of the settings that decide a run's results.

    How often a run is saved and how long its workers are waited for may change on the way.
    """
    deciding = config.model_dump(
        mode="json",
        exclude={"checkpoints": True, "supervision": {"max_restarts", "hang_timeout_s"}},
    )
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def read_settings(run: RunDirectory) -> RunConfig:
    """Return a run's settings.

    Raises:
        FileError: missing or not readable.
        UsageError: a setting is invalid.
    """
    document = _read_document(run)
    document.pop(_PROVENANCE, None)
    return validate_config(document, source=f"'{run.config}'")


def read_versions(run: RunDirectory) -> dict[str, str]:
    """Return what a run was started with: "python" and package → version, as far as recorded.

    Raises:
        FileError: missing or not readable.
    """
    match _read_document(run).get(_PROVENANCE):
        case {"python": str() as python, "packages": dict() as packages}:
            versions = cast("dict[str, object]", packages)
            return {"python": python, **{name: str(found) for name, found in versions.items()}}
        case _:
            return {}


def _read_document(run: RunDirectory) -> dict[str, Any]:
    try:
        return parse_toml(run.config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"cannot read '{run.config}': {error}") from error
