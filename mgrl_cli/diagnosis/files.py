"""Whether files in the runs directory are safe: written, flushed, renamed, locked.

As a probe it tries all that in a directory of its own, which it removes on every way out: SIGTERM
only makes it skip what is left to try. Knows nothing of what a run keeps in its files.
"""

import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median

from mgrl_cli.diagnosis.check import BYTES_PER_GIB, BYTES_PER_MIB, Check, describe_error
from mgrl_cli.diagnosis.probe import ProbeReport, reporter

SCRATCH_PREFIX = ".mgrl-doctor-"
_FREE_BYTES_LOW = BYTES_PER_GIB
_FLUSH_SLOW_S = 0.2
_NUM_FLUSHES = 5
_FLUSH_BUDGET_S = 3.0
"""No further flush is begun after this time."""
_REMOTE = ("9p", "afs", "ceph", "cifs", "drvfs", "fuse", "gluster", "lustre", "nfs", "smb", "sshfs")
"""How the names of file systems begin whose locks and flushes depend on another machine."""
_VOLATILE = ("tmpfs", "ramfs")
_LOCAL_REMEDY = "keep runs on a local disk: name it with --runs-dir"


def existing_directory(runs_dir: Path) -> Path:
    """Return `runs_dir`, or the nearest directory above it that exists.

    Raises:
        NotADirectoryError: what exists there is no directory.
    """
    path = runs_dir.absolute()
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    if not path.is_dir():
        raise NotADirectoryError(f"'{path}' is not a directory")
    return path


def file_system(directory: Path, mounts: str) -> str | None:
    """Return the type of the file system that holds `directory`.

    Args:
        directory: absolute, without symbolic links.
        mounts: the text of /proc/mounts.
    """
    best, found = -1, None
    for line in mounts.splitlines():
        words = line.split(" ")
        if len(words) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[1])
        # The later one of two mounts in the same place hides the earlier.
        if directory.is_relative_to(point) and len(point) >= best:
            best, found = len(point), words[2]
    return found


def measure_flush_s(directory: Path) -> float:
    """Return the median time to write 1 MiB and flush it to disk."""
    content = os.urandom(BYTES_PER_MIB)
    times_s: list[float] = []
    began_s = time.perf_counter()
    while len(times_s) < _NUM_FLUSHES and time.perf_counter() - began_s < _FLUSH_BUDGET_S:
        start_s = time.perf_counter()
        with (directory / f"flush-{len(times_s)}").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        times_s.append(time.perf_counter() - start_s)
    return median(times_s)


def renames_over(directory: Path) -> bool:
    """Return whether renaming puts one file in the place of another."""
    old, new = directory / "old", directory / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    new.replace(old)
    return old.read_bytes() == b"new" and not new.exists()


def locks_exclusively(directory: Path) -> bool:
    """Return whether a lock keeps a second handle out, and lets it in when given back."""
    from filelock import FileLock, Timeout

    first, second = FileLock(directory / "lock"), FileLock(directory / "lock")
    with first.acquire(timeout=0):
        try:
            with second.acquire(timeout=0):
                return False
        except Timeout:
            pass
    with second.acquire(timeout=0):
        return True


def probe_files(
    runs_dir: Path, report: Callable[[str, object], None], is_asked_to_end: Callable[[], bool]
) -> None:
    """Report what files in `runs_dir` can do; what fails is reported as "NAME problem"."""

    def attempt(name: str, measure: Callable[[], object]) -> None:
        if is_asked_to_end():
            return
        try:
            report(name, measure())
        except Exception as error:  # a file system can refuse in any way
            report(f"{name} problem", describe_error(error))

    try:
        directory = existing_directory(runs_dir)
        report("directory", str(directory))
        attempt("free bytes", lambda: shutil.disk_usage(directory).free)
        with suppress(OSError):
            mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape")
            report("file system", file_system(directory.resolve(), mounts))
        with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=directory) as name:
            scratch = Path(name)
            (scratch / "written").write_bytes(b"whole")
            attempt("flush s", lambda: measure_flush_s(scratch))
            attempt("rename", lambda: renames_over(scratch))
            attempt("lock", lambda: locks_exclusively(scratch))
        report("writable", True)
    except OSError as error:
        report("writable problem", describe_error(error))


def judge_files(probed: ProbeReport) -> Iterator[Check]:
    """Yield the checks on files; what depends on writing is left out where nothing is written."""
    facts = probed.facts
    yield _writable(facts, probed.ending)
    if "free bytes" in facts:
        yield _free_space(facts["free bytes"])
    if facts.get("file system") is not None:
        yield _file_system(facts["file system"])
    if "flush s" in facts:
        yield _flush(facts["flush s"])
    for name, what, harm in (
        ("flush s", "flush", "a crash could cost what was saved"),
        ("rename", "atomic rename", "a crash could leave half a file"),
        ("lock", "exclusive lock", "two processes could write one run"),
    ):
        problem = facts.get(f"{name} problem")
        if problem is None and facts.get(name) is False:
            problem = "not the way it must"
        if problem is not None:
            yield Check(what, "missing", f"does not work: {problem}", f"{harm}; {_LOCAL_REMEDY}")
        elif facts.get(name) is True:
            yield Check(what, "ok", "works")


def _writable(facts: Mapping[str, object], ending: str) -> Check:
    if "writable" in facts:
        return Check("writable", "ok", f"{facts['directory']}")
    if "writable problem" in facts:
        return Check(
            "writable",
            "missing",
            f"cannot write: {facts['writable problem']}",
            "make it writable and see that the disk is not full, or name another --runs-dir",
        )
    where = facts.get("directory", "the runs directory")
    return Check(
        "writable", "missing", f"trying {where} {ending}", f"files may hang there; {_LOCAL_REMEDY}"
    )


def _free_space(free_bytes: int) -> Check:
    finding = f"{free_bytes / BYTES_PER_GIB:.1f} GiB"
    if free_bytes < _FREE_BYTES_LOW:
        remedy = "a run's replay may not fit: free some space or name another --runs-dir"
        return Check("free space", "warning", finding, remedy)
    return Check("free space", "ok", finding)


def _file_system(name: str) -> Check:
    if name.startswith(_REMOTE):
        remedy = f"locks and flushes may not hold there; {_LOCAL_REMEDY}"
        return Check("file system", "warning", name, remedy)
    if name in _VOLATILE:
        remedy = f"runs there use up memory and are gone after a restart; {_LOCAL_REMEDY}"
        return Check("file system", "warning", name, remedy)
    return Check("file system", "ok", name)


def _flush(flush_s: float) -> Check:
    finding = f"{flush_s * 1000:.1f} ms for 1 MiB"
    if flush_s > _FLUSH_SLOW_S:
        return Check("flush", "warning", finding, f"checkpoints will stall; {_LOCAL_REMEDY}")
    return Check("flush", "ok", finding)


def _main() -> None:
    asked = threading.Event()
    # An exception instead could come while the directory is being made or removed.
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    probe_files(Path(sys.argv[1]), reporter(), asked.is_set)


if __name__ == "__main__":
    _main()
