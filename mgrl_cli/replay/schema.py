"""What is stored of an episode: one table, shared by the log, its reader and the ring.

The table is the file format: a change to it needs a new `FORMAT_VERSION`. It must not know how the
arrays are written, sampled or checked.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy import ndarray

from mgrl_cli.errors import UsageError

FORMAT = "mgrl-replay"
FORMAT_VERSION = 1
CHUNK_ROWS = 4096
"""Rows of one Zarr chunk, in every array."""
CHECKSUM_BYTES = 4
"""Chunks are the plain array bytes and their CRC-32C, so a whole chunk has exactly one size."""
MAX_ROWS = 2**40
"""Most rows an array may claim: no disk holds more, and what claims more was tampered with."""
MAX_NUMBERS = 2**16
"""Most numbers in an observation or an action, which bounds a chunk to 1 GiB."""


class BehaviourKind(IntEnum):
    """What chose an action."""

    RANDOM = 0
    """Uniform in the action box; `behaviour_mean` is zero."""
    POLICY = 1
    """The policy plus exploration noise."""


class Episode(NamedTuple):
    """One whole episode of L ≥ 1 steps."""

    obs: Float32[ndarray, "steps_plus_1 obs"]
    """The last row is the final observation."""
    action: Float32[ndarray, "steps act"]
    """As executed, in [-1, 1]."""
    raw_action: Float32[ndarray, "steps act"]
    """Before clipping to [-1, 1]."""
    behaviour_mean: Float32[ndarray, "steps act"]
    """What the policy proposed before noise."""
    behaviour_kind: UInt8[ndarray, " steps"]
    """A `BehaviourKind` per step."""
    reward: Float32[ndarray, " steps"]
    terminated: Bool[ndarray, " steps"]
    """True where the task itself ended the episode; only ever at the last step."""
    truncated: Bool[ndarray, " steps"]
    """True where a limit from outside the task ended it; only ever at the last step."""
    objective_version: Int64[ndarray, " steps"]
    """Meta-steps applied to the objective when the step was made."""
    seed: int
    """Seed the environment was reset with."""
    life: int
    """Which life of the agent, counted from 0; a restarted agent begins a new one."""


@dataclass(frozen=True, slots=True)
class Field:
    """One Zarr array: a row per step, or, in the subgroup `episodes`, a row per episode."""

    name: str
    dtype: str
    """NumPy dtype name; the same word is Zarr's data type."""
    width: Literal["one", "obs", "act"] = "one"
    """Numbers per row: one, or as many as an observation or an action has."""
    per_episode: bool = False

    @property
    def path(self) -> str:
        """Where the array lies inside the agent's group."""
        return f"episodes/{self.name}" if self.per_episode else self.name

    def row_shape(self, obs_size: int, act_size: int) -> tuple[int, ...]:
        """Return the shape of one row: () or (numbers,)."""
        return {"one": (), "obs": (obs_size,), "act": (act_size,)}[self.width]

    def chunk_path(self, chunk: int) -> str:
        """Return where chunk number `chunk` lies inside the agent's group."""
        return f"{self.path}/c/{chunk}" if self.width == "one" else f"{self.path}/c/{chunk}/0"

    def chunk_bytes(self, row_shape: tuple[int, ...]) -> int:
        """Return the size in bytes of every whole chunk file."""
        return CHUNK_ROWS * math.prod(row_shape) * np.dtype(self.dtype).itemsize + CHECKSUM_BYTES

    def is_described_by(self, metadata: Mapping[str, Any], row_shape: tuple[int, ...]) -> bool:
        """Return whether a Zarr array's metadata, of any length, are those of this field."""
        if metadata["node_type"] != "array":
            return False
        as_bytes, *others = metadata["codecs"]
        has_byte_order = np.dtype(self.dtype).itemsize == 1 or (
            as_bytes.get("configuration") == {"endian": "little"}
        )
        chunk_shape = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        separator = {"name": "default", "configuration": {"separator": "/"}}
        return (
            tuple(metadata["shape"][1:]) == row_shape
            and metadata["data_type"] == self.dtype
            and tuple(chunk_shape) == (CHUNK_ROWS, *row_shape)
            and metadata["chunk_key_encoding"] == separator
            and as_bytes["name"] == "bytes"
            and has_byte_order
            and [codec["name"] for codec in others] == ["crc32c"]
            and metadata["fill_value"] == 0
            and not metadata.get("storage_transformers")
        )


STEP_FIELDS = (
    Field("obs", "float32", "obs"),
    Field("action", "float32", "act"),
    Field("raw_action", "float32", "act"),
    Field("behaviour_mean", "float32", "act"),
    Field("behaviour_kind", "uint8"),
    Field("reward", "float32"),
    Field("terminated", "bool"),
    Field("truncated", "bool"),
    Field("objective_version", "int64"),
)
EPISODE_FIELDS = (
    Field("start", "int64", per_episode=True),
    Field("length", "int64", per_episode=True),
    Field("return", "float64", per_episode=True),
    Field("seed", "int64", per_episode=True),
    Field("life", "int64", per_episode=True),
    Field("final_obs", "float32", "obs", per_episode=True),
)
FIELDS = {field.name: field for field in (*STEP_FIELDS, *EPISODE_FIELDS)}
"""Every array by name; names are unique across steps and episodes."""


def check_episode(episode: Episode, obs_size: int, act_size: int) -> None:
    """Refuse an episode that must not be stored.

    Raises:
        UsageError: no step, a wrong shape or dtype, NaN or infinity, an action outside [-1, 1],
            an unknown behaviour kind, an end before the last step, a negative seed or life.
    """
    steps = len(episode.reward)
    if steps == 0:
        raise UsageError("An episode needs at least one step to be stored, got none.")
    for field in STEP_FIELDS:
        values: ndarray = getattr(episode, field.name)
        rows = steps + 1 if field.name == "obs" else steps
        expected = (rows, *field.row_shape(obs_size, act_size))
        if values.shape != expected or values.dtype != field.dtype:
            raise UsageError(
                f"Episode field '{field.name}' is {values.dtype}{list(values.shape)}, "
                f"expected {field.dtype}{list(expected)}."
            )
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise UsageError(
                f"Episode field '{field.name}' holds NaN or infinity; drop the episode instead."
            )
    if np.abs(episode.action).max(initial=0) > 1:
        raise UsageError("Episode field 'action' leaves [-1, 1]; store the action as executed.")
    if (episode.behaviour_kind > max(BehaviourKind)).any():
        raise UsageError("Episode field 'behaviour_kind' holds an unknown BehaviourKind.")
    if episode.terminated[:-1].any() or episode.truncated[:-1].any():
        raise UsageError("An episode ends before its last step; store each episode on its own.")
    if not (0 <= episode.seed < 2**63 and 0 <= episode.life < 2**63):
        raise UsageError(
            f"An episode's seed and life must be in [0, 2^63), got {episode.seed}, {episode.life}."
        )
