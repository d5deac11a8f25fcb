"""One writer per run: a lock that the kernel frees when its holder dies, and who that holder is.

The lock is `flock` on the run's lock file, so neither a SIGKILL nor a power loss leaves it behind.
Who holds it is in a file beside, for messages only: it decides nothing, and when nobody holds the
lock it means nothing. Knows nothing of what is written under the lock.
"""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, final

from filelock import FileLock, Timeout
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from mgrl_cli.errors import FileError, RunLockedError, StorageError
from mgrl_cli.run_dir.atomic import explain_os_error, write_atomically
from mgrl_cli.run_dir.layout import RunDirectory

_PATIENCE_S = 0.1
"""A look by `lock_holder` takes microseconds; whoever starts then must not fail because of it."""

_HOLDER_LIMIT_BYTES = 4096
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@final
class _Holder(BaseModel):
    """Who holds a lock. Anyone may have written the file, hence the narrow fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # The message offers it to `kill`, to which 0 and negative numbers mean whole groups.
    pid: Annotated[int, Field(gt=0, le=4_194_304)]
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,255}$")]
    since: AwareDatetime

    def __str__(self) -> str:
        return f"pid {self.pid} on host {self.host} since {self.since:%Y-%m-%d %H:%M:%S %Z}"


@contextmanager
def locked(run: RunDirectory) -> Generator[None]:
    """Be the only process that writes `run`. Not reentrant: a second lock is refused here too.

    Processes started meanwhile do not share the lock, so it is free once this one ends, however it
    ends and whatever they do. The empty lock file stays; removing it would let two processes lock
    two files of the same name.

    Raises:
        RunLockedError: somebody else holds the lock.
        FileError: the lock file is a symbolic link.
        StorageError: the operating system refused, or the file system knows no locks.
    """
    with _acquire(run):
        # What a killed holder left must not be taken for us.
        with suppress(OSError):
            run.lock_holder.unlink(missing_ok=True)
        try:
            write_atomically(run.lock_holder, _this_process())
            yield
        finally:
            with suppress(OSError):  # the lock decides, not this file
                run.lock_holder.unlink(missing_ok=True)


def lock_holder(run: RunDirectory) -> str | None:
    """Return who writes `run` at the moment, such as "pid 12 on host x since ...", None if nobody.

    Creates nothing, and is never in the way of a starting run for long enough to stop it.

    Raises:
        FileError: the lock file is a symbolic link.
        StorageError: the operating system refused to tell.
    """
    try:
        descriptor = _open_to_look(run.lock)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _link(run) from error
        raise StorageError(explain_os_error(error, f"look at '{run.lock}'")) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return str(_read_holder(run) or "another process")
    except OSError as error:
        raise StorageError(explain_os_error(error, f"look at '{run.lock}'")) from error
    finally:
        os.close(descriptor)  # and with it goes the lock, if we got it
    return None


def _acquire(run: RunDirectory) -> AbstractContextManager[object]:
    # Not the fallback to a lock file that merely exists: that one outlives a killed holder.
    lock = FileLock(run.lock, thread_local=False, fallback_to_soft=False)
    try:
        return lock.acquire(timeout=_PATIENCE_S, poll_interval=_PATIENCE_S / 10)
    except Timeout as error:
        raise _refusal(run) from error
    except (OSError, NotImplementedError) as error:  # older releases of filelock raise the latter
        if isinstance(error, OSError) and error.errno == errno.ELOOP:  # it follows no link
            raise _link(run) from error
        if isinstance(error, NotImplementedError) or error.errno in _NO_LOCKS:
            message = (
                f"cannot lock run '{run.path}': its file system has no locks; keep runs on another"
            )
            raise StorageError(message) from error
        raise StorageError(explain_os_error(error, f"lock run '{run.path}'")) from error


def _link(run: RunDirectory) -> FileError:
    return FileError(f"'{run.lock}' is a symbolic link, expected none inside a run; remove it")


def _refusal(run: RunDirectory) -> RunLockedError:
    holder = _read_holder(run)
    who = "another process" if holder is None else str(holder)
    how = "stop it" if holder is None else f"stop it with 'kill {holder.pid}' there"
    return RunLockedError(
        f"run '{run.path}' is being written by {who}; wait for it, {how}, or work on another run"
    )


def _this_process() -> bytes:
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return (json.dumps(holder) + "\n").encode()


def _read_holder(run: RunDirectory) -> _Holder | None:
    """Return what the holder says about itself, None if that is not there or makes no sense."""
    try:
        descriptor = _open_to_look(run.lock_holder)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            return _Holder.model_validate_json(file.read(_HOLDER_LIMIT_BYTES) or b"")
    except (OSError, ValidationError):
        return None


def _open_to_look(path: Path) -> int:
    # Follows no link out of the run, and waits for nobody should it be a pipe.
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
