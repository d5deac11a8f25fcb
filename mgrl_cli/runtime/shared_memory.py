"""Tensors that several processes see, and what to say where the system has no room for them."""

from torch import Tensor

from mgrl_cli.errors import StorageError


def shared(tensor: Tensor) -> Tensor:
    """Move a tensor to shared memory and return it.

    Raises:
        StorageError: shared memory is full, or too many files are open: each such tensor is one.
    """
    try:
        return tensor.share_memory_()
    except RuntimeError as error:  # torch has no class of its own for what the system refuses
        raise StorageError(
            f"cannot share {tensor.nbytes} bytes between processes: {error}; "
            "enlarge /dev/shm (docker run --shm-size=64m) or raise the limit of 'ulimit -n'"
        ) from error
