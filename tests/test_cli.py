"""The error boundary of the command line: exit codes, one line on stderr, nothing heavy loaded."""

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import mgrl_cli
from envs.errors import EnvironmentFailure, EnvironmentSetupError
from envs.registry import ALIASES
from mgrl_cli.cli import COMMANDS, build_app, main, run
from mgrl_cli.commands import DebugOption
from mgrl_cli.errors import (
    DivergedError,
    FileError,
    Interrupted,
    MgrlError,
    RunLockedError,
    StorageError,
    UsageError,
    WorkerError,
)

MGRL = [sys.executable, "-m", "mgrl_cli"]


def run_raising(error: BaseException, arguments: Sequence[str] = ()) -> int:
    """Run an application whose only command, `fail`, raises `error`."""

    def fail(*, debug: DebugOption = False) -> None:
        raise error

    return run(build_app({"fail": fail}), ["fail", *arguments])


def run_command(command: Callable[..., None], *arguments: str) -> int:
    return run(build_app({"try": command}), ["try", *arguments])


def mgrl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MGRL, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (MgrlError("a"), 1),
        (UsageError("a"), 2),
        (RunLockedError("a"), 3),
        (FileError("a"), 4),
        (WorkerError("a"), 5),
        (DivergedError("a"), 6),
        (StorageError("a"), 7),
        (EnvironmentSetupError("a"), 2),
        (EnvironmentFailure("a"), 5),
    ],
)
def test_each_error_has_its_exit_code_and_one_line(
    error: Exception, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_raising(error) == exit_code

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "mgrl: error: a\n"


@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM],
)
def test_a_storage_that_refuses_exits_7_and_names_the_file(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_raising(OSError(number, os.strerror(number), "runs/a/config.toml")) == 7

    line = capsys.readouterr().err
    assert line.startswith(f"mgrl: error: cannot read or write: {os.strerror(number)}")
    assert "(runs/a/config.toml)" in line


def test_another_os_error_is_internal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_raising(OSError(errno.ENOTDIR, "Not a directory")) == 1
    assert "internal error: NotADirectoryError" in capsys.readouterr().err


@pytest.mark.parametrize("error", [EOFError("a"), RuntimeError("a"), BrokenPipeError("a")])
def test_an_unforeseen_error_is_one_line_that_points_to_debug(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_raising(error) == 1

    assert capsys.readouterr().err == (
        f"mgrl: error: internal error: {type(error).__name__}: a; "
        "run again with --debug for the traceback and report it\n"
    )


def test_debug_shows_the_traceback_and_keeps_line_and_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_raising(FileError("no such file"), ["--debug"]) == 4

    captured = capsys.readouterr().err
    assert captured.startswith("Traceback (most recent call last):")
    assert captured.endswith("mgrl: error: no such file\n")


def test_debug_may_stand_before_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise FileError("no such file")

    assert run(build_app({"fail": fail}), ["--debug", "fail"]) == 4
    assert "Traceback" in capsys.readouterr().err


def test_the_cause_of_an_error_is_not_shown_without_debug(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        try:
            int("x")
        except ValueError as error:
            raise FileError("not a number") from error

    assert run_command(fail) == 4
    assert capsys.readouterr().err == "mgrl: error: not a number\n"


def test_a_message_is_one_line_and_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_raising(FileError("first\n  second \x1b[31m\x07 α − 'é'\n"))
    assert capsys.readouterr().err == "mgrl: error: first second \\x1b[31m\\x07 α − 'é'\n"


@pytest.mark.parametrize(("signal_number", "exit_code"), [(1, 129), (2, 130), (15, 143)])
def test_a_run_stopped_by_a_signal_is_no_error(
    signal_number: int, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_raising(Interrupted("stopped, state saved", signal_number)) == exit_code
    assert capsys.readouterr().err == "mgrl: stopped, state saved\n"


def test_control_c_exits_130_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_raising(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == ""


def test_a_command_that_returns_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: None) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["env"], ["No such command 'env'", "Did you mean 'envs'?", "mgrl --help"]),
        (["envs", "--jsn"], ["--jsn", "Did you mean '--json'?", "mgrl envs --help"]),
        (["envs", "--zzz"], ["No such option: --zzz", "mgrl envs --help"]),
        (["envs", "extra"], ["unexpected extra argument", "extra"]),
        (["--debug"], ["Missing command"]),
    ],
)
def test_wrong_usage_exits_2_with_one_line_and_a_suggestion(
    arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    last_line = captured.err.splitlines()[-1]
    assert last_line.startswith("mgrl: error: ")
    for part in parts:
        assert part in last_line
    if "--debug" not in arguments:
        assert captured.err.count("\n") == 1


def test_a_wrong_value_names_the_option_and_what_was_got(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def count(*, agents: int = 1) -> None:
        raise AssertionError(agents)

    assert run_command(count, "--agents", "2.5") == 2

    line = capsys.readouterr().err
    assert "'--agents'" in line
    assert "'2.5'" in line
    assert "valid int" in line


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "Usage: mgrl" in out
    for name in COMMANDS:
        assert name in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"Usage: mgrl {name}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mgrl {mgrl_cli.__version__}\n"


def test_help_loads_nothing_heavy() -> None:
    heavy = (
        *("torch", "numpy", "zarr", "gymnasium", "matplotlib", "mujoco", "tensorboard"),
        *("numba", "pydantic", "multiprocessing"),
    )
    program = (
        "import sys; from mgrl_cli.cli import main; main(['--help']); "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_help_takes_hardly_longer_than_that_of_the_smallest_program() -> None:
    """Users are promised 0.3 s; half of that is Python's and typer's, whatever the machine.

    The best of five, in processor time: the machine may be busy with other things.
    """
    smallest = (
        "import typer; app = typer.Typer(); app.command()(lambda a=1: a); "
        "app.command()(lambda b=1: b); app(['--help'])"
    )
    times_s: dict[str, list[float]] = {"mgrl": [], "smallest": []}
    for _ in range(5):
        for name, words in (("mgrl", ["-m", "mgrl_cli", "--help"]), ("smallest", ["-c", smallest])):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *words], capture_output=True, timeout=60, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
            times_s[name].append(spent_s)
    assert min(times_s["mgrl"]) < 2 * min(times_s["smallest"])


def test_the_process_exits_with_the_code_of_the_boundary() -> None:
    result = mgrl("evns")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "Did you mean 'envs'?" in result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["envs", "--json"], ["envs"]])
def test_a_reader_that_goes_away_ends_the_command_quietly(arguments: list[str]) -> None:
    process = subprocess.Popen(
        [*MGRL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        assert "mgrl" not in stderr.read()  # physics engines print warnings of their own
    assert process.wait(timeout=60) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_behind_stdout_is_a_storage_error() -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [*MGRL, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert result.returncode == 7
    assert result.stderr.count("\n") == 1
    assert os.strerror(errno.ENOSPC) in result.stderr


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'LearndObjective'"):
        _ = mgrl_cli.LearndObjective
    assert "LearnedObjective" in dir(mgrl_cli)


def test_envs_lists_every_known_environment_with_its_sizes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["envs"]) == 0

    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert set(ALIASES) <= set(rows)
    # name, id, cos θ, sin θ and angular velocity; one torque; 200 steps
    assert rows["pendulum"] == ["pendulum", "mgrl/Pendulum-v0", "3", "1", "200"]


def test_envs_as_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "--json"]) == 0

    environments = json.loads(capsys.readouterr().out)["environments"]
    assert [info["alias"] for info in environments] == list(ALIASES)
    pendulum = next(info for info in environments if info["alias"] == "pendulum")
    assert pendulum == {
        "alias": "pendulum",
        "id": "mgrl/Pendulum-v0",
        "obs_size": 3,
        "act_size": 1,
        "max_episode_steps": 200,
        "missing_extra": None,
    }


def test_envs_says_how_to_get_a_missing_extra() -> None:
    """A fresh process in which Box2D cannot be imported, as where the extra is not installed."""
    program = (
        "import sys; sys.modules['Box2D'] = None; from mgrl_cli.cli import main; "
        "sys.exit(main(['envs']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0
    (lunar,) = [line for line in result.stdout.splitlines() if line.startswith("lunar")]
    assert lunar.split() == [
        "lunar", "LunarLanderContinuous-v3", "-", "-", "-", "pip", "install", "'mgrl[box2d]'",
    ]  # fmt: skip


def test_a_process_without_stdout_still_works() -> None:
    shell = f'"{sys.executable}" -m mgrl_cli envs >&-'
    result = subprocess.run(
        ["sh", "-c", shell], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
