"""Which modules can really be imported: being found is not enough.

As a probe it imports them one after the other; where one ends the process or hangs, the caller
starts another probe with the rest. Knows nothing of what the modules are for, but two: torch tells
about its build, numba about the kernels' cache.
"""

import importlib.util
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mgrl_cli.diagnosis.check import describe_error
from mgrl_cli.diagnosis.kernels import measure_kernels
from mgrl_cli.diagnosis.probe import Probe, reporter

_LONGEST_IMPORT_S = 9
_MODULE = "mgrl_cli.diagnosis.imports"
_TORCH, _KERNELS = "torch build", "kernels"


@dataclass(frozen=True, slots=True)
class Imported:
    """How importing one module went."""

    is_found: bool
    problem: str = ""
    """Why it cannot be used, on one line; empty where it can."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """How all imports went."""

    modules: dict[str, Imported]
    """Those whose import had an end, good or bad; the others had no time."""
    torch: dict[str, Any] | None
    """cuda and hip (version or None) and capability (vector instructions) of torch's build."""
    kernels: dict[str, Any] | None
    """See `measure_kernels`."""


def start_import_probe(modules: Sequence[str], *, show_errors: bool) -> Probe:
    """Start importing `modules`, in this order."""
    return Probe(_MODULE, *modules, show_errors=show_errors)


def collect_imports(
    probe: Probe, modules: Sequence[str], deadline_s: float, *, show_errors: bool
) -> ImportReport:
    """Return how the imports went; where one broke the probe, the rest go to another.

    Args:
        probe: from `start_import_probe` with the same modules.
        modules: what is imported.
        deadline_s: on the clock of `time.monotonic`; later imports are not tried.
        show_errors: let probes write to our stderr.
    """
    report = probe.collect(deadline_s)
    facts = report.facts
    while True:
        remaining = [module for module in modules if module not in facts]
        if not remaining or time.monotonic() >= deadline_s:
            break
        facts[remaining[0]] = {"is_found": True, "problem": _obituary(report.ending)}
        if remaining[1:]:
            with start_import_probe(remaining[1:], show_errors=show_errors) as next_probe:
                report = next_probe.collect(deadline_s)
            facts.update(report.facts)
    return ImportReport(
        {module: Imported(**facts[module]) for module in modules if module in facts},
        facts.get(_TORCH),
        facts.get(_KERNELS),
    )


def _obituary(ending: str) -> str:
    """Return what is wrong with a module whose import ended a probe."""
    if ending == "was killed by SIGALRM":
        return f"its import did not end within {_LONGEST_IMPORT_S} s"
    return f"its import {ending or 'ended the process'}"


def probe_imports(modules: Sequence[str], report: Callable[[str, object], None]) -> None:
    """Report for each module whether it is found and what is wrong with it."""
    for module in modules:
        # Ends the process even if the import hangs inside a C library.
        signal.alarm(_LONGEST_IMPORT_S)
        is_found, problem = _try_import(module)
        report(module, {"is_found": is_found, "problem": problem})
        if module == "torch" and not problem and is_found:
            report(_TORCH, _torch_build())
        if module == "numba" and not problem and is_found:
            report(_KERNELS, measure_kernels())
    signal.alarm(0)


def _try_import(module: str) -> tuple[bool, str]:
    """Return whether the module is found and what is wrong with it."""
    try:
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            return False, ""
        importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a broken package can raise anything
        return True, describe_error(error)
    return True, ""


def _torch_build() -> dict[str, Any]:
    import torch

    return {
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


if __name__ == "__main__":
    probe_imports(sys.argv[1:], reporter())
