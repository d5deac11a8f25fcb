"""`manifest.json`: what a checkpoint consists of and where in its run it belongs.

A checkpoint is what its manifest says, byte for byte, or it is damaged. The manifest protects
itself by a digest of its own. It holds names, figures and digests, nothing that can run.
"""

import hashlib
import json
import math
import re
import stat
from pathlib import Path
from typing import Annotated, Literal, cast, final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mgrl_cli.config import Count, RunConfig
from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.run_dir.atomic import explain_os_error
from mgrl_cli.run_dir.build import Build
from mgrl_cli.run_dir.file_record import FileRecord
from mgrl_cli.run_dir.tensor_file import canonical_json

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
OBJECTIVE_NAME = "objective.safetensors"
EXCHANGE_NAME = "exchange.safetensors"
_LARGEST_MANIFEST_BYTES = 4 * 2**20
"""Twice what the largest population takes."""
_MOST_PROBLEMS = 100
_NAME = re.compile(r"round-([0-9]{6,12})(?:-update-([0-9]{6,12})|-(validated))?")

Position = tuple[int, ...]
"""Rounds finished and updates of the next one; (rounds, 0, 1) where a round's end was validated.
Later positions compare greater."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Names that cannot lead anywhere else.
PartName = Annotated[str, Field(pattern=r"^(?:agent-[0-9]{3,6}|exchange|objective)\.safetensors$")]
# Likewise, since the best checkpoint is looked up by it; empty: none yet.
_BestName = Annotated[
    str, Field(pattern=r"^(?:round-[0-9]{6,12}(?:-update-[0-9]{6,12}|-validated)?)?$")
]
_AgentName = Annotated[str, Field(pattern=r"^agent-[0-9]{3,6}$")]
_MetricsName = Annotated[str, Field(pattern=r"^(?:agent-[0-9]{3,6}|population|validation)\.jsonl$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@final
class ReplayRecord(_Record):
    """What of an agent's replay log belongs to a checkpoint."""

    rows: Count
    episodes: Count
    sha256: Digest
    """Of all fields' rows, see `replay.digest`."""


@final
class ValidationRecord(_Record):
    """How far the validations of a meta-training have come."""

    newest: Count
    """Round of the newest one; 0: none yet."""
    best: Count
    """Round whose objective is the best so far; 0: none yet."""
    objective: FileRecord | None
    """The best objective; None: none yet."""
    is_over: bool
    """True where they end the run before its last round."""


@final
class Manifest(_Record):
    """A checkpoint's table of contents."""

    format: Literal["mgrl-checkpoint"] = "mgrl-checkpoint"
    version: Literal[1] = FORMAT_VERSION
    kind: Literal["meta-train", "meta-test"]
    rounds: Count
    """Rounds that every agent has finished."""
    updates: Count
    """Updates of the next round that are made already; 0 at a round's end."""
    elapsed_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Wall time the run has taken, interruptions left out."""
    settings_sha256: Digest
    """Of the settings that decide results."""
    build: Build
    files: dict[PartName, FileRecord]
    """The checkpoint's own files."""
    config: FileRecord
    metrics: dict[_MetricsName, FileRecord]
    """Beginnings of the run's metrics files."""
    replay: dict[_AgentName, ReplayRecord]
    quarantined: dict[_AgentName, str]
    """Agents out of the population, and why."""
    barren_meetings: Count
    """Meta-steps in a row, up to here, in which no gradient was finite."""
    evaluations: dict[_AgentName, Annotated[float, Field(allow_inf_nan=False)]]
    """Latest noise-free evaluation of each agent that has had one."""
    best: _BestName
    """Name of the best checkpoint so far."""
    validation: ValidationRecord | None = None
    """None where the run has no validations; then the file does not name the key."""
    sha256: str = ""
    """Of the canonical JSON of everything else."""

    @property
    def name(self) -> str:
        """The checkpoint's name, its directory's."""
        return checkpoint_name(*self.position)

    @property
    def position(self) -> Position:
        """Where in the run it stands; later checkpoints compare greater."""
        return position_at(self.rounds, self.updates, self.validation)

    def is_final(self, config: RunConfig) -> bool:
        """Return whether nothing is left to do of a run with these settings."""
        if self.validation is not None and self.validation.is_over:
            return True
        is_tested = len(self.position) > 2 or not config.validates_after(self.rounds)
        return self.rounds == config.num_rounds and is_tested

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        rest = self.model_dump(mode="json", exclude={"sha256"})
        if self.validation is None:
            del rest["validation"]
        digest = hashlib.sha256(canonical_json(rest).encode()).hexdigest()
        return canonical_json({**rest, "sha256": digest}).encode()

    def is_better_than(self, other: "Manifest") -> bool:
        """Return whether more agents were evaluated higher here than in `other` than lower.

        Returns of different environments have no common scale, so agents vote. One that `other` had
        not evaluated yet counts as higher: else the first checkpoint would stay the best for ever.
        One that is gone has no vote.
        """
        votes = [
            score - other.evaluations.get(agent, -math.inf)
            for agent, score in self.evaluations.items()
        ]
        return sum(vote > 0 for vote in votes) > sum(vote < 0 for vote in votes)


def position_at(rounds: int, updates: int, validation: ValidationRecord | None) -> Position:
    """Return where in its run a checkpoint stands.

    Args:
        rounds: finished.
        updates: of the next round that are made already.
        validation: how far the validations have come; None: the run has none.
    """
    if validation is not None and updates == 0 and 0 < validation.newest == rounds:
        return rounds, 0, 1
    return rounds, updates


def checkpoint_name(rounds: int, updates: int, validated: int = 0) -> str:
    """Return the name of the checkpoint at a position."""
    name = f"round-{rounds:06d}"
    if validated:
        return f"{name}-validated"
    return f"{name}-update-{updates:06d}" if updates else name


def position_of(name: str) -> Position | None:
    """Return the position in a checkpoint's name, or None where `name` is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    rounds, updates, validated = match.groups()
    position = (int(rounds), 0, 1) if validated else (int(rounds), int(updates or 0))
    if checkpoint_name(*position) != name:  # one name per position
        return None
    return position


def read_manifest(path: Path) -> Manifest:
    """Return a manifest whose own digest is right.

    Raises:
        FileError: missing, not ours, of an unknown version, or damaged.
        StorageError: the operating system refused.
    """
    content = _read(path)
    document = _parse(path, content)
    version = document.get("version")
    if document.get("format") == "mgrl-checkpoint" and version != FORMAT_VERSION:
        raise FileError(
            f"'{path}' has format version {version!r:.40}, expected {FORMAT_VERSION}; "
            "use the mgrl that wrote it"
        )
    try:
        # Not `model_validate_json`, which takes gigabytes for a few megabytes of somebody's lists.
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        raise FileError(
            f"'{path}' is no manifest of a checkpoint, or damaged: {_first_problem(error)}"
        ) from error
    if manifest.to_bytes() != content:  # with the digest in it; and no other spelling passes
        raise FileError(f"'{path}' is damaged: it does not match its own SHA-256")
    return manifest


def _read(path: Path) -> bytes:
    try:
        status = path.lstat()
        # Looked at before it is opened: opening a pipe waits for somebody to write into it.
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"'{path}' is not a regular file; restore it from a copy")
        if status.st_size > _LARGEST_MANIFEST_BYTES:
            raise FileError(
                f"'{path}' is too large: got {status.st_size} bytes, expected "
                f"{_LARGEST_MANIFEST_BYTES} at most; restore it from a copy"
            )
        with path.open("rb") as file:
            return file.read(status.st_size)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileError(f"'{path}' is missing; restore it from a copy") from error
    except OSError as error:
        raise StorageError(explain_os_error(error, f"read '{path}'")) from error


def _parse(path: Path, content: bytes) -> dict[str, object]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FileError(f"'{path}' is damaged: it is not JSON") from error
    if not isinstance(document, dict):
        raise FileError(f"'{path}' is no manifest of a checkpoint: it is not a JSON object")
    return cast("dict[str, object]", document)


def _first_problem(error: ValidationError) -> str:
    if error.error_count() > _MOST_PROBLEMS:  # to describe a million takes minutes
        return f"it has {error.error_count()} problems"
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where!a:.80}: {problem['msg']}"
