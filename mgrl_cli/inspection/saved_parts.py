"""The files of a checkpoint, read for a look at them: nothing is restored from what comes back.

What a checkpoint's manifest says of a file, its size and digest, is `run_dir.checkpoints`' concern.
"""

from pathlib import Path

import torch
from torch import Tensor

from mgrl_cli.agents.saved_agent import AgentRecord, SavedAgent
from mgrl_cli.errors import FileError
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.run_dir.manifest import EXCHANGE_NAME, OBJECTIVE_NAME
from mgrl_cli.run_dir.tensor_file import read_tensor_file

REPLAY_TAIL = "replay."
"""How the names of tensors begin that are the newest rows of an agent's replay."""
LARGEST_PART_BYTES = 2**30
"""Reading takes three times as much memory."""
_WHAT = "checkpoint file"
_PARAMETERS = (".params", ".target")
"""How the names of tensors end that must be finite whatever happened; optimisers may overflow."""


def read_agent(path: Path) -> SavedAgent:
    """Return what a checkpoint holds of an agent.

    Raises:
        FileError: missing, too large, damaged, or with parameters that are not finite.
        StorageError: the operating system refused.
    """
    document, tensors = read_tensor_file(path, what=_WHAT, max_bytes=LARGEST_PART_BYTES)
    for name, tensor in tensors.items():
        if name.endswith(_PARAMETERS) and not torch.isfinite(tensor).all():
            raise FileError(f"'{path}': tensor '{name}' holds numbers that are not finite")
    try:
        return SavedAgent(tensors, AgentRecord.from_document(document))
    except ValueError as error:
        raise FileError(f"'{path}' is damaged, or of another mgrl: {error}") from error


def read_part(path: Path) -> dict[str, Tensor]:
    """Return the tensors in any file of a checkpoint, after checking what it says about itself.

    Raises:
        FileError: missing, too large, damaged, or with parameters that are not finite.
        StorageError: the operating system refused.
    """
    if path.name == OBJECTIVE_NAME:
        return {"params": LearnedObjective.load(path).params}
    if path.name == EXCHANGE_NAME:
        return read_tensor_file(path, what=_WHAT, max_bytes=LARGEST_PART_BYTES)[1]
    return read_agent(path).tensors
