"""The whole examination: starts the probes, measures meanwhile, judges everything.

Knows the order of things and how long they may take; knows nothing of the single checks.
"""

import platform
import time
from contextlib import ExitStack
from pathlib import Path

from mgrl_cli.diagnosis.check import Group, examined
from mgrl_cli.diagnosis.files import judge_files
from mgrl_cli.diagnosis.hardware import judge_hardware, measure_hardware
from mgrl_cli.diagnosis.imports import collect_imports, start_import_probe
from mgrl_cli.diagnosis.kernels import judge_kernels
from mgrl_cli.diagnosis.probe import Probe
from mgrl_cli.diagnosis.processes import judge_processes
from mgrl_cli.diagnosis.software import MODULES, installed_versions, judge_software
from mgrl_cli.diagnosis.terminal import TerminalFacts, judge_terminal

_TIME_LIMIT_S = 10.5
"""When probes that still run are ended."""


def examine(
    runs_dir: Path, terminal: TerminalFacts, *, show_errors: bool = False
) -> tuple[Group, ...]:
    """Examine this machine, in about the time that it takes to import torch twice.

    Args:
        runs_dir: where runs would be kept; need not exist, nothing is left in it.
        terminal: what was measured of stderr.
        show_errors: let the probes write tracebacks to stderr.
    """
    deadline_s = time.monotonic() + _TIME_LIMIT_S
    # Before the probes make the machine busy.
    hardware = examined("processor and memory", lambda: judge_hardware(measure_hardware()))
    with ExitStack() as stack:
        imports = stack.enter_context(start_import_probe(MODULES, show_errors=show_errors))
        processes = stack.enter_context(
            Probe("mgrl_cli.diagnosis.processes", show_errors=show_errors)
        )
        files = stack.enter_context(
            Probe(
                "mgrl_cli.diagnosis.files", str(runs_dir), show_errors=show_errors, cleans_up=True
            )
        )
        imported = collect_imports(imports, MODULES, deadline_s, show_errors=show_errors)
        process_report, file_report = processes.collect(deadline_s), files.collect(deadline_s)
    numba = imported.modules.get("numba")
    has_numba = numba is not None and numba.is_found and not numba.problem
    return (
        examined(
            "software",
            lambda: judge_software(imported, installed_versions(), platform.python_version()),
        ),
        hardware,
        examined("files", lambda: judge_files(file_report)),
        examined("processes", lambda: judge_processes(process_report)),
        examined("kernels", lambda: judge_kernels(imported.kernels, has_numba=has_numba)),
        examined("terminal", lambda: judge_terminal(terminal)),
    )
