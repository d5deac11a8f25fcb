"""Files, names and settings meant to harm, given to the real commands: refused, nothing touched."""

import base64
import io
import json
import pickle  # noqa: TID251 - to write what must not be read
import re
import shutil
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.tensor_file import read_tensor_file
from tests.commands.tiny_runs import Outcome
from tests.faults.crashed_runs import CrashedRun, contents, crashed_run
from tests.faults.doctoring import (
    Document,
    doctor_manifest,
    doctor_part,
    objective_bytes,
    only_checkpoint,
)
from tests.faults.tally import IS_CAMPAIGN, trial, trials
from tests.runtime.conftest import fingerprint

READING = ("verify", "inspect")
SOON_S = 10.0
"""Processor time of one command that must not follow absurd figures."""
MIB = 2**20

Mgrl = Callable[..., Outcome]


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> CrashedRun:
    return crashed_run(tmp_path_factory)


@pytest.fixture
def run(crashed: CrashedRun, tmp_path: Path) -> RunDirectory:
    return crashed.copy(tmp_path / "runs" / "run")


@pytest.fixture
def mgrl(capsys: pytest.CaptureFixture[str]) -> Mgrl:
    def call(*arguments: object) -> Outcome:
        words = [str(argument) for argument in arguments]
        return Outcome(capsys, [*words, "--workers", "0"] if words[0] == "resume" else words)

    return call


# ---- row 11: metadata of the replay


def peak_bytes() -> int:
    """Return the most memory this process has had since it was last asked to forget."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kib) * 1024


def array_metadata(document: Document, **changes: object) -> bytes:
    return json.dumps({**document, **changes}).encode()


def attributes(document: Document, **changes: object) -> bytes:
    return array_metadata(document, attributes={**document["attributes"], **changes})


ARRAY_TAMPERINGS: dict[str, Callable[[Document], bytes]] = {
    "absurd length": lambda d: array_metadata(d, shape=[10**15, *d["shape"][1:]]),
    "absurd width": lambda d: array_metadata(d, shape=[*d["shape"][:1], 10**15]),
    "absurd dimensions": lambda d: array_metadata(d, shape=[2] * 10_000),
    "huge chunks": lambda d: array_metadata(
        d, chunk_grid={"name": "regular", "configuration": {"chunk_shape": [10**15]}}
    ),
    "objects": lambda d: array_metadata(d, data_type="object"),
    "wrong type": lambda d: array_metadata(d, data_type="complex128"),
    "zstd": lambda d: array_metadata(d, codecs=[*d["codecs"][:1], {"name": "zstd"}]),
    "pickle codec": lambda d: array_metadata(d, codecs=[{"name": "numcodecs.pickle"}]),
    "no codec": lambda d: array_metadata(d, codecs=[]),
    "transformers": lambda d: array_metadata(d, storage_transformers=[{"name": "x"}]),
    "cut short": lambda d: json.dumps(d).encode()[:-9],
    "empty": lambda _: b"",
    "no object": lambda _: b"[]",
    "nested deeply": lambda _: b"[" * 500_000,
    "long number": lambda _: b'{"shape": ' + b"9" * 500_000 + b"}",
    "huge": lambda d: json.dumps(d).encode() + b" " * (64 * MIB),
    "not UTF-8": lambda _: b"\xff\xfe{}",
}
GROUP_TAMPERINGS: dict[str, Callable[[Document], bytes]] = {
    "rows that are not there": lambda d: attributes(d, committed_rows=10**12),
    "rows beyond reason": lambda d: attributes(d, committed_rows=10**18),
    "rows below zero": lambda d: attributes(d, committed_rows=-1),
    "rows as text": lambda d: attributes(d, committed_rows="4200"),
    "wide observations": lambda d: attributes(d, obs_size=2**16),
    "other version": lambda d: attributes(d, format_version=2),
    "consolidated": lambda d: array_metadata(d, attributes={}, consolidated_metadata={"x": 1}),
    "array": lambda d: array_metadata(d, node_type="array"),
    "cut short": lambda d: json.dumps(d).encode()[:-9],
    "nested deeply": lambda _: b'{"a":' * 100_000,
}
TAMPERINGS = [
    *(("reward/zarr.json", name, tamper) for name, tamper in ARRAY_TAMPERINGS.items()),
    *(("zarr.json", name, tamper) for name, tamper in GROUP_TAMPERINGS.items()),
]


def test_tampered_replay_metadata_is_refused_at_once_in_little_memory(
    mgrl: Mgrl, run: RunDirectory
) -> None:
    for (
        command
    ) in READING:  # what is imported and compiled once is not held against the first tampering
        assert mgrl(command, run.path).exit_code == 0
    for inner, name, tamper in TAMPERINGS[:: 1 if IS_CAMPAIGN else 4]:
        file = run.agent_buffer(0) / inner
        whole = file.read_bytes()
        file.write_bytes(tamper(json.loads(whole)))
        for command in READING:
            with trial("11 tampered zarr.json"):
                Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
                before, start_s = peak_bytes(), time.process_time()
                # A run is proved by its checkpoint, which does not need all of the metadata.
                outcome = mgrl(command, run.path if command == "inspect" else run.buffer)
                assert outcome.exit_code == 4, (command, inner, name)
                assert "agent-000" in outcome.err, (command, inner, name)
                assert len(outcome.err.splitlines()) == 1, (command, inner, name)
                assert time.process_time() - start_s < SOON_S, (command, inner, name)
                assert peak_bytes() - before < 500 * MIB, (command, inner, name)
        file.write_bytes(whole)


# ---- row 12: pickles


class Bomb:
    """Unpickled, it leaves a trace."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.canary,)


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def object_array(bomb: Bomb) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([bomb], dtype=object), allow_pickle=True)
    return stream.getvalue()


def stranger_files(canary: Path) -> dict[str, bytes]:
    bomb = Bomb(canary)
    torch_zip = zipped(**{"archive/data.pkl": pickle.dumps(bomb, 2), "archive/version": b"3\n"})
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, bomb)
    serialized = base64.b64encode(pickle.dumps(bomb)).decode()
    data = json.dumps({"policy_class": {":type:": "type", ":serialized:": serialized}}).encode()
    return {
        "new.pt": torch_zip,
        "old.pt": b"".join(pickle.dumps(part, 2) for part in parts),
        "objective.pkl": pickle.dumps(bomb),
        "words.pkl": pickle.dumps({"weight": bomb}, 0),
        "renamed.safetensors": torch_zip,
        "pickled.safetensors": pickle.dumps(bomb),
        "objects.npy": object_array(bomb),
        "objects.npz": zipped(**{"weight.npy": object_array(bomb)}),
        "stable_baselines.zip": zipped(**{"data": data, "policy.pth": torch_zip}),
        "stable_baselines.safetensors": zipped(**{"data": data, "policy.pth": torch_zip}),
    }


def test_the_payloads_would_go_off(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    files = stranger_files(canary)
    readers: dict[str, Callable[[bytes], object]] = {
        "objective.pkl": pickle.loads,
        "words.pkl": pickle.loads,
        "objects.npy": lambda content: np.load(io.BytesIO(content), allow_pickle=True),  # noqa: TID251,RUF100
        "new.pt": lambda content: torch.load(io.BytesIO(content), weights_only=False),  # noqa: TID251
    }
    for name, read in readers.items():
        read(files[name])
        canary.unlink()


def test_a_pickle_as_objective_is_refused_and_never_runs(mgrl: Mgrl, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name, content in stranger_files(canary).items():
        file = tmp_path / name
        file.write_bytes(content)
        for words in (
            *(("meta-test", "--env", "pendulum", "--runs-dir", tmp_path / "new", "--objective"),),
            *(("inspect",), ("verify",), ("resume",)),
        ):
            with trial("12 malicious pickle as a file"):
                outcome = mgrl(*words, file)
                assert outcome.exit_code == 4, (name, words)
                assert name in outcome.refusal, (name, words)
                assert not canary.exists(), (name, words)
    assert not (tmp_path / "new").exists()


Place = Callable[[RunDirectory, bytes], Path]
"""Puts content into a run; returns what somebody would inspect."""


def in_config(run: RunDirectory, content: bytes) -> Path:
    run.config.write_bytes(content)
    return run.path


def in_metrics(run: RunDirectory, content: bytes) -> Path:
    run.agent_metrics(0).write_bytes(content)
    return run.path


def in_chunk(run: RunDirectory, content: bytes) -> Path:
    file = run.agent_buffer(0) / "reward" / "c" / "0"
    file.write_bytes(content.ljust(file.stat().st_size, b"\0"))
    return run.buffer


def in_manifest(run: RunDirectory, content: bytes) -> Path:
    checkpoint = only_checkpoint(run)
    (checkpoint / "manifest.json").write_bytes(content)
    return run.path


def in_part(run: RunDirectory, content: bytes, name: str) -> Path:
    checkpoint = only_checkpoint(run)
    doctor_part(checkpoint, name, content)
    return checkpoint


PLACES: dict[str, Place] = {
    "config": in_config,
    "metrics": in_metrics,
    "chunk": in_chunk,
    "manifest": in_manifest,
    "agent": partial(in_part, name="agent-000.safetensors"),
    "exchange": partial(in_part, name="exchange.safetensors"),
    "checkpoint's objective": partial(in_part, name="objective.safetensors"),
}
FORMS = ["objective.pkl", "new.pt", "objects.npy"][: trials(campaign=3)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", PLACES)
def test_a_pickle_inside_a_run_is_refused_and_never_runs(
    mgrl: Mgrl, run: RunDirectory, tmp_path: Path, place: str, form: str
) -> None:
    canary = tmp_path / "canary"
    inspected = PLACES[place](run, stranger_files(canary)[form])
    for words in (("resume", run.path), ("verify", run.path), ("inspect", inspected)):
        with trial("12 malicious pickle inside a run"):
            outcome = mgrl(*words)
            assert outcome.exit_code == 4, (words, outcome.err)
            assert not canary.exists(), words


def test_a_pickle_as_the_objective_of_a_run_or_as_settings_is_refused_and_never_runs(
    mgrl: Mgrl, run: RunDirectory, tmp_path: Path
) -> None:
    canary, config, new = (tmp_path / name for name in ("canary", "config.toml", "new"))
    contents_of_files = [*stranger_files(canary).values()]
    for content in contents_of_files[:: trials(campaign=1, suite=4)]:
        with trial("12 malicious pickle inside a run", 4):
            run.objective.write_bytes(content)
            for words in (
                *(("inspect", run.path), ("verify", run.path)),
                ("meta-test", "--env", "pendulum", "--objective", run.path),
            ):
                assert mgrl(*words).exit_code == 4
            config.write_bytes(content)
            words = ("meta-train", "--runs-dir", new, "--envs", "pendulum", "--config", config)
            assert mgrl(*words).exit_code in (2, 4)
            assert not canary.exists()
            assert not new.exists()


# ---- rows 15 and 16: objectives that do not fit

Change = Callable[[dict[str, torch.Tensor], Document], object]


def first_tensor(change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    def apply(tensors: dict[str, torch.Tensor], _: Document) -> None:
        tensors[min(tensors)] = change(tensors[min(tensors)])

    return apply


def description(**fields: object) -> Change:
    return lambda _, document: document.update(fields)


def poke(value: float) -> Change:
    return first_tensor(lambda tensor: tensor.index_fill(0, torch.tensor([0]), value))


OBJECTIVES: dict[str, tuple[Change, str]] = {
    "longer": (first_tensor(lambda t: torch.cat([t, t])), r"is torch.float32 \(.*expected .*\("),
    "one more axis": (first_tensor(lambda t: t[None]), r"is torch.float32 \(1, .*expected .*\("),
    "double": (first_tensor(lambda t: t.double()), "is torch.float64.*expected torch.float32"),
    "one too few": (lambda tensors, _: tensors.popitem(), r"missing \['"),
    "one too many": (
        lambda tensors, _: tensors.update(evil=torch.zeros(3)),
        r"not expected \['evil'\]",
    ),
    "other width": (description(width=64), r"is torch.float32 \(.*32.*expected .*\(.*64"),
    "huge width": (description(width=10**9), "width.*less than or equal to 1024"),
    "future version": (description(version=3), "format version 3, expected 1 or 2"),
    "version as text": (description(version="1"), "format version '1', expected 1 or 2"),
    "other format": (description(format="evil"), "format.*'mgrl-objective'"),
    "negative bound": (description(bound=-1.0), "bound.*greater than 0"),
    "unknown field": (description(code="import os"), "code.*not permitted"),
    "NaN": (poke(float("nan")), "not finite"),
    "infinity": (poke(float("inf")), "not finite"),
    "minus infinity": (poke(float("-inf")), "not finite"),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_that_does_not_fit_is_refused_with_what_was_expected(
    mgrl: Mgrl, crashed: CrashedRun, tmp_path: Path, name: str
) -> None:
    change, expected = OBJECTIVES[name]
    document, tensors = read_tensor_file(
        crashed.path / "objective.safetensors", what="objective", max_bytes=MIB
    )
    change(tensors, document)
    file = tmp_path / "hostile.safetensors"
    file.write_bytes(objective_bytes(tensors, document))
    row = "16 objective not finite" if "finite" in expected else "15 objective of another shape"
    with trial(row):
        words = ("meta-test", "--env", "pendulum", "--runs-dir", tmp_path / "new", "--objective")
        outcome = mgrl(*words, file)
        assert outcome.exit_code == 4
        assert re.search(expected, outcome.refusal)
        assert str(file) in outcome.err
        assert not (tmp_path / "new").exists()


# ---- row 13: names that lead elsewhere


@pytest.fixture
def victim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory beside the runs with things that must stay as they are, and a module to run."""
    directory = tmp_path / "victim"
    directory.mkdir()
    (directory / "precious.txt").write_text("keep me")
    (directory / "evil.py").write_text("from pathlib import Path\nPath('canary').touch()\n")
    monkeypatch.chdir(tmp_path)
    return directory


RUN_NAMES = [
    *("../victim/new", "..", ".", "a/../../victim/new", "/tmp/mgrl-evil", "~", "~root/x", "a/b"),
    *("", ".hidden", "-x", "a\0b", "a\nb", "a\\..\\b", "\u2025/x", "a" * 101, "\x1b[2J", "a b"),
]


@pytest.mark.parametrize("name", RUN_NAMES)
def test_a_run_name_cannot_lead_elsewhere(
    mgrl: Mgrl, victim: Path, tmp_path: Path, name: str
) -> None:
    before = contents(tmp_path)
    with trial("13 path traversal: run name"):
        outcome = mgrl("meta-train", "--envs", "pendulum", "--runs-dir", "runs", f"--run={name}")
        assert outcome.exit_code == 2
        assert "run name" in outcome.refusal
        assert contents(tmp_path) == before
        assert not Path("/tmp/mgrl-evil").exists()


ENVIRONMENTS = [
    *("../victim/evil:Evil-v0", "/etc/passwd", "../../etc/passwd", "victim/evil.py:Evil-v0"),
    *("..victim.evil:Evil-v0", "a\0b", "a\0b:Evil-v0", "file:///etc/passwd", "Evil-v0; rm -rf ."),
    *("__import__('os').system('touch canary')", "$(touch canary)", "%s%n", "a" * 5000, ":", "::"),
]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_id_cannot_lead_elsewhere(
    mgrl: Mgrl, victim: Path, tmp_path: Path, name: str
) -> None:
    before = contents(tmp_path)
    with trial("13 path traversal: environment id"):
        outcome = mgrl("meta-train", "--runs-dir", "runs", "--envs", name)
        assert outcome.exit_code == 2
        assert len(outcome.err.splitlines()) == 1
        assert contents(tmp_path) == before


OUTSIDE = "../../../victim/precious.txt"
"""From a checkpoint."""


def rename_file(name: str) -> Callable[[Document], object]:
    return lambda d: d["files"].update({name: d["files"].pop("agent-000.safetensors")})


def rename_metrics(name: str) -> Callable[[Document], object]:
    return lambda d: d["metrics"].update({name: d["metrics"].pop("agent-000.jsonl")})


def rename_replay(name: str) -> Callable[[Document], object]:
    return lambda d: d["replay"].update({name: d["replay"].pop("agent-000")})


MANIFESTS: dict[str, Callable[[Document], object]] = {
    "file above": rename_file(OUTSIDE),
    "absolute file": rename_file("/etc/passwd"),
    "file with a zero byte": rename_file("agent-000.safetensors\0"),
    "file with a line break": rename_file("agent-000.safetensors\n"),
    "file of no agent": rename_file("agent-999.safetensors"),
    "metrics above": rename_metrics("../../victim/precious.jsonl"),
    "metrics of no agent": rename_metrics("agent-999.jsonl"),
    "replay above": rename_replay("../../victim"),
    "replay of no agent": rename_replay("agent-999"),
    "best above": lambda d: d.update(best="../../victim"),
    "best with a line break": lambda d: d.update(best="round-000001\n"),
    "absent agent above": lambda d: d["quarantined"].update({"../../victim": "x"}),
    "evaluation above": lambda d: d["evaluations"].update({"../../victim": 1.0}),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_names_in_a_manifest_cannot_lead_elsewhere(
    mgrl: Mgrl, run: RunDirectory, victim: Path, name: str
) -> None:
    checkpoint = only_checkpoint(run)
    doctor_manifest(checkpoint, MANIFESTS[name])
    before = contents(victim)
    with trial("13 path traversal: manifest"):
        for command in ("resume", "verify"):
            outcome = mgrl(command, run.path)
            assert outcome.exit_code == 4, (command, outcome.err)
        assert mgrl("inspect", checkpoint).exit_code in (0, 4)
        assert contents(victim) == before


LINKED = [
    *("config.toml", "metrics", "checkpoints", "logs", "buffer.zarr", "objectives", ".lock"),
    *("objective.safetensors", "metrics/agent-000.jsonl", "metrics/population.jsonl"),
    *("tensorboard", "checkpoints/round-000006", "buffer.zarr/zarr.json", "buffer.zarr/agent-000"),
    "checkpoints/round-000006/agent-000.safetensors",
    "checkpoints/round-000006/manifest.json",
    *("buffer.zarr/agent-000/reward", "buffer.zarr/agent-000/reward/c/1"),
]


@pytest.mark.parametrize("name", LINKED[: trials(campaign=100, suite=7)])
def test_a_link_out_of_a_run_is_refused_and_what_it_points_to_left_alone(
    mgrl: Mgrl, run: RunDirectory, victim: Path, name: str
) -> None:
    """What is linked to is the real thing, so that nothing else could be the reason to refuse."""
    target = victim / "target"
    if not (run.path / name).exists():
        (run.path / name).touch()
    shutil.move(run.path / name, target)
    (run.path / name).symlink_to(target)
    before = contents(victim)
    with trial("13 path traversal: link in a run"):
        for command in ("resume", "verify"):
            outcome = mgrl(command, run.path)
            assert outcome.exit_code == 4, (command, outcome.err)
        assert mgrl("inspect", run.path).exit_code in (0, 4, 7)  # reads only; 7: no lock of ours
        assert contents(victim) == before


def test_runs_may_be_reached_through_links_that_the_user_made(
    mgrl: Mgrl, crashed: CrashedRun, run: RunDirectory, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(run.path.parent)
    assert mgrl("resume", "run", "--runs-dir", tmp_path / "link").exit_code == 0
    assert fingerprint(run) == crashed.undisturbed


def test_a_new_run_cannot_be_claimed_through_a_link(
    mgrl: Mgrl, victim: Path, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "new").symlink_to(victim / "new")
    with trial("13 path traversal: run name"):
        words = ("meta-train", "--envs", "pendulum", "--preset", "smoke", "--steps", "1")
        outcome = mgrl(*words, "--runs-dir", "runs", "--run", "new", "--workers", "0")
        assert outcome.exit_code == 2
        assert "never overwritten" in outcome.err
        assert not (victim / "new").exists()


# ---- row 14: settings

SETTINGS = [
    ("critic.learning_rate", "-1e-3", "greater than 0"),
    ("critic.learning_rate", "nan", "less than or equal to 1"),
    ("critic.learning_rate", "inf", "less than or equal to 1"),
    ("critic.learning_rate", '"1e-3"', "valid number"),
    ("critic.learning_rat", "1e-3", "Did you mean 'learning_rate'?"),
    ("critic.discount", "1.5", "less than or equal to 1"),
    ("critic.discount", "true", "valid number"),
    ("critic.polyak", "0", "greater than 0"),
    ("critic.hidden", "1000000000", "less than or equal to 16384"),
    ("policy.hidden", "0", "greater than or equal to 1"),
    ("policy.hidden", "64.5", "valid integer"),
    ("policy.clip_norm", "inf", "finite"),
    ("policy.__class__", "1", "unknown key"),
    ("agents", "1000000000", "less than or equal to 4096"),
    ("agents", "0", "greater than or equal to 1"),
    ("agents", "-3", "greater than or equal to 1"),
    ("steps", "0", "greater than or equal to 1"),
    ("steps", "9" * 400, "less than or equal to 1000000000"),
    ("seed", "-1", "greater than or equal to 0"),
    ("seed", "9223372036854775808", "less than or equal to 9223372036854775807"),
    ("seed", "\"__import__('os').system('touch canary')\"", "valid integer"),
    ("seed", "'!!python/object/apply:os.system [\"touch canary\"]'", "valid integer"),
    ("sed", "1", "Did you mean 'seed'?"),
    ("windows.steps", "1", "greater than or equal to 2"),
    ("windows.batch", "0", "greater than or equal to 1"),
    ("windows.sample_by", '"eval"', "'start', 'inside' or 'episode'"),
    ("exploration.noise", "-0.1", "greater than or equal to 0"),
    ("exploration.noise", "nan", "less than or equal to 10"),
    ("schedule.round_steps", "0", "greater than or equal to 1"),
    ("schedule.policy_interval", "5000", "at most schedule.round_steps"),
    ("objective.bound", "-1", "greater than 0"),
    ("compiled", '"yes"', "valid boolean"),
    ("meta.inner_steps", "1000", "less than or equal to 10"),
    ("meta.inner_step_size", "nan", "finite"),
    ("meta.reset", '"all"', "'policy' or 'agent'"),
    ("replay.capacity", "-1", "greater than or equal to 1"),
    ("replay.capacity", "1e9", "valid integer"),
    ("evaluation.episodes", "0", "greater than or equal to 1"),
    ("checkpoints.interval_s", "nan", "finite"),
    ("checkpoints.interval_s", "inf", "finite"),
    ("checkpoints.interval_s", "-1", "greater than or equal to 0"),
    ("checkpoints.keep", "0", "greater than or equal to 1"),
    ("checkpoints.keep", "1000000", "less than or equal to 10000"),
    ("checkpoints.kep", "3", "Did you mean 'keep'?"),
    ("checkpoint.keep", "3", "Did you mean 'checkpoints'?"),
    ("supervision.hang_timeout_s", "-5", "greater than or equal to 1"),
    ("supervision.hang_timeout_s", "nan", "finite"),
    ("supervision.hang_timeout_s", "inf", "finite"),
    ("supervision.max_restarts", "-1", "greater than or equal to 0"),
    ("supervision.max_restarts", "10000000000", "less than or equal to 1000000000"),
    ("supervision.max_failed_episodes", "0", "greater than or equal to 1"),
    ("supervision.max_skipped_updates", "{}", "valid integer"),
    ("rules", "[]", "at least 1 item"),
    ("rules", '["learned", "exec"]', "'learned', 'ddpg', 'td3', 'reinforce', "),
    ("envs", "3", "valid list"),
    ("envs", '[{id = "pendulum", agents = -1}]', "greater than or equal to 0"),
    ("envs", '[{id = "pendulum", module = "os"}]', "unknown key"),
    ("envs", "[{id = 1}]", "valid string"),
]


@pytest.mark.parametrize(("key", "value", "expected"), SETTINGS)
def test_a_hostile_setting_is_refused_by_name_with_what_is_allowed(
    mgrl: Mgrl, victim: Path, tmp_path: Path, key: str, value: str, expected: str
) -> None:
    file = tmp_path / "hostile.toml"
    file.write_text(f"{key} = {value}\n")
    before = contents(tmp_path)
    envs = () if key == "envs" else ("--envs", "pendulum")
    for words in (("--set", f"{key}={value}"), ("--config", file)):
        with trial("14 hostile setting"):
            outcome = mgrl("meta-train", *envs, "--runs-dir", "runs", *words)
            assert outcome.exit_code == 2
            section = key.partition(".")[0] if "'checkpoints'" in expected else key
            assert section in outcome.refusal
            assert expected in outcome.refusal
            assert contents(tmp_path) == before


FILES = {
    "yaml": b"!!python/object/apply:os.system ['touch canary']\n",
    "json": b'{"seed": 1}',
    "html": b"<html><script>",
    "a table twice": b"[critic]\nhidden = 8\n[critic]\nhidden = 8\n",
    "control characters": b"seed = 1 # \x1b[2J\n",
    "zero bytes": b"seed\0 = 1\n",
    "long number": b"seed = " + b"9" * 10_000,
    "deep": b"x = " + b"[" * 100_000,
    "dots": b"seed" + b".a" * 10_000 + b" = 1",
    "dates": b"seed = 1979-05-27T07:32:00Z",
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_settings_file_is_refused(
    mgrl: Mgrl, victim: Path, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "hostile.toml"
    file.write_bytes(FILES[name])
    before = contents(tmp_path)
    with trial("14 hostile settings file"):
        outcome = mgrl("meta-train", "--envs", "pendulum", "--runs-dir", "runs", "--config", file)
        assert outcome.exit_code == 2
        assert outcome.refusal
        assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["long number", "deep", "dots"])
def test_hostile_settings_inside_a_run_are_refused_at_once(
    mgrl: Mgrl, run: RunDirectory, name: str
) -> None:
    run.config.write_bytes(FILES[name])
    with trial("14 hostile settings file"):
        for command in ("resume", *READING):
            start_s = time.process_time()
            outcome = mgrl(command, run.path)
            assert outcome.exit_code == 4, (command, outcome.err)
            assert "config.toml" in outcome.err, (command, outcome.err)
            assert time.process_time() - start_s < SOON_S, command
