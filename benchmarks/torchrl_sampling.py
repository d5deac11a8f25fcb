"""torchrl's replay for the benchmark `sampling`, in the settings in which it is fastest here."""

import logging
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from tensordict import TensorDict
from torchrl.data import (
    LazyMemmapStorage,
    LazyTensorStorage,
    SliceSampler,
    TensorDictReplayBuffer,
)

from mgrl_cli.algorithm.batches import Windows

if TYPE_CHECKING:
    from benchmarks.sampling import Stored


def fastest_torchrl(
    stored: "Stored", batch: int, steps: int
) -> tuple[str, Callable[[], TensorDict]]:
    """Return the fastest way to draw batches of windows, with its name.

    Args:
        stored: what the replay is to hold.
        batch: windows of a batch.
        steps: steps of a window.
    """
    logging.getLogger("torchrl").setLevel(logging.WARNING)
    best: tuple[float, str, Callable[[], TensorDict]] | None = None
    for name, draw in _candidates(stored, batch, steps):
        typical_s = _typical_s(draw)
        if best is None or typical_s < best[0]:
            best = typical_s, name, draw
    assert best is not None
    return best[1:]


def windows_of(rows: TensorDict, batch: int) -> Windows:
    """Return a drawn batch in our layout, having checked that successors are stored twice alike."""
    drawn: Any = rows.reshape(batch, -1)
    obs, successor = drawn["observation"], drawn["next", "observation"]
    assert torch.equal(obs[:, 1:], successor[:, :-1]), "torchrl: steps are not consecutive"
    terminated = drawn["next", "terminated"].squeeze(-1)
    tensors = (
        torch.cat([obs, successor[:, -1:]], dim=1),
        drawn["action"],
        drawn["next", "reward"].squeeze(-1),
        terminated,
        torch.ones_like(terminated),
    )
    return Windows(*(tensor.numpy() for tensor in tensors))


def _candidates(
    stored: "Stored", batch: int, steps: int
) -> Iterator[tuple[str, Callable[[], TensorDict]]]:
    data = _tensordict(stored)
    # The marks that a sampler writes into a batch cost time, and windows need none.
    lean: dict[str, Any] = {"truncated_key": None, "init_key": None}
    has_compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    keys: tuple[dict[str, Any], ...] = ({"traj_key": "episode"}, {"end_key": ("next", "done")})
    for storage_type in (LazyTensorStorage, LazyMemmapStorage):
        storage = storage_type(len(data))
        storage.set(range(len(data)), data)
        for key in keys:
            for compiles in (False, True) if has_compiler else (False,):
                sampler = SliceSampler(
                    num_slices=batch, cache_values=True, compile=compiles, **key, **lean
                )
                replay = TensorDictReplayBuffer(
                    storage=storage, sampler=sampler, batch_size=batch * steps
                )
                (key_name,) = key
                name = f"{storage_type.__name__}, {key_name}, cached"
                yield f"{name}, compiled" if compiles else name, replay.sample


def _tensordict(stored: "Stored") -> TensorDict:
    """Return all steps in torchrl's layout."""
    episodes, steps = stored.reward.shape
    terminated = torch.from_numpy(stored.terminated).unsqueeze(-1)
    truncated = torch.from_numpy(stored.truncated).unsqueeze(-1)
    obs = torch.from_numpy(stored.obs)
    return TensorDict(
        {
            "observation": obs[:, :-1],
            "action": torch.from_numpy(stored.action),
            "episode": torch.arange(episodes).unsqueeze(-1).expand(episodes, steps),
            "next": {
                "observation": obs[:, 1:],
                "reward": torch.from_numpy(stored.reward).unsqueeze(-1),
                "done": terminated | truncated,
                "terminated": terminated,
                "truncated": truncated,
            },
        },
        batch_size=[episodes, steps],
    ).flatten(0, 1)


def _typical_s(draw: Callable[[], TensorDict]) -> float:
    """Return the median time of a draw once it is warm."""
    for _ in range(10):
        draw()
    times_s: list[float] = []
    for _ in range(50):
        began_s = time.perf_counter()
        draw()
        times_s.append(time.perf_counter() - began_s)
    return statistics.median(times_s)
