"""What a path is, told by its content and not by its name.

Knows the outermost mark of each thing mgrl writes; whether the rest is whole is for others to say.
"""

import json
from pathlib import Path
from typing import Literal, cast

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.run_dir.layout import is_run_directory
from mgrl_cli.run_dir.manifest import MANIFEST_NAME, position_of

Kind = Literal["buffer", "agent", "run", "checkpoint", "objective"]
_EXPECTED = (
    "expected a run directory, a checkpoint, a buffer.zarr, one agent's group in it or an "
    "objective file"
)
_MAX_METADATA_BYTES = 2**20
_SAFETENSORS_PREFIX_BYTES = 8
"""Length of the header, before the header itself, which is JSON."""
_RUNS_NAMED = 5


def recognise(path: Path) -> Kind:
    """Return what `path` is.

    Raises:
        FileError: missing, empty, or nothing that mgrl writes.
        StorageError: the operating system refused.
    """
    try:
        if path.is_file():
            return _recognise_file(path)
        if path.is_dir():
            return _recognise_directory(path)
    except OSError as error:
        raise StorageError(f"cannot read '{path}': {error.strerror}; check permissions") from error
    raise FileError(f"'{path}' does not exist, {_EXPECTED}; check the path")


def _recognise_file(path: Path) -> Kind:
    with path.open("rb") as file:
        start = file.read(_SAFETENSORS_PREFIX_BYTES + 1)
    if start[_SAFETENSORS_PREFIX_BYTES:] != b"{":
        raise FileError(f"'{path}' is no file that mgrl can look into, {_EXPECTED}")
    return "objective"


def _recognise_directory(path: Path) -> Kind:
    if (path / "config.toml").is_file() or any((path / "metrics").glob("agent-*.jsonl")):
        return "run"
    if (path / MANIFEST_NAME).is_file():
        return "checkpoint"
    # Validations are named by their round too, but hold runs.
    is_validation = any(map(is_run_directory, path.iterdir()))
    if position_of(path.resolve().name) is not None and not is_validation:
        return "checkpoint"  # without its manifest; reading it says so
    if (path / "zarr.json").is_file():
        return _recognise_zarr(path)
    if any(path.glob("agent-*/zarr.json")):
        return "buffer"  # its own zarr.json is lost; opening it says so
    raise FileError(f"'{path}' is {_describe_foreign(path)}, {_EXPECTED}")


def _recognise_zarr(path: Path) -> Kind:
    with (path / "zarr.json").open("rb") as file:
        content = file.read(_MAX_METADATA_BYTES)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FileError(f"'{path / 'zarr.json'}' is damaged; restore it from a copy") from error
    metadata = cast("dict[str, object]", document) if isinstance(document, dict) else {}
    if metadata.get("node_type") != "group":
        raise FileError(f"'{path}' is no Zarr group, {_EXPECTED}")
    attributes = metadata.get("attributes")
    return "agent" if isinstance(attributes, dict) and "format" in attributes else "buffer"


def _describe_foreign(path: Path) -> str:
    children = sorted(path.iterdir())
    runs = [child.name for child in children if is_run_directory(child)]
    if runs:
        named = ", ".join(runs[-_RUNS_NAMED:])
        return f"a directory of runs (name one of them, such as {named})"
    return "a directory without anything that mgrl wrote" if children else "an empty directory"
