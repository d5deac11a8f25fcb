"""What figures were measured on: enough to judge them, nothing that tells whose machine it is."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mgrl_cli.diagnosis.hardware import measure_hardware
from mgrl_cli.run_dir.build import this_build

_PEERS = ("higher", "stable-baselines3", "torchrl", "tensordict")
_ROOT = Path(__file__).parent.parent


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory, load, versions and commit, for JSON.

    Call before anything is measured: the load is that of the last minute.
    """
    hardware, build = measure_hardware(), this_build()
    return {
        "processor": build.processor,
        "architecture": build.architecture,
        "vector_instructions": build.cpu_capability,
        "cores": hardware.usable_cores,
        "memory_gib": round(hardware.total_bytes / 2**30, 1),
        "load_before": hardware.load,
        "python": build.python,
        "packages": build.packages | _peer_versions(),
        "commit": _commit(),
    }


def _peer_versions() -> dict[str, str]:
    versions: dict[str, str] = {}
    for package in _PEERS:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _commit() -> str | None:
    """Return the checked-out commit, marked where files differ from it; None without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        told = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return told.stdout.strip()
