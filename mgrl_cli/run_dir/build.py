"""What decides the last bits of a result besides the settings: packages, processor, threads."""

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import final

import torch
from pydantic import BaseModel, ConfigDict

from mgrl_cli.run_dir.settings import package_versions

THREADS = 1
"""Threads of torch and of the kernels in every worker; another number rounds differently."""
_CPU_INFO = Path("/proc/cpuinfo")


@final
class Build(BaseModel):
    """Where results are exact: two equal builds continue a run with the same bits."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    python: str
    packages: dict[str, str]
    """Versions of what decides results, as far as installed."""
    architecture: str
    processor: str
    """Model, since linear algebra libraries choose their code by it."""
    cpu_capability: str
    """Vector instructions torch uses."""
    threads: int
    device: str

    def differences(self, other: "Build") -> list[str]:
        """Return what differs, each as "name ours → theirs"."""
        return list(_differences(self.model_dump(), other.model_dump()))


def this_build() -> Build:
    """Return the build of this process."""
    return Build(
        python=platform.python_version(),
        packages=package_versions(),
        architecture=platform.machine(),
        processor=_processor(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        threads=THREADS,
        device="cpu",
    )


def _processor() -> str:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return platform.processor()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())


def _differences(ours: dict[str, object], theirs: dict[str, object]) -> Iterator[str]:
    for name in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(name), theirs.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b)
        elif a != b:
            yield f"{_shown(name)} {_shown(a)} → {_shown(b)}"


def _shown(value: object) -> str:
    """Return a value as one short line, whatever the manifest of a stranger's run says."""
    text = "none" if value is None or value == "" else str(value)
    return (text if text.isprintable() else ascii(text))[:80]
