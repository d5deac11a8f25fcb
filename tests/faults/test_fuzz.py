"""Random changes to every kind of file, and random command lines: an answer in one line, always.

Nothing here may train: every run lacks a full chunk of its replay, so a resume ends where the last
agent is restored, after everything else was taken in.
"""

import io
import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from mgrl_cli.cli import main
from mgrl_cli.errors import MgrlError
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.settings import read_settings, settings_sha256
from mgrl_cli.run_dir.tensor_file import read_tensor_file, tensor_file_bytes
from tests.faults.crashed_runs import crashed_run
from tests.faults.doctoring import doctor_manifest, doctor_part, only_checkpoint
from tests.faults.tally import IS_CAMPAIGN, trial, trials

AGENT = "agent-000.safetensors"
LONGEST_S = 10
"""Processor time of one command."""


def fuzz(suite: int) -> settings:
    """Return the same examples every time in the suite, new ones in every campaign."""
    return settings(
        max_examples=trials(campaign=500, suite=suite),
        derandomize=not IS_CAMPAIGN,
        database=None,
        deadline=None,
        print_blob=True,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run whose second agent cannot be restored, and which has one checkpoint."""
    run = crashed_run(tmp_path_factory).copy(tmp_path_factory.mktemp("fuzz") / "run")
    only_checkpoint(run)
    (run.agent_buffer(1) / "reward" / "c" / "0").unlink()
    return run


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run without any replay, quick to look at."""
    run = crashed_run(tmp_path_factory).copy(tmp_path_factory.mktemp("poor") / "run")
    only_checkpoint(run)
    for path in run.buffer.glob("agent-*/*/c"):
        path.rename(path.with_name("gone"))
    return run


def assert_civil(*arguments: object) -> None:
    """Run a command: it must end with a known exit code and at most one line on what is wrong."""
    words = [str(argument) for argument in arguments]
    out, err, start_s = io.StringIO(), io.StringIO(), time.process_time()
    with redirect_stdout(out), redirect_stderr(err):
        exit_code = main(words)
    told = err.getvalue()
    assert exit_code in (0, 2, 3, 4, 5, 6, 7), (words, told)
    assert "Traceback" not in told, words
    assert sum("error:" in line for line in told.splitlines()) <= 1, (words, told)
    if exit_code:
        assert told.splitlines()[-1].startswith("mgrl: error: "), (words, told)
    assert time.process_time() - start_s < LONGEST_S, words


@contextmanager
def unchanged_after(*paths: Path) -> Iterator[None]:
    before = [path.read_bytes() for path in paths]
    try:
        yield
    finally:
        for path, content in zip(paths, before, strict=True):
            path.write_bytes(content)


# ---- random changes

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.sampled_from([10**6, 2**31, 2**63, 10**30, -(10**30)])
    # None so small that a run, which flushes them to zero for this whole process, changes them.
    | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
    | st.text(max_size=10)
    | st.sampled_from(["../../victim", "agent-002", "agent-999.safetensors", "0" * 64, "\0", "\n"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def places_in(document: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container in a document with each of its keys."""
    if isinstance(document, dict | list):
        for key in [*(document if isinstance(document, dict) else range(len(document)))]:
            yield document, key
            yield from places_in(document[key])


@st.composite
def changed(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a document with a few values replaced, removed or moved."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        places = [*places_in(document)]
        if not places:
            break
        container, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["replace", "replace", "nudge", "remove", "rename"])):
            case "nudge" if type(container[key]) in (int, float):
                container[key] += draw(st.sampled_from([-1, 1, 1000]))
            case "remove":
                del container[key]
            case "rename" if isinstance(container, dict):
                container[draw(st.text(max_size=8))] = container.pop(key)
            case _:
                container[key] = draw(VALUES)
    return document


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """Return bytes with a few of them changed, cut out or put in."""
    result = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(result)))
        end = place + draw(st.sampled_from([0, 1, 1, 1, 8, 1000]))
        result[place:end] = draw(st.binary(max_size=8))
    return bytes(result)


# ---- one file at a time


@fuzz(suite=30)
@given(data=st.data())
def test_any_manifest_is_answered(run: RunDirectory, data: st.DataObject) -> None:
    checkpoint = only_checkpoint(run)
    manifest = checkpoint / "manifest.json"
    content = manifest.read_bytes()
    with unchanged_after(manifest), trial("38 fuzz: manifest"):
        if data.draw(st.integers(0, 3)):
            document = data.draw(changed(json.loads(content)))
            doctor_manifest(checkpoint, lambda own: (own.clear(), own.update(document)))
        else:
            manifest.write_bytes(data.draw(mutated(content)))
        assert_civil("resume", run.path, "--workers", "0")
        for command in ("verify", "inspect"):
            assert_civil(command, checkpoint)
        if data.draw(st.integers(0, 7)) == 0:
            assert_civil(data.draw(st.sampled_from(["verify", "inspect"])), run.path)


@fuzz(suite=30)
@given(data=st.data())
def test_any_agent_file_is_answered(run: RunDirectory, data: st.DataObject) -> None:
    checkpoint = only_checkpoint(run)
    file = checkpoint / AGENT
    content = file.read_bytes()
    with unchanged_after(file, checkpoint / "manifest.json"), trial("38 fuzz: agent file"):
        if data.draw(st.integers(0, 3)):
            document, tensors = read_tensor_file(file, what="agent", max_bytes=2**30)
            content = tensor_file_bytes(tensors, data.draw(changed(document)))
        else:
            header = 8 + int.from_bytes(content[:8], "little")
            content = data.draw(mutated(content[:header])) + content[header:]
        doctor_part(checkpoint, AGENT, content)
        assert_civil("resume", run.path, "--workers", "0")
        for command in ("verify", "inspect"):
            assert_civil(command, checkpoint)


MODEST = st.sampled_from(
    [
        *(0, 1, 2, 3, 8, 0.5, 1.5, -1, True, False, "", "mean", "zero", "unit", "agent", [], {}),
        *("transitions", "meta-test", "untrained", "pendulum", "lunar", "nothing:Nothing-v0"),
        *(["learned"], ["ddpg", "untrained"]),
        *([{"id": "cartpole"}], [{"id": "pendulum", "agents": 2}]),
    ]
)
"""Values that fit somewhere; none of them makes a run large."""


@fuzz(suite=40)
@given(data=st.data())
def test_any_settings_are_answered(poor: RunDirectory, data: st.DataObject) -> None:
    """Settings that are valid get the digest they need to be taken for the run's own."""
    checkpoint = only_checkpoint(poor)
    with (
        unchanged_after(poor.config, checkpoint / "manifest.json"),
        trial("38 fuzz: config.toml"),
    ):
        if data.draw(st.integers(0, 3)):
            document = read_settings(poor).model_dump(mode="json")
            for _ in range(data.draw(st.integers(1, 3))):
                container, key = data.draw(st.sampled_from([*places_in(document)]))
                container[key] = data.draw(MODEST)
            poor.config.write_text(tomli_w.dumps(document))
        else:
            poor.config.write_bytes(data.draw(mutated(poor.config.read_bytes())))
        try:
            digest = settings_sha256(read_settings(poor))
            doctor_manifest(checkpoint, lambda own: own.update(settings_sha256=digest))
        except MgrlError:
            pass
        assert_civil("resume", poor.path, "--workers", "0")
        assert_civil(data.draw(st.sampled_from(["verify", "inspect"])), poor.path)
        # The name of the run is refused after the settings, so nothing can begin.
        options = ("--run", "../x", "--runs-dir", poor.path.parent / "new")
        assert_civil("meta-train", "--config", poor.config, *options)
    assert not (poor.path.parent / "new").exists()


@fuzz(suite=20)
@given(data=st.data())
def test_any_metrics_are_answered(poor: RunDirectory, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from([poor.agent_metrics(0), poor.population_metrics]))
    with unchanged_after(file), trial("38 fuzz: metrics"):
        lines = file.read_bytes().splitlines()
        for _ in range(data.draw(st.integers(1, 3))):
            number = data.draw(st.integers(0, len(lines) - 1))
            if data.draw(st.booleans()):
                row = data.draw(changed(json.loads(file.read_bytes().splitlines()[number])))
                lines[number] = json.dumps(row).encode()
            else:
                lines[number] = data.draw(mutated(lines[number]) | st.binary(max_size=30))
        file.write_bytes(b"\n".join(lines) + data.draw(st.sampled_from([b"", b"\n", b'\n{"a'])))
        for command in ("inspect", "verify"):
            assert_civil(command, poor.path)
        if IS_CAMPAIGN and data.draw(st.integers(0, 19)) == 0:  # a figure takes a second
            with warnings.catch_warnings():  # an environment's name may hold any character
                warnings.filterwarnings("ignore", message="Glyph")
                assert_civil("inspect", poor.path, "--plot", poor.path.parent / "figure.png")
        assert_civil("resume", poor.path, "--workers", "0")


# ---- command lines

OPTIONS = [
    *("--env", "--objective", "--seeds", "--against", "--steps", "--preset", "--run", "--runs-dir"),
    *("--seed", "--workers", "--max-restarts", "--config", "--set", "--device", "--quiet"),
    *("--json", "--plot", "--help", "-h", "--", "-", "--no-such-option", "--steps=", "--set="),
]
WORDS = [
    *("pendulum", "nothing", "ddpg,untrained", "smoke", "cpu", "cuda", "0", "-1", "1e9", "nan"),
    *("9" * 30, "", ".", "..", "/", "/dev/null", "/dev/zero", "a\0b", "\udcff", "x" * 5000, "~"),
    *("seed=1", "seed=nan", "=", "a.b=c", "figure.png", "figure.txt", "../up"),
]


@pytest.fixture(scope="module")
def hopeless(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run without a whole checkpoint and without a whole objective: nothing can begin from it."""
    run = crashed_run(tmp_path_factory).copy(tmp_path_factory.mktemp("hopeless") / "runs" / "run")
    (only_checkpoint(run) / AGENT).write_bytes(b"")
    run.objective.write_bytes(b"")
    return run


@fuzz(suite=60)
@given(data=st.data())
def test_any_command_line_is_answered(hopeless: RunDirectory, data: st.DataObject) -> None:
    parts = [hopeless.path, hopeless.path.parent, hopeless.objective, hopeless.config]
    parts += [hopeless.buffer, hopeless.checkpoints, only_checkpoint(hopeless) / AGENT]
    words = st.sampled_from([*OPTIONS, *WORDS, *map(str, parts)]) | st.text(max_size=15)
    command = data.draw(st.sampled_from(["verify", "inspect", "resume", "meta-test"]))
    arguments = data.draw(st.lists(words.filter(lambda word: word != "--debug"), max_size=6))
    with pytest.MonkeyPatch.context() as patch, trial("38 fuzz: command line"):
        patch.chdir(hopeless.path.parent.parent)
        assert_civil(command, *arguments)
