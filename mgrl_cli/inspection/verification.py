"""Proving every byte of something that mgrl wrote, whatever it is."""

from pathlib import Path

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.inspection.findings import Part, Verification
from mgrl_cli.inspection.recognition import Kind, recognise
from mgrl_cli.inspection.verify_checkpoint import verify_checkpoint
from mgrl_cli.inspection.verify_replay import verify_replay
from mgrl_cli.inspection.verify_run import verify_run
from mgrl_cli.objective_file import LearnedObjective
from mgrl_cli.replay.reader import agent_groups
from mgrl_cli.run_dir.atomic import explain_os_error

_ALONE = (
    "a replay by itself is compared with its checksums; verify its run to compare it with what "
    "the newest checkpoint recorded"
)


def verify(path: Path) -> Verification:
    """Read everything below `path` that a digest or checksum covers, and compare.

    Works on a run that is going on: it is judged by the checkpoint that was its newest at first.

    Raises:
        FileError: missing, or nothing that mgrl wrote. What is damaged is reported instead.
        StorageError: the operating system refused to list a directory.
    """
    kind = recognise(path)
    try:
        return Verification(path=str(path), kind=kind, parts=_parts(path, kind))
    except OSError as error:
        raise StorageError(explain_os_error(error, f"verify '{path}'")) from error


def _parts(path: Path, kind: Kind) -> tuple[Part, ...]:
    match kind:
        case "run":
            return tuple(verify_run(path))
        case "checkpoint":
            # Resolved, as a checkpoint's own name is a part of it and `path` may be ".".
            part = verify_checkpoint(path.resolve())
            gone = Part(name="checkpoint", problems=(f"'{path}' was removed meanwhile",))
            return (gone if part is None else part,)
        case "buffer":
            return _verify_buffer(path)
        case "agent":
            return (Part(name="replay", notes=(_ALONE,)), verify_replay(path, None))
        case "objective":
            return (_verify_objective(path),)


def _verify_buffer(path: Path) -> tuple[Part, ...]:
    try:
        groups = agent_groups(path)
    except (FileError, StorageError) as error:
        return (Part(name="replay", problems=(str(error),)),)
    notes = (_ALONE,) if groups else (f"'{path}' holds no agent yet",)
    return (Part(name="replay", notes=notes), *(verify_replay(group, None) for group in groups))


def _verify_objective(path: Path) -> Part:
    try:
        LearnedObjective.load(path)
        return Part(name="objective", counts={"file": 1}, num_bytes=path.stat().st_size)
    except (FileError, StorageError) as error:
        return Part(name="objective", problems=(str(error),))
