"""The exchange's part of a checkpoint: everything in it but the objective, a file of its own."""

from torch import Tensor

from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.run_dir.checkpoints import Checkpoint
from mgrl_cli.run_dir.manifest import EXCHANGE_NAME, OBJECTIVE_NAME
from mgrl_cli.run_dir.tensor_file import check_tensors, read_tensor_file, tensor_file_bytes
from mgrl_cli.runtime.exchange import Exchange


def exchange_bytes(exchange: Exchange) -> bytes:
    """Return the content of an exchange's file."""
    return tensor_file_bytes(_tensors(exchange), {"format": "mgrl-exchange"})


def restore_exchange(exchange: Exchange, start: Checkpoint) -> None:
    """Turn a fresh exchange into the one in a checkpoint.

    Raises:
        FileError: the checkpoint does not hold this exchange.
        StorageError: the operating system refused.
    """
    what = "exchange of a checkpoint"
    own = _tensors(exchange)
    path = start.path / EXCHANGE_NAME
    _, tensors = read_tensor_file(path, what=what, max_bytes=2**30)
    check_tensors(
        path,
        tensors,
        {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in own.items()},
        what=what,
    )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])
    exchange.params.copy_(LearnedObjective.load(start.path / OBJECTIVE_NAME).params)


def _tensors(exchange: Exchange) -> dict[str, Tensor]:
    """Return what of the exchange is not in the objective's own file."""
    return {name: tensor for name, tensor in exchange.tensors().items() if name != "params"}
