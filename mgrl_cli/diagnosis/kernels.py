"""Where numba keeps the objective's compiled kernels, and whether they are there.

Knows the names of the kernels' cache files and nothing of what they compute.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mgrl_cli.diagnosis.check import Check, describe_error

_VARIABLE = "NUMBA_CACHE_DIR"


def measure_kernels() -> dict[str, Any]:
    """Return facts on the cache, for a probe: imports torch and numba, compiles nothing.

    numba looks for a directory that it can write, tries each by writing, and takes the first.

    Returns:
        problem: why the kernels cannot be used, "" where they can. Then also:
        directory: where numba keeps them; wanted: where NUMBA_CACHE_DIR asked it to;
        is_compiled: True if all are there and newer than their sources.
    """
    try:
        from mgrl_cli.algorithm.fused.objective import SOURCES
        from mgrl_cli.algorithm.fused.passes import compile_passes
        from mgrl_cli.algorithm.fused.sources import ALGORITHM

        dispatchers: list[Any] = list(compile_passes(""))
        directory = Path(dispatchers[0].stats.cache_path)
        newest_source_s = max((ALGORITHM / name).stat().st_mtime for name in SOURCES)
        compiled_s = [_compiled_at_s(directory, dispatcher) for dispatcher in dispatchers]
    except Exception as error:  # numba can refuse in any way
        return {"problem": describe_error(error)}
    return {
        "problem": "",
        "directory": str(directory),
        "wanted": os.environ.get(_VARIABLE, ""),
        "is_compiled": all(time_s >= newest_source_s for time_s in compiled_s),
    }


def _compiled_at_s(directory: Path, dispatcher: Any) -> float:  # noqa: ANN401 - numba's
    """Return when a kernel's index was last written, 0 if it has none for this Python."""
    function = dispatcher.py_func
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    line = function.__code__.co_firstlineno
    indices = directory.glob(f"passes.*.{function.__name__}-{line}.{version}*.nbi")
    return max((index.stat().st_mtime for index in indices), default=0.0)


def judge_kernels(facts: Mapping[str, Any] | None, *, has_numba: bool) -> Iterator[Check]:
    """Yield the checks on kernels.

    Args:
        facts: from `measure_kernels`, None where it was not called or did not return.
        has_numba: whether numba could be imported.
    """
    if not has_numba:
        yield Check("kernels", "ok", "not used: numba, the extra fast, could not be imported")
        return
    if facts is None:
        remedy = "run mgrl doctor again when the machine is idle"
        yield Check("kernels", "warning", "not known: looking for them had no end", remedy)
        return
    if facts["problem"]:
        yield Check(
            "kernels",
            "missing",
            f"cannot be used: {facts['problem']}",
            f"point {_VARIABLE} to a directory that you can write, or start runs with "
            "--set compiled=false",
        )
        return
    yield _cache(facts["directory"], facts["wanted"])
    finding = "yes" if facts["is_compiled"] else "not yet: the next run spends about a minute on it"
    yield Check("compiled", "ok", finding)


def _cache(directory: str, wanted: str) -> Check:
    if wanted and not Path(directory).is_relative_to(Path(wanted).absolute()):
        return Check(
            "cache",
            "warning",
            f"{directory}, since {_VARIABLE}={wanted} cannot be written",
            f"point {_VARIABLE} to a directory that you can write",
        )
    return Check("cache", "ok", f"{directory} can be written")
