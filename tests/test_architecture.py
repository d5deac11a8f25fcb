"""Promises about all of the code: the options that scripts rely on, and what no module may do."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from mgrl_cli.cli import COMMANDS, build_app

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path.relative_to(ROOT)
    for package in ("mgrl_cli", "envs")
    for path in (ROOT / package).rglob("*.py")
)

OPTIONS = {
    "": {"--debug", "--help", "--install-completion", "--show-completion", "--version"},
    "meta-train": {
        *("--envs", "--agents", "--steps", "--preset", "--run", "--runs-dir", "--seed"),
        *("--workers", "--config", "--set", "--device", "--quiet", "--json", "--debug", "--help"),
        *("--max-restarts", "--resume", "--watch", "--validate-every"),
    },
    "meta-test": {
        *("--env", "--objective", "--seeds", "--against", "--steps", "--preset", "--run"),
        *("--runs-dir", "--seed", "--workers", "--config", "--set", "--device", "--quiet"),
        *("--max-restarts", "--stuck-below", "--json", "--debug", "--help"),
    },
    "baseline": {
        *("names", "--env", "--seeds", "--steps", "--preset", "--run", "--runs-dir", "--seed"),
        *("--workers", "--config", "--set", "--device", "--quiet", "--max-restarts", "--json"),
        *("--stuck-below", "--debug", "--help"),
    },
    "matrix": {
        *("--train", "--test", "--objectives", "--seeds", "--meta-seeds", "--seed", "--preset"),
        *("--steps", "--train-steps", "--set", "--config", "--run", "--resume", "--runs-dir"),
        *("--jobs", "--quiet", "--json", "--debug", "--help"),
    },
    "progress": {
        *("training", "--env", "--points", "--seeds", "--against", "--steps", "--seed"),
        *("--preset", "--set", "--run", "--resume", "--runs-dir", "--jobs", "--quiet", "--json"),
        *("--debug", "--help"),
    },
    "resume": {
        *("run", "--runs-dir", "--workers", "--quiet", "--stuck-below", "--json", "--debug"),
        "--help",
    },
    "runs": {"--runs-dir", "--json", "--debug", "--help"},
    "verify": {"path", "--json", "--debug", "--help"},
    "inspect": {"path", "--plot", "--json", "--debug", "--help"},
    "plot": {"runs", "--out", "--metric", "--labels", "--runs-dir", "--debug", "--help"},
    "envs": {"--debug", "--help", "--json"},
    "doctor": {"--runs-dir", "--json", "--debug", "--help"},
}
"""Command → its arguments and options. Scripts rely on them: taking one away breaks users."""

CODE_RUNNING_MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
CODE_RUNNING_CALLS = {
    "eval", "exec", "__import__", "torch.load", "torch.save", "yaml.load", "numpy.load", "np.load",
}  # fmt: skip


def parameter_names(command: str) -> set[str]:
    """Return the arguments and long options that `mgrl COMMAND` takes ("" for mgrl itself)."""
    group = typer.main.get_command(build_app(COMMANDS))
    context = typer.Context(group, info_name="mgrl")
    found = group.get_command(context, command) if command else group
    return {
        name
        for parameter in found.get_params(context)
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--") or parameter.param_type_name == "argument"
    }


def syntax_tree(source: Path) -> ast.Module:
    return ast.parse((ROOT / source).read_text(encoding="utf-8"))


def calls(source: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield the dotted name of whatever is called, and the call."""
    for node in ast.walk(syntax_tree(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def imported_modules(source: Path) -> Iterator[str]:
    for node in ast.walk(syntax_tree(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_every_command_is_in_the_snapshot() -> None:
    assert set(OPTIONS) == {"", *COMMANDS}


@pytest.mark.parametrize("command", OPTIONS)
def test_options_are_those_of_the_snapshot(command: str) -> None:
    assert parameter_names(command) == OPTIONS[command]


@pytest.mark.parametrize("command", OPTIONS)
def test_every_command_takes_debug(command: str) -> None:
    assert "--debug" in parameter_names(command)


def test_there_are_sources_to_look_at() -> None:
    assert Path("mgrl_cli/cli.py") in SOURCES
    assert Path("envs/errors.py") in SOURCES


def test_nothing_reads_a_format_that_can_run_code() -> None:
    imports = {
        (str(source), name)
        for source in SOURCES
        for name in imported_modules(source)
        if name.partition(".")[0] in CODE_RUNNING_MODULES
    }
    called = {
        (str(source), name)
        for source in SOURCES
        for name, _ in calls(source)
        if name in CODE_RUNNING_CALLS
    }
    assert imports | called == set()


def test_zarr_is_always_opened_with_an_explicit_mode() -> None:
    """The default mode creates or overwrites: looking at a wrong path would make it a store."""
    without_mode = [
        f"{source}:{call.lineno}"
        for source in SOURCES
        for name, call in calls(source)
        if name.startswith(("zarr.open", "zarr.group"))
        and "mode" not in {keyword.arg for keyword in call.keywords}
    ]
    assert without_mode == []


def test_every_module_says_why_it_exists() -> None:
    docstrings = {str(source): ast.get_docstring(syntax_tree(source)) for source in SOURCES}
    silent = [name for name, text in docstrings.items() if not text or "TODO" in text]
    assert silent == []


def test_no_module_is_longer_than_300_lines() -> None:
    lengths = {str(s): len((ROOT / s).read_text(encoding="utf-8").splitlines()) for s in SOURCES}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
