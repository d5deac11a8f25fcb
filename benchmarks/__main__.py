"""Run benchmarks and report: `python -m benchmarks [NAME...] [--smoke] [--json FILE]`.

Exit codes: 0 measured (whether targets are met or not, the report says it), 1 a check failed or,
with --smoke, a figure is far below its reference, 2 something to measure against is not installed.
"""

import argparse
import importlib
import importlib.util
import json
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.machine import describe_machine
from benchmarks.measure import Effort, Result

BENCHMARKS = {
    "meta_gradient": "the meta-gradient against a plain double backward and higher",
    "agent_step": "a whole update against plain PyTorch, and as a share of the core's peak",
    "sampling": "a batch of windows against torchrl and a NumPy loop",
    "end_to_end": "an agent with its environment against stable-baselines3",
    "workers": "two processes in lock-step against two on their own",
    "exchange": "the meeting of agents against a barrier with a reduction",
    "overhead": "what recording, checks and views cost a run",
    "startup": "how soon the command line answers",
    "memory": "what an agent occupies",
}
SMOKE = ("meta_gradient", "agent_step", "sampling", "exchange")
"""What --smoke measures: all of it without a peer package."""
REFERENCES = Path(__file__).with_name("smoke.toml")
TOLERANCE = 0.7
"""A figure may be this share of its reference (or its reference be this share of it)."""


class Outcome(NamedTuple):
    """What a call of the program measured."""

    results: list[Result]
    failures: list[str]
    """What did not compute the same, or got far worse."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, report and return the exit code."""
    options = _parse(arguments)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    effort = Effort.SMOKE if options.smoke else Effort.FULL
    names = options.names or (SMOKE if options.smoke else tuple(BENCHMARKS))
    machine = describe_machine()
    began_s = time.perf_counter()
    try:
        modules = {name: _load(name, effort) for name in names}
    except ImportError as error:
        console.print(_missing(error))
        return 2
    outcome = Outcome([], [])
    for name, module in modules.items():
        try:
            _measure(name, module.run, effort, outcome, console)
        except ImportError as error:
            console.print(_missing(error))
            return 2
    if options.smoke:
        outcome.failures.extend(compare(outcome.results, read_references()))
    Console(highlight=False).print(table(outcome.results))
    took_s = time.perf_counter() - began_s
    if options.json is not None:
        _write(options.json, machine, effort, took_s, outcome)
    for failure in outcome.failures:
        console.print(f"failed: {failure}")
    met = sum(result.is_met for result in outcome.results)
    console.print(f"{met} of {len(outcome.results)} targets met, {took_s:.0f} s")
    return 1 if outcome.failures else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    listed = "\n".join(f"  {name:14} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Measure mgrl against what it replaces.\n\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; default: all")
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="a minute, no peer packages; fail where a figure is far below its reference",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    options = parser.parse_args(arguments)
    known = SMOKE if options.smoke else tuple(BENCHMARKS)
    for name in options.names:
        if name not in known:
            parser.error(f"unknown benchmark '{name}', expected: {', '.join(known)}")
    return options


def _load(name: str, effort: Effort) -> ModuleType:
    """Return a benchmark's module.

    Raises:
        ImportError: a package it needs, now or later, is not installed.
    """
    module = importlib.import_module(f"benchmarks.{name}")
    peers: tuple[str, ...] = getattr(module, "PEERS", ()) if effort is Effort.FULL else ()
    for peer in peers:
        if importlib.util.find_spec(peer) is None:
            raise ImportError(f"No module named '{peer}'", name=peer)
    return module


def _missing(error: ImportError) -> str:
    return f"cannot measure: {error}; install what is compared: pip install -e '.[bench]'"


def _measure(
    name: str,
    run: Callable[[Effort], Iterator[Result]],
    effort: Effort,
    outcome: Outcome,
    console: Console,
) -> None:
    """Add a benchmark's results to the outcome, or that its check failed."""
    console.print(f"{name}: {BENCHMARKS[name]}")
    try:
        for result in run(effort):
            outcome.results.append(result)
            console.print(f"  {result.setting}: {_value(result)} {result.figure}")
    except AssertionError as error:
        outcome.failures.append(f"{name}: {error}")


def compare(results: Sequence[Result], references: dict[str, Any]) -> list[str]:
    """Return a line for every result that is far worse than its reference, or has none."""
    problems: list[str] = []
    for result in results:
        key = reference_key(result)
        reference = references.get(result.benchmark, {}).get(key)
        if reference is None:
            problems.append(f"{result.benchmark}: no reference for '{key}' = {result.value:.3g}")
        elif is_far_worse(result, reference):
            problems.append(
                f"{result.benchmark}: {key}: {result.value:.3g}, reference {reference:.3g}"
            )
    return problems


def is_far_worse(result: Result, reference: float) -> bool:
    """Return whether a result is out of its reference's tolerance, on the wrong side."""
    if result.direction == "at least":
        return result.value < TOLERANCE * reference
    return TOLERANCE * result.value > reference


def reference_key(result: Result) -> str:
    """Return the name of a result's reference value."""
    return f"{result.figure} ({result.setting})"


def read_references() -> dict[str, Any]:
    """Return benchmark → key → value."""
    return tomllib.loads(REFERENCES.read_text(encoding="utf-8"))


def table(results: Sequence[Result]) -> Table:
    """Return the report."""
    report = Table(show_lines=True)
    report.add_column("what", no_wrap=True)
    report.add_column("figure, setting, times, check", overflow="fold")
    for heading in ("value (quartiles)", "target", "met"):
        report.add_column(heading)
    for result in results:
        times = ", ".join(f"{name} {ms:.3g} ms" for name, ms in result.milliseconds.items())
        lines = (result.figure, result.setting, times, result.check)
        report.add_row(
            result.benchmark,
            escape("\n".join(line for line in lines if line)),
            _value(result),
            f"{result.direction} {result.target:g}",
            "yes" if result.is_met else "NO",
        )
    return report


def _value(result: Result) -> str:
    if result.spread is None:
        return f"{result.value:.3g}"
    low, high = result.spread
    return f"{result.value:.3g} ({low:.3g} to {high:.3g})"


def _write(
    path: Path, machine: dict[str, Any], effort: Effort, took_s: float, outcome: Outcome
) -> None:
    document = {
        "machine": machine,
        "effort": effort.value,
        "took_s": round(took_s, 1),
        "failures": outcome.failures,
        "results": [{**asdict(result), "is_met": result.is_met} for result in outcome.results],
    }
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
