import errno
import io
import os
import subprocess
import sys

import pytest

from mgrl_cli.errors import StorageError
from mgrl_cli.ui.guarded_stream import GuardedStream


class FailingStream(io.StringIO):
    """Refuses every write with one error number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str, /) -> int:
        raise OSError(self.number, os.strerror(self.number))


def test_text_passes_through():
    stream = io.StringIO()
    assert GuardedStream(stream).write("round 1\n") == 8
    assert stream.getvalue() == "round 1\n"


def test_pipe_without_reader_is_silent():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        guarded = GuardedStream(stream)
        assert guarded.write("one\n") == 4
        assert guarded.write("two\n") == 4


def test_hung_up_terminal_is_silent():
    guarded = GuardedStream(FailingStream(errno.EIO))
    guarded.write("one\n")
    guarded.write("two\n")


def test_full_disk_is_told():
    with pytest.raises(StorageError, match="No space left"):
        GuardedStream(FailingStream(errno.ENOSPC)).write("one\n")


def test_closed_pipe_leaves_the_exit_code_alone():
    code = (
        "import sys\n"
        "from mgrl_cli.ui.guarded_stream import GuardedStream\n"
        "sys.stdin.readline()\n"
        "GuardedStream(sys.stdout).write('text\\n')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0
