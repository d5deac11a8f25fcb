"""A text stream that outlives its reader.

Nobody watching is no reason to stop a run: once the reader is gone (`mgrl ... | head`, a closed
terminal), everything written is dropped in silence. Knows nothing of what is written.
"""

import errno
import io
import os
from typing import TextIO, final

from mgrl_cli.errors import StorageError

_READER_GONE = {errno.EPIPE, errno.EIO}
"""A pipe without a reader; a terminal that was hung up."""


@final
class GuardedStream(io.TextIOBase):
    """Passes text on to `stream`, flushed at each write, until its reader is gone."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._is_open = True

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] typeshed: attribute
        """Encoding of the wrapped stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Return whether the wrapped stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the wrapped stream's file descriptor."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str, /) -> int:
        """Write and flush `text`; drop it where the reader is gone.

        Raises:
            StorageError: the system refuses to write for another reason (disk full).
        """
        if self._is_open:
            try:
                self._stream.write(text)
                self._stream.flush()
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Do nothing: each write is flushed."""

    def _give_up(self, error: OSError) -> None:
        self._is_open = False
        if error.errno not in _READER_GONE:
            message = (
                f"Cannot write progress: {error.strerror}, expected a writable stream. "
                "Free space or redirect the output elsewhere"
            )
            raise StorageError(message) from error
        # What the stream still buffers would fail again when Python flushes it at exit, and turn
        # the exit code into 120; it goes to the null device instead.
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError):
            return
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
