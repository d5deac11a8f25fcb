"""Stand between Python and every change of a directory tree.

The functions of `os` and the built-in `open` are patched for the time of a `with`: pathlib, shutil,
tempfile, filelock and zarr all end in them, whatever thread they run in. Writes are seen where
Python hands bytes to the system: a buffered file counts one write per flush. Reads are let through.
Not seen: libraries in C that write by themselves, `os.sendfile` (shutil's copies), `tempfile`'s own
deletions, other processes. Needs Linux, whose /proc names what a file descriptor stands for. Must
not know what is done about an operation: that is a `Trace`.
"""

import asyncio
import builtins
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, final
from unittest.mock import patch

import zarr.core.sync

FREES_SPACE = frozenset({"unlink", "rmdir"})
"""Kinds of operations that work on a full disk."""


class Operation(NamedTuple):
    """One change below the root, about to be made."""

    kind: str
    """create, open (for writing), write, truncate, fsync, rename, link, unlink, mkdir or rmdir."""
    path: Path
    """Absolute; of a rename or link, the new name."""


class Trace:
    """What was asked for below `root`; lets everything pass."""

    def __init__(self, root: Path, at: int | None = None) -> None:
        self.root = root.resolve()
        self.operations: list[str] = []
        """Kind and path relative to the root, in order; refused ones too."""
        self._at = at

    @property
    def fired(self) -> bool:
        """Whether the operation number `at`, from 1, was reached."""
        return self._at is not None and len(self.operations) >= self._at

    @property
    def is_at_fault(self) -> bool:
        """Whether the latest operation is the one with the number `at`."""
        return len(self.operations) == self._at

    @property
    def is_dead(self) -> bool:
        """Whether the process must not change anything any more, even after the `with`."""
        return False

    def covers(self, path: Path) -> bool:
        """Return whether `path` is the root or below it."""
        return path.is_relative_to(self.root)

    def refusal(self, operation: Operation) -> BaseException | None:
        """Return what to raise in place of the operation, if anything."""
        return None

    def done(self, operation: Operation) -> None:
        """Learn that the operation was made."""


@contextmanager
def intercept(trace: Trace) -> Iterator[None]:
    """Put every operation below the root of `trace` to it, until the `with` ends."""
    shim = _Shim(trace)
    try:
        with (
            patch.multiple(os, **shim.functions()),
            patch.object(io, "open", shim.open_file),
            patch.object(builtins, "open", shim.open_file),
        ):
            try:
                yield
            finally:
                _wait_for_zarr()
    finally:
        shim.is_over = True


@final
class _Shim:
    """Stands between Python and the system calls."""

    def __init__(self, trace: Trace) -> None:
        self.is_over = False
        self._trace = trace
        self._lock = threading.RLock()  # one operation at a time, so that their order is known
        self._open_file = io.open
        self._open_descriptor = os.open

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Return the replacements of functions of `os`, by name."""
        write = os.write
        return {
            "open": self.open_descriptor,
            "write": lambda fd, data: self.write(fd, data, partial(write, fd)),
            "fsync": self._on_path("fsync", os.fsync),
            "fdatasync": self._on_path("fsync", os.fdatasync),
            "truncate": self._on_path("truncate", os.truncate),
            "ftruncate": self._on_path("truncate", os.ftruncate),
            "mkdir": self._on_path("mkdir", os.mkdir),
            "rmdir": self._on_path("rmdir", os.rmdir),
            "unlink": self._on_path("unlink", os.unlink),
            "remove": self._on_path("unlink", os.remove),
            "rename": self._on_two_paths("rename", os.rename),
            "replace": self._on_two_paths("rename", os.replace),
            "link": self._on_two_paths("link", os.link),
        }

    def run(
        self,
        kind: str,
        path: Path,
        action: Callable[[], Any],
        tear: Callable[[], object] | None = None,
    ) -> Any:
        """Make one operation, or have it refused; `tear` does it by half where it is hit."""
        trace = self._trace
        if not trace.covers(path):
            return action()
        with self._lock:
            if _changes_nothing(kind, path) or (self.is_over and not trace.is_dead):
                return action()
            operation = Operation(kind, path)
            trace.operations.append(f"{kind} {path.relative_to(trace.root)}")
            refusal = trace.refusal(operation)
            if refusal is None:
                result = action()
                trace.done(operation)
                return result
            if tear is not None and trace.is_at_fault:
                tear()
            raise refusal

    def write(self, fd: int, data: Any, write: Callable[[Any], Any]) -> int:
        """Make one write of the file at `fd`."""

        def tear() -> None:
            view = memoryview(data).cast("B")
            position = os.lseek(fd, 0, os.SEEK_CUR)
            write(view[: len(view) // 2])
            os.lseek(fd, position, os.SEEK_SET)  # a write that failed does not move it

        return self.run("write", locate(fd), lambda: write(data), tear)

    def open_descriptor(
        self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        """Replace os.open."""

        def action() -> int:
            return self._open_descriptor(path, flags, mode, dir_fd=dir_fd)

        if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            return action()
        target = locate(path, dir_fd)
        return self.run("open" if os.path.lexists(target) else "create", target, action)

    def open_file(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Callable[[str, int], int] | None = None,
    ) -> Any:
        """Replace the built-in open: the same layers, over a file that asks before it writes."""
        if not set(mode) & set("wax+") or not self._trace.covers(locate(file)):
            return self._open_file(
                file, mode, buffering, encoding, errors, newline, closefd, opener
            )
        raw = _WatchedFile(self, file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        buffer = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw, size)
        if "b" in mode:
            return buffer
        return io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering=buffering == 1)

    def _on_path(self, kind: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, dir_fd: int | None = None) -> Any:
            options = {} if dir_fd is None else {"dir_fd": dir_fd}
            return self.run(
                kind, locate(path, dir_fd), lambda: original(path, *arguments, **options)
            )

        return call

    def _on_two_paths(self, kind: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, target: Any, **options: Any) -> Any:
            path = locate(target, options.get("dst_dir_fd"))
            if not self._trace.covers(path):  # out of the root: what changes there is the source
                path = locate(source, options.get("src_dir_fd"))
            return self.run(kind, path, lambda: original(source, target, **options))

        return call


@final
class _WatchedFile(io.FileIO):
    """The lowest layer of an open file."""

    def __init__(
        self,
        shim: _Shim,
        file: Any,
        mode: str,
        closefd: bool,
        opener: Callable[[str, int], int] | None,
    ) -> None:
        self._shim = shim
        super().__init__(file, mode, closefd, opener or _open_for_file)

    def write(self, data: Any) -> int:
        return self._shim.write(self.fileno(), data, super().write)

    def truncate(self, size: int | None = None) -> int:
        truncate = super().truncate
        return self._shim.run("truncate", locate(self.fileno()), lambda: truncate(size))


def _open_for_file(path: Any, flags: int) -> int:
    return os.open(path, flags, 0o666)  # the patched one


def locate(path: Any, dir_fd: int | None = None) -> Path:
    """Return the absolute path of a name or file descriptor, its own last link not followed."""
    if isinstance(path, int):
        link = Path(f"/proc/self/fd/{path}")
        return link.readlink() if os.path.lexists(link) else link  # not open: the call will say so
    folder = Path() if dir_fd is None else locate(dir_fd)
    named = folder / os.fsdecode(path)
    return named.parent.resolve() / named.name


def _changes_nothing(kind: str, path: Path) -> bool:
    """Return whether the operation fails by itself, as pathlib and zarr expect it to."""
    if kind == "mkdir":
        return os.path.lexists(path) or not path.parent.is_dir()
    return kind in FREES_SPACE and not os.path.lexists(path)


def _wait_for_zarr() -> None:
    """Let what zarr still writes in other threads meet the fault and not the mended disk.

    When one of its writes fails, zarr raises at once and leaves the others running.
    """

    async def others_are_done() -> None:
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    loop = zarr.core.sync.loop[0]
    if loop is not None:
        asyncio.run_coroutine_threadsafe(others_are_done(), loop).result()
