"""The `mgrl` command: registers the commands and is the one boundary that turns errors into exits.

Everything below raises; only here does an error become one line on stderr and an exit code. Loads
no torch, zarr or gymnasium, so that `mgrl --help` answers at once.
"""

import errno
import os
import re
import select
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer

import mgrl_cli
from mgrl_cli.commands import DebugOption
from mgrl_cli.commands.baseline import baseline
from mgrl_cli.commands.doctor import doctor
from mgrl_cli.commands.envs import envs
from mgrl_cli.commands.inspect import inspect
from mgrl_cli.commands.matrix import matrix
from mgrl_cli.commands.meta_test import meta_test
from mgrl_cli.commands.meta_train import meta_train
from mgrl_cli.commands.plot import plot
from mgrl_cli.commands.progress import progress
from mgrl_cli.commands.resume import resume
from mgrl_cli.commands.runs import runs
from mgrl_cli.commands.verify import verify
from mgrl_cli.errors import Interrupted, MgrlError

COMMANDS: Mapping[str, Callable[..., None]] = {
    "meta-train": meta_train,
    "meta-test": meta_test,
    "baseline": baseline,
    "matrix": matrix,
    "progress": progress,
    "resume": resume,
    "runs": runs,
    "inspect": inspect,
    "plot": plot,
    "verify": verify,
    "envs": envs,
    "doctor": doctor,
}
"""Name → function, in the order of `mgrl --help`."""

INTERNAL_ERROR = 1
USAGE_ERROR = 2
ENVIRONMENT_FAILED = 5
STORAGE_REFUSED = 7
INTERRUPTED = 130
PIPE_CLOSED = 141
"""128 + SIGPIPE: what a shell reports for any program whose reader went away."""

_STORAGE_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mgrl` with `argv` (default: the process's arguments) and return its exit code."""
    return run(build_app(COMMANDS), sys.argv[1:] if argv is None else argv)


def build_app(commands: Mapping[str, Callable[..., None]]) -> typer.Typer:
    """Return a Typer application with these commands, named by their keys."""
    app = typer.Typer(
        name="mgrl",
        help="Meta-learn reinforcement-learning objectives, test them on new environments, "
        "look inside what was learned.",
        epilog="Exit codes: 0 ok, 1 internal error, 2 usage, 3 run is locked, 4 bad file, "
        "5 environment or worker failed, 6 diverged, 7 storage, 129/130/143 stopped by a signal.",
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_global_options)
    for name, command in commands.items():
        app.command(name)(command)
    return app


def run(app: typer.Typer, argv: Sequence[str]) -> int:
    """Run `app`; return the exit code, having told stderr in one line of whatever went wrong.

    The traceback is printed too if `argv` holds `--debug`.
    """
    try:
        try:
            _invoke(app, list(argv) or ["--help"])
        finally:
            if sys.stdout is not None:  # None where the process was started without one
                sys.stdout.flush()
    except typer.Exit as error:
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as exit_request:
        # rich, met with a broken pipe, points stdout at nothing and exits with 1
        if isinstance(exit_request.__context__, BrokenPipeError):
            return PIPE_CLOSED
        raise
    except Exception as error:  # the boundary: every error is reported, none is dropped
        return _report(error, is_debug="--debug" in argv)
    return 0


def _invoke(app: typer.Typer, arguments: list[str]) -> None:
    """Parse and run, without the handlers of Typer's own `main`, which would hide I/O errors."""
    command = typer.main.get_command(app)
    if "_MGRL_COMPLETE" in os.environ:  # the shell asks for completions; exits by itself
        command.main(arguments, prog_name="mgrl")
    with command.make_context("mgrl", arguments) as context:
        command.invoke(context)


def _report(error: Exception, *, is_debug: bool) -> int:
    """Print the line for `error` and return its exit code."""
    if isinstance(error, BrokenPipeError) and _reader_is_gone():
        _discard_stdout()
        return PIPE_CLOSED
    if is_debug:
        typer.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    exit_code, message = _describe(error)
    prefix = "mgrl: " if isinstance(error, Interrupted) else "mgrl: error: "
    typer.echo(prefix + _one_line(message), err=True)
    if isinstance(error, OSError):  # perhaps of stdout itself
        _discard_stdout()
    return exit_code


def _describe(error: Exception) -> tuple[int, str]:
    """Return the exit code and the message for the user."""
    if isinstance(error, MgrlError):
        return error.exit_code, str(error)
    if isinstance(error, typer.TyperException):
        return USAGE_ERROR, _usage_message(error)
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return STORAGE_REFUSED, (
            f"{error.strerror}: raise the limit of 'ulimit -n', or use fewer --workers"
        )
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRNOS:
        where = f" ({error.filename})" if error.filename else ""
        return STORAGE_REFUSED, (
            f"cannot read or write: {error.strerror}{where}. "
            "Check free space and permissions, then run the command again"
        )
    environment_code = _environment_exit_code(error)
    if environment_code is not None:
        return environment_code, str(error)
    return INTERNAL_ERROR, (
        f"internal error: {type(error).__name__}: {error}; "
        "run again with --debug for the traceback and report it"
    )


def _environment_exit_code(error: Exception) -> int | None:
    """Return the exit code if `error` is one of the environments', which know no MgrlError."""
    if "envs.errors" not in sys.modules:  # then none can have been raised; importing is slow
        return None
    from envs.errors import EnvironmentFailure, EnvironmentSetupError

    if isinstance(error, EnvironmentSetupError):
        return USAGE_ERROR
    return ENVIRONMENT_FAILED if isinstance(error, EnvironmentFailure) else None


def _usage_message(error: typer.TyperException) -> str:
    """Return Typer's message, with the value that was got and where to read on.

    The classes below TyperException are private, hence the attributes by name.
    """
    message = error.format_message()
    possibilities: Sequence[str] = getattr(error, "possibilities", None) or ()
    if possibilities:
        message = f"{error.message}. Did you mean '{possibilities[0]}'?"
    details: Callable[[], list[dict[str, object]]] | None = getattr(error.__cause__, "errors", None)
    if details is not None:  # pydantic says what it expected, not what it got
        message += f", got {details()[0].get('input')!r}"
    context = getattr(error, "ctx", None)
    command = "mgrl" if context is None else context.command_path
    end = "" if message.endswith((".", "?")) else "."
    return f"{message}{end} See: {command} --help"


def _one_line(message: str) -> str:
    """Return `message` without line breaks or control characters (files may hold any text)."""
    joined = re.sub(r"\s*[\r\n\t]+\s*", " ", message.strip())
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in joined
    )


def _reader_is_gone() -> bool:
    """Return True if nobody reads stdout or stderr any more (then the broken pipe is not ours)."""
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        try:
            poll.register(stream.fileno(), 0)
        except (AttributeError, OSError, ValueError):  # no stream, no descriptor, or closed
            continue
    return bool(poll.poll(0))


def _discard_stdout() -> None:
    """Point stdout at nothing if it cannot be written: Python flushes once more at exit."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123 -- a device, not a path
            os.dup2(nothing.fileno(), sys.stdout.fileno())


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"mgrl {mgrl_cli.__version__}")
        raise typer.Exit


def _global_options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    debug: DebugOption = False,
) -> None:
    """The options before the command's name; `--debug` is read from the command line by `run`."""
