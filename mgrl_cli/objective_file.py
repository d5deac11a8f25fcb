"""A learned objective as a file and as a loss for anyone's PyTorch loop.

The file is safetensors with one metadata key, `mgrl`, of canonical JSON: it says what the tensors
mean and holds no code, no time, host, path or name, so the same training gives the same bytes.
Two digests in it, one of the tensors and one of everything it says, leave no bit unprotected.
Reading a stranger's file can fail, but it cannot run anything. How such a file is laid out is the
concern of `run_dir.tensor_file`.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, final, get_args

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor

from mgrl_cli.algorithm.batches import masked_mean
from mgrl_cli.algorithm.objective_network import (
    SIGNAL_INPUTS,
    ObjectiveNetwork,
    ObjectiveShape,
    ObjectiveSignals,
    OptionalInput,
)
from mgrl_cli.errors import FileError, UsageError
from mgrl_cli.run_dir.atomic import write_atomically
from mgrl_cli.run_dir.tensor_file import (
    canonical_json,
    check_tensors,
    read_tensor_file,
    tensor_file_bytes,
)

_WHOLE, _ABLATED = 1, 2
"""Format versions: of objectives that read everything and normalise, and of all others. Whoever
knows the first one only would show the others what they were trained without."""
INPUTS = ("action", "policy_action", *SIGNAL_INPUTS)
"""Everything that an objective may read, in the order of files."""
_WHAT = "objective file"
_LARGEST_FILE_BYTES = 64 * 2**20
"""Far above any objective; it keeps a hostile file from filling memory."""


class ObjectiveMetadata(BaseModel):
    """What an objective file says about itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["mgrl-objective"] = "mgrl-objective"
    version: int = _WHOLE
    """Of the format; written by `to_bytes`, checked by `load`."""
    inputs: tuple[str, ...] = INPUTS
    """What it reads, in this order; an ablated objective lacks some of `OptionalInput`."""
    width: Annotated[int, Field(ge=2, le=1024, multiple_of=2)] = 32
    signal_features: Annotated[int, Field(ge=1, le=1024)] = 8
    gate_order: Literal["igfo"] = "igfo"
    forget_gate_bias: Annotated[float, Field(ge=1, le=1)] = 1.0
    bound: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1000.0
    normalisation: Literal["batch", "none"] = "batch"
    """Rewards and values: mean 0, variance 1 over the valid steps of the batch; or as they are."""
    terminal_value: Literal["zero", "mean"] = "zero"
    padding_first: bool = False
    window_steps: Annotated[int, Field(ge=1, le=10**6)]
    """T in training: use windows of this length, since the time input is t over their length."""
    window_batch: Annotated[int, Field(ge=1, le=10**6)]
    inner_step: Literal["sum", "unit"]
    inner_step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    environments: tuple[str, ...]
    """What it was trained on, as named in the run: aliases (`mgrl envs`) or Gymnasium ids."""
    steps_per_agent: Annotated[int, Field(ge=0)]
    """Env steps each agent had made."""
    agents: Annotated[int, Field(ge=0)]
    meta_steps: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]
    packages: dict[str, str]
    """Package → version it was trained with."""
    sha256: str = ""
    """Digest of all tensors in name order; written by `to_bytes`, checked by `load`."""
    metadata_sha256: str = ""
    """Digest of all the fields above as canonical JSON; written and checked likewise."""

    @property
    def shape(self) -> ObjectiveShape:
        """The network's architecture."""
        return ObjectiveShape(
            width=self.width,
            signal_features=self.signal_features,
            bound=self.bound,
            terminal_value=self.terminal_value,
            padding_first=self.padding_first,
            without=tuple(name for name in get_args(OptionalInput) if name not in self.inputs),
            normalise=self.normalisation == "batch",
        )

    @field_validator("inputs")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        left_out = get_args(OptionalInput)
        if names != tuple(name for name in INPUTS if name in names or name not in left_out):
            raise ValueError(
                f"expected {', '.join(INPUTS)} in this order, none but {', '.join(left_out)} "
                "left out"
            )
        return names


@final
class LearnedObjective:
    """A trained (or fresh) objective with its description; usable as an actor loss."""

    def __init__(self, params: Float[Tensor, " param"], metadata: ObjectiveMetadata) -> None:
        """Bundle α with what it means."""
        self.network = ObjectiveNetwork(metadata.shape)
        self.params = params
        self.metadata = metadata

    def __call__(  # noqa: PLR0913 - the published signature
        self,
        action: Float[Tensor, "batch time act"],
        policy_action: Float[Tensor, "batch time act"],
        reward: Float[Tensor, "batch time"],
        value: Float[Tensor, "batch time"],
        next_value: Float[Tensor, "batch time"],
        terminated: Tensor,
        is_valid: Tensor,
        *,
        per_step: bool = False,
    ) -> Tensor:
        """Return the loss for a policy: the mean over valid steps, differentiable in its actions.

        Descend it with respect to the policy that made `policy_action`. Reward and values are
        detached inside.

        Args:
            action: executed actions, in [-1, 1].
            policy_action: π(s) at the same states, in [-1, 1], attached to the policy.
            reward: in any unit; normalised over the batch inside, unless trained without.
            value: V(s_t), for instance Q(s_t, π(s_t)).
            next_value: V(s_{t+1}), not yet cut at terminal steps.
            terminated: [batch, time], true where the task (not a time limit) ended the episode.
            is_valid: [batch, time], true where the window holds a real step; padding at the end.
            per_step: return [batch, time] instead, padded steps 0.

        Raises:
            UsageError: the shapes do not agree.
        """
        if action.ndim != 3 or action.shape != policy_action.shape:
            raise UsageError(
                f"action {tuple(action.shape)} and policy_action {tuple(policy_action.shape)}: "
                "expected two tensors of the same shape [batch, time, act]"
            )
        for name, tensor in (
            ("reward", reward),
            ("value", value),
            ("next_value", next_value),
            ("terminated", terminated),
            ("is_valid", is_valid),
        ):
            if tensor.shape != action.shape[:2]:
                raise UsageError(
                    f"{name} has shape {tuple(tensor.shape)}, expected [batch, time] = "
                    f"{tuple(action.shape[:2])} of the actions"
                )
        valid: Bool[Tensor, "batch time"] = is_valid.bool()
        signals = ObjectiveSignals(
            reward=reward.detach(),
            value=value.detach(),
            next_value=next_value.detach(),
            terminated=terminated.bool(),
            is_valid=valid,
        )
        params = self.params.to(device=action.device, dtype=action.dtype)
        losses = self.network(params, action, policy_action, signals)
        if per_step:
            return torch.where(valid, losses, torch.zeros_like(losses))
        return masked_mean(losses, valid)

    def to_bytes(self) -> bytes:
        """Return the file's content; the same objective gives the same bytes."""
        tensors = self.network.layout.views(self.params.detach().cpu())
        is_whole = self.network.shape.without == () and self.network.shape.normalise
        metadata = self.metadata.model_copy(
            update={
                "version": _WHOLE if is_whole else _ABLATED,
                "sha256": _tensors_digest(tensors),
            }
        )
        document = metadata.model_dump(mode="json")
        document["metadata_sha256"] = _metadata_digest(document)
        return tensor_file_bytes(tensors, document)

    def save(self, path: str | Path) -> None:
        """Write the file atomically.

        Raises:
            StorageError: no space, or the operating system refused.
        """
        write_atomically(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an objective file and check every part of it.

        Raises:
            FileError: missing, not safetensors, not ours, of an unknown version, damaged in
                whatever bit, or with parameters that are not finite.
            StorageError: the operating system refused to read it.
        """
        path = Path(path)
        document, tensors = read_tensor_file(path, what=_WHAT, max_bytes=_LARGEST_FILE_BYTES)
        metadata = _parse_metadata(path, document)
        expected = ObjectiveNetwork(metadata.shape).layout
        template = {name: (torch.float32, shape) for name, shape in expected.shapes.items()}
        check_tensors(path, tensors, template, what=_WHAT)
        if _tensors_digest(tensors) != metadata.sha256:
            raise FileError(
                f"{_WHAT} '{path}' is damaged: its tensors do not match their SHA-256; "
                "restore it from a copy"
            )
        params = expected.pack(tensors)
        if not torch.isfinite(params).all():
            raise FileError(f"{_WHAT} '{path}' holds parameters that are not finite")
        return cls(params, metadata)


def _parse_metadata(path: Path, document: Mapping[str, Any]) -> ObjectiveMetadata:
    version = document.get("version")
    if version not in (_WHOLE, _ABLATED):
        raise FileError(
            f"{_WHAT} '{path}' has format version {version!a:.80}, expected {_WHOLE} or "
            f"{_ABLATED}; use the mgrl that wrote it"
        )
    got, expected = document.get("metadata_sha256"), _metadata_digest(document)
    if got != expected:
        raise FileError(
            f"{_WHAT} '{path}' is damaged, or older than its digest: metadata_sha256 is "
            f"{got!a:.80}, expected '{expected}'; restore it from a copy, or use the mgrl that "
            "wrote it"
        )
    try:
        return ObjectiveMetadata.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise FileError(
            f"{_WHAT} '{path}' has invalid metadata: {field!a:.80}: {first['msg']}"
        ) from error


def _tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + b"\0")
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _metadata_digest(document: Mapping[str, Any]) -> str:
    """Return the digest of a file's document, but for the field that holds this digest."""
    rest = {name: value for name, value in document.items() if name != "metadata_sha256"}
    return hashlib.sha256(canonical_json(rest).encode()).hexdigest()
