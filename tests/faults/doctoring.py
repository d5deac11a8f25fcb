"""Files that somebody changed who knows the formats: every digest in them is right again."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mgrl_cli.run_dir.checkpoints import checkpoint_paths
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.tensor_file import tensor_file_bytes

Document = dict[str, Any]


def canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def only_checkpoint(run: RunDirectory) -> Path:
    """Remove all checkpoints but the newest, so that there is none to fall back on."""
    *older, newest = checkpoint_paths(run)
    for path in older:
        shutil.rmtree(path)
    return newest


def doctor_manifest(checkpoint: Path, change: Callable[[Document], object]) -> None:
    """Change a manifest and give it its digest."""
    document = json.loads((checkpoint / "manifest.json").read_bytes())
    change(document)
    document.pop("sha256", None)
    document["sha256"] = sha256(canonical(document))
    (checkpoint / "manifest.json").write_bytes(canonical(document))


def doctor_part(checkpoint: Path, name: str, content: bytes) -> None:
    """Replace a file of a checkpoint and what the manifest says about it."""
    (checkpoint / name).write_bytes(content)
    record = {"bytes": len(content), "sha256": sha256(content)}
    doctor_manifest(checkpoint, lambda document: document["files"].update({name: record}))


def objective_bytes(tensors: Mapping[str, Tensor], document: Document) -> bytes:
    """Return an objective file with both of its digests right."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + b"\0" + tensors[name].contiguous().numpy().tobytes())
    rest = {name: value for name, value in document.items() if name != "metadata_sha256"}
    rest["sha256"] = digest.hexdigest()
    return tensor_file_bytes(tensors, {**rest, "metadata_sha256": sha256(canonical(rest))})
