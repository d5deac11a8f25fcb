"""Objective files: exact copies, refusal of anything else in bounded time, and the loss they hold.

The hostile files are written by hand here: 8 bytes of header length, a JSON header, raw tensors.
"""

import hashlib
import io
import json
import math
import os
import pickle  # noqa: TID251 - to write what must not be read
import resource
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

import mgrl_cli
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork, ObjectiveShape, ObjectiveSignals
from mgrl_cli.errors import FileError, StorageError, UsageError
from mgrl_cli.objective_file import LearnedObjective, ObjectiveMetadata

ROOT = Path(__file__).parents[1]
PARAMETERS = 15_497
"""Parameters of the paper's objective, whatever the environment."""

Header = dict[str, Any]


def metadata(**changes: object) -> ObjectiveMetadata:
    given: dict[str, Any] = {
        "window_steps": 10,
        "window_batch": 8,
        "inner_step": "unit",
        "inner_step_size": 0.03,
        "environments": ("LunarLanderContinuous-v3", "mgrl/Pendulum-v0"),
        "steps_per_agent": 1500,
        "agents": 2,
        "meta_steps": 500,
        "seed": 7,
        "packages": {"torch": "2.6.0"},
    }
    return ObjectiveMetadata(**{**given, **changes})


def objective(seed: int = 0, **changes: object) -> LearnedObjective:
    described = metadata(**changes)
    network = ObjectiveNetwork(described.shape)
    return LearnedObjective(network.initialise(np.random.default_rng(seed)), described)


@pytest.fixture(scope="module")
def content() -> bytes:
    return objective().to_bytes()


@pytest.fixture
def load(tmp_path: Path) -> Callable[[bytes], LearnedObjective]:
    def load_bytes(data: bytes) -> LearnedObjective:
        path = tmp_path / "objective.safetensors"
        path.write_bytes(data)
        return LearnedObjective.load(path)

    return load_bytes


@pytest.fixture
def refusal(load) -> Callable[[bytes], str]:
    """Load what must be refused, and return the line that does."""

    def refuse(data: bytes) -> str:
        started_s = time.process_time()
        with pytest.raises(FileError) as caught:
            load(data)
        assert time.process_time() - started_s < 2.0
        message = str(caught.value)
        assert "objective.safetensors" in message
        assert len(message) < 600
        return message

    return refuse


def taken_apart(data: bytes) -> tuple[Header, bytes]:
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def compact(document: object) -> str:
    """The spelling of JSON that files have."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def put_together(header: object, body: bytes) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + body


def with_metadata(data: bytes, text: str | None = None, **changes: object) -> bytes:
    """Change the description: as raw text, or key by key (... takes a key away).

    Changed by key, it gets the digest that belongs to it: as by somebody who means it.
    """
    header, body = taken_apart(data)
    if text is None:
        document = json.loads(header["__metadata__"]["mgrl"])
        del document["metadata_sha256"]
        document |= changes
        document = {key: value for key, value in document.items() if value is not ...}
        if "metadata_sha256" not in changes:
            document["metadata_sha256"] = hashlib.sha256(compact(document).encode()).hexdigest()
        text = compact(document)
    header["__metadata__"]["mgrl"] = text
    return put_together(header, body)


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    original = objective()
    path = tmp_path / "new" / "a.safetensors"
    original.save(path)
    loaded = LearnedObjective.load(str(path))
    assert loaded.params.numel() == PARAMETERS
    assert torch.equal(loaded.params, original.params)
    digests = {name: getattr(loaded.metadata, name) for name in ("sha256", "metadata_sha256")}
    assert loaded.metadata == original.metadata.model_copy(update=digests)
    assert loaded.to_bytes() == path.read_bytes()


@pytest.mark.parametrize("width", [2, 32, 64])
def test_another_architecture_survives_too(load, width: int) -> None:
    original = objective(
        width=width, signal_features=3, bound=10.0, terminal_value="mean", padding_first=True
    )
    loaded = load(original.to_bytes())
    assert loaded.network.shape == original.network.shape
    assert torch.equal(loaded.params, original.params)


def test_an_ablated_objective_says_so_and_survives(load) -> None:
    original = objective(
        inputs=("action", "policy_action", "reward", "next_value"), normalisation="none"
    )
    loaded = load(original.to_bytes())
    assert loaded.network.shape == ObjectiveShape(without=("time", "value"), normalise=False)
    assert loaded.params.numel() == PARAMETERS
    assert torch.equal(loaded.params, original.params)


def version_in(data: bytes) -> int:
    return json.loads(taken_apart(data)[0]["__metadata__"]["mgrl"])["version"]


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": ("action", "policy_action", "reward", "next_value", "value")},
        {"normalisation": "none"},
    ],
)
def test_an_ablated_objective_is_of_a_version_that_the_first_readers_refuse(load, changes) -> None:
    """They would show it everything, and normalised."""
    data = objective(**changes).to_bytes()
    assert version_in(data) == 2
    assert load(data).to_bytes() == data
    # As the first mgrl that had ablations wrote it: it says what it needs all the same.
    early = load(with_metadata(data, version=1))
    assert early.network.shape == objective(**changes).network.shape
    assert early.to_bytes() == data


def test_a_whole_objective_is_described_as_ever(content: bytes) -> None:
    """Files of whole objectives keep their bytes: neither field is new, nor are their values."""
    document = json.loads(taken_apart(content)[0]["__metadata__"]["mgrl"])
    assert document["inputs"] == [
        *("action", "policy_action", "reward", "time", "next_value", "value")
    ]
    assert document["normalisation"] == "batch"
    assert document["version"] == 1
    assert objective().network.shape == ObjectiveShape()


@pytest.mark.parametrize(
    "inputs",
    [
        ["action", "policy_action", "time", "next_value", "value"],  # no reward
        ["policy_action", "action", "reward", "time", "next_value", "value"],
        ["action", "policy_action", "reward", "time", "time", "next_value", "value"],
        ["action", "policy_action", "reward", "time", "next_value", "value", "observation"],
        [],
    ],
)
def test_inputs_that_no_objective_has_are_refused(content: bytes, refusal, inputs) -> None:
    assert "'inputs'" in refusal(with_metadata(content, inputs=inputs))


def test_the_same_objective_gives_the_same_bytes_and_another_does_not(content: bytes) -> None:
    assert objective().to_bytes() == content
    assert objective(seed=1).to_bytes() != content
    assert objective(meta_steps=501).to_bytes() != content


def test_there_is_one_metadata_key_of_canonical_json(content: bytes) -> None:
    header, _ = taken_apart(content)
    assert set(header["__metadata__"]) == {"mgrl"}
    text = header["__metadata__"]["mgrl"]
    assert text == compact(json.loads(text))
    assert json.loads(text)["format"] == "mgrl-objective"


def test_its_two_digests_are_those_of_the_tensors_and_of_the_rest(content: bytes) -> None:
    header, body = taken_apart(content)
    document = json.loads(header.pop("__metadata__")["mgrl"])
    tensors = hashlib.sha256()
    for name, tensor in sorted(header.items()):
        tensors.update(name.encode() + b"\0" + body[slice(*tensor["data_offsets"])])
    assert document["sha256"] == tensors.hexdigest()
    digest = document.pop("metadata_sha256")
    assert digest == hashlib.sha256(compact(document).encode()).hexdigest()


def test_a_file_does_not_tell_when_where_or_by_whom_it_was_made(content: bytes) -> None:
    header, _ = taken_apart(content)
    assert set(json.loads(header["__metadata__"]["mgrl"])) == {
        *("format", "version", "inputs", "width", "signal_features", "gate_order"),
        *("forget_gate_bias", "bound", "normalisation", "terminal_value", "padding_first"),
        *("window_steps", "window_batch", "inner_step", "inner_step_size", "environments"),
        *("steps_per_agent", "agents", "meta_steps", "seed", "packages", "sha256"),
        "metadata_sha256",
    }


def test_a_file_cannot_be_saved_over_a_directory(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        objective().save(tmp_path)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"absent\.safetensors' does not exist; check the path"):
        LearnedObjective.load(tmp_path / "absent.safetensors")
    with pytest.raises(FileError, match="expected a file"):
        LearnedObjective.load(tmp_path)


def test_a_device_is_not_read(tmp_path: Path) -> None:
    """Reading /dev/zero would never end, opening a pipe without a writer would never begin."""
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(FileError, match="expected a file"):
            LearnedObjective.load(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: takes no space
    with pytest.raises(FileError, match="at most 64 MiB"):
        LearnedObjective.load(path)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, 1500, 3000, 30_000, 64_000, -1])
def test_a_truncated_file_is_refused(content: bytes, refusal, size: int) -> None:
    refusal(content[:size])


def test_half_a_file_is_refused(content: bytes, refusal) -> None:
    refusal(content[: len(content) // 2])


def test_a_file_with_something_behind_it_is_refused(content: bytes, refusal) -> None:
    refusal(content + b"\0")
    refusal(b"\0" + content)


def test_any_single_bit_flip_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "objective.safetensors"
    objective(environments=("mgrl/Pendulum-v0", "mon_paquet:Tâche-v0")).save(path)
    content = path.read_bytes()
    header_bytes = 8 + struct.unpack("<Q", content[:8])[0]
    draws = np.random.default_rng(0)
    payload = draws.choice(range(header_bytes, len(content)), size=300, replace=False)
    with path.open("r+b", buffering=0) as file:
        for position in (*range(header_bytes), *payload.tolist()):
            original = content[position]
            os.pwrite(file.fileno(), bytes([original ^ 1 << int(draws.integers(8))]), position)
            with pytest.raises(FileError):
                LearnedObjective.load(path)
            os.pwrite(file.fileno(), bytes([original]), position)
    LearnedObjective.load(path)  # whole again, it is accepted again


def test_a_description_that_was_changed_without_its_digest_is_refused(
    content: bytes, refusal
) -> None:
    digest = json.loads(taken_apart(content)[0]["__metadata__"]["mgrl"])["metadata_sha256"]
    message = refusal(with_metadata(content, agents=4, metadata_sha256=digest))
    assert f"metadata_sha256 is '{digest}', expected '" in message
    assert "restore it from a copy" in message
    assert "metadata_sha256 is None" in refusal(with_metadata(content, metadata_sha256=...))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"agents":2,', '"agents":2, '),
        ('"agents":2,', '"agents":2,"agents":2,'),
        ('"agents":2,', '"agents":9,"agents":2,'),
        ('"agents":2,', '"agents":2e0,'),
        ('"agents":2,"bound":1000.0', '"bound":1000.0,"agents":2'),
        ('"format"', '"\\u0066ormat"'),
    ],
)
def test_a_description_has_one_spelling(content: bytes, refusal, old: str, new: str) -> None:
    text = taken_apart(content)[0]["__metadata__"]["mgrl"]
    assert old in text
    assert "canonical JSON" in refusal(with_metadata(content, text.replace(old, new)))


class _Bomb:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def _torch_save(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)  # noqa: TID251 - the very file that must not be read
    return buffer.getvalue()


def test_pickles_are_refused_without_running_them(tmp_path: Path, refusal) -> None:
    trace = tmp_path / "trace"
    bomb = _Bomb(trace)
    pickle.loads(pickle.dumps(bomb))
    assert trace.exists()  # the bomb is live
    trace.unlink()
    for data in (
        pickle.dumps(bomb),
        pickle.dumps({"weight": bomb}, protocol=0),
        _torch_save({"weight": torch.zeros(2), "bomb": bomb}),
        _torch_save(torch.zeros(PARAMETERS)),
    ):
        refusal(data)
    assert not trace.exists()


def test_other_formats_are_refused(refusal) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("data.pkl", b"cos\nsystem\n(S'false'\ntR.")
    for data in (archive.getvalue(), b"\x89PNG\r\n\x1a\n", b"[section]\nkey = 1\n", bytes(10_000)):
        refusal(data)


def test_foreign_safetensors_are_refused(content: bytes, refusal) -> None:
    tensors = {"weight": torch.zeros(3)}
    assert "one metadata key 'mgrl', got []" in refusal(save(tensors))
    assert "got ['format']" in refusal(save(tensors, metadata={"format": "pt"}))
    header, body = taken_apart(content)
    header["__metadata__"]["extra"] = "x"
    assert "got ['extra', 'mgrl']" in refusal(put_together(header, body))
    del header["__metadata__"]["extra"], header["__metadata__"]["mgrl"]
    assert "got []" in refusal(put_together(header, body))


@pytest.mark.parametrize("version", [0, 3, -1, "1", None, [1], 10**30, ...])
def test_an_unknown_version_is_named(content: bytes, refusal, version: object) -> None:
    message = refusal(with_metadata(content, version=version))
    shown = None if version is ... else version
    assert f"format version {shown!r}, expected 1 or 2" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other"},
        {"unknown": 1},
        {"width": 31},
        {"width": 0},
        {"width": -32},
        {"width": 10**9},
        {"width": 1e30},
        {"width": "wide"},
        {"width": None},
        {"signal_features": 10**9},
        {"bound": 0},
        {"bound": math.inf},
        {"bound": math.nan},
        {"gate_order": "ifgo"},
        {"forget_gate_bias": 0},
        {"window_steps": 0},
        {"window_steps": ...},
        {"inner_step_size": math.nan},
        {"terminal_value": "one"},
        {"environments": "pendulum"},
        {"environments": [["pendulum"]]},
        {"packages": ["torch"]},
        {"seed": -1},
        {"sha256": 0},
    ],
)
def test_a_description_that_makes_no_sense_is_refused(
    content: bytes, refusal, changes: dict[str, object]
) -> None:
    assert "invalid metadata" in refusal(with_metadata(content, **changes))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "1",
        '"mgrl"',
        "[" * 300_000,
        '{"a":' * 100_000,
        '{"version": 1, "seed": ' + "9" * 5000 + "}",
        '{"environments":["\\ud800"],"version":1}',
        '{"version":"\\ud800"}',
        '{"metadata_sha256":' + "[" * 900 + "]" * 900 + ',"version":1}',
        '{"version":' + "[" * 900 + "]" * 900 + "}",
    ],
)
def test_a_description_that_is_no_object_is_refused(content: bytes, refusal, text: str) -> None:
    refusal(with_metadata(content, text))


@pytest.mark.parametrize("width", [2, 34, 1024])
def test_a_description_of_another_architecture_is_refused(
    content: bytes, refusal, width: int
) -> None:
    message = refusal(with_metadata(content, width=width))
    assert "expected torch.float32" in message


def test_tensors_must_be_exactly_those_promised(refusal) -> None:
    header, _ = taken_apart(objective().to_bytes())
    original = objective()
    views = original.network.layout.views(original.params)
    tensors = {name: view.contiguous() for name, view in views.items()}
    described = header["__metadata__"]

    def changed(**changes: Tensor | None) -> bytes:
        given = {**tensors, **changes}
        return save({k: v for k, v in given.items() if v is not None}, metadata=described)

    bias = tensors["lstm.bias"]
    assert "lstm.bias" in refusal(changed(**{"lstm.bias": None}))
    assert "extra" in refusal(changed(extra=torch.zeros(1)))
    for wrong in (bias[:-1], bias.unsqueeze(0), bias.double(), bias.half(), bias.int(), bias > 0):
        assert "'lstm.bias' is torch." in refusal(changed(**{"lstm.bias": wrong.contiguous()}))
    assert "SHA-256" in refusal(changed(**{"lstm.bias": bias + 1e-7}))


def test_swapped_tensors_are_noticed(content: bytes, refusal) -> None:
    header, body = taken_apart(content)
    one, other = header["head.norm_1.gain"], header["head.norm_1.bias"]
    header["head.norm_1.gain"], header["head.norm_1.bias"] = other, one
    assert "SHA-256" in refusal(put_together(header, body))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_parameters_that_are_not_finite_are_refused(refusal, value: float) -> None:
    broken = objective()
    broken.params[1234] = value
    assert "not finite" in refusal(broken.to_bytes())


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F8_E8M0", "F8_E5M2", "C64", "BOOL", "NONE"])
def test_tensors_of_odd_types_are_refused(content: bytes, refusal, dtype: str) -> None:
    bits = {"F4": 4, "F6_E2M3": 6, "C64": 64}.get(dtype, 8)
    header, _ = taken_apart(content)
    tensor = {"dtype": dtype, "shape": [8], "data_offsets": [0, bits]}
    refusal(
        put_together({"__metadata__": header["__metadata__"], "lstm.bias": tensor}, bytes(bits))
    )


def test_hundreds_of_thousands_of_empty_tensors_cost_neither_time_nor_memory(
    content: bytes, refusal
) -> None:
    header, _ = taken_apart(content)
    empty = b':{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    entries = b",".join(b'"%x"' % number + empty for number in range(200_000))
    described = json.dumps(header["__metadata__"]).encode()
    text = b'{"__metadata__":' + described + b"," + entries + b"}"
    data = struct.pack("<Q", len(text)) + text
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "header of at most 1 MiB" in refusal(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 40 * 1024


@pytest.mark.parametrize("size", [2**20 + 1, 2**63, 2**64 - 1])
def test_an_absurd_header_length_is_refused(refusal, size: int) -> None:
    refusal(struct.pack("<Q", size) + b"{}")


Signals = dict[str, Tensor]


@pytest.fixture
def signals(rng: np.random.Generator) -> Signals:
    """Three windows of five steps with two action dimensions; the second one is padded by two."""

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    is_valid = torch.ones(3, 5, dtype=torch.bool)
    is_valid[1, 3:] = False
    terminated = torch.zeros(3, 5, dtype=torch.bool)
    terminated[1, 2] = True
    return {
        "action": normal(3, 5, 2).tanh(),
        "policy_action": normal(3, 5, 2).tanh(),
        "reward": normal(3, 5),
        "value": normal(3, 5),
        "next_value": normal(3, 5),
        "terminated": terminated,
        "is_valid": is_valid,
    }


def test_the_loss_is_that_of_the_network_and_its_mean_over_valid_steps(signals: Signals) -> None:
    learned = objective()
    names = ("reward", "value", "next_value", "terminated", "is_valid")
    expected = learned.network(
        learned.params,
        signals["action"],
        signals["policy_action"],
        ObjectiveSignals(**{name: signals[name] for name in names}),
    )
    is_valid = signals["is_valid"]

    per_step = learned(**signals, per_step=True)
    assert per_step.shape == (3, 5)
    assert torch.equal(per_step[is_valid], expected[is_valid])
    assert per_step[~is_valid].tolist() == [0.0, 0.0]

    loss = learned(**signals)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected[is_valid].double().sum().item() / 13, rel=1e-5)


def test_padding_never_matters(signals: Signals) -> None:
    learned = objective()
    loss = learned(**signals)
    for name in ("action", "policy_action", "reward", "value", "next_value"):
        signals[name][1, 3:] = 1e6 if name in {"reward", "value", "next_value"} else 0.5
    assert torch.equal(learned(**signals), loss)


def test_a_batch_without_valid_steps_gives_zero(signals: Signals) -> None:
    signals["is_valid"][:] = False
    assert objective()(**signals).item() == 0.0


def test_the_gradient_goes_into_the_policy_alone(signals: Signals) -> None:
    learned = objective()
    floats = ("action", "policy_action", "reward", "value", "next_value")
    for name in floats:
        signals[name].requires_grad_()
    learned(**signals).backward()
    gradients = {name: signals[name].grad for name in floats}
    assert {name for name, gradient in gradients.items() if gradient is not None} == {
        "policy_action"
    }
    gradient = gradients["policy_action"]
    assert gradient is not None
    assert gradient[signals["is_valid"]].abs().min() > 0
    assert not gradient[~signals["is_valid"]].any()
    assert learned.params.grad is None


def test_flags_may_be_numbers(signals: Signals) -> None:
    loss = objective()(**signals)
    for dtype in (torch.float32, torch.int64, torch.uint8):
        flags = {name: signals[name].to(dtype) for name in ("terminated", "is_valid")}
        assert torch.equal(objective()(**{**signals, **flags}), loss)


def test_a_loop_in_double_precision_gets_the_same_loss_in_its_own(signals: Signals) -> None:
    double = {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in signals.items()
    }
    loss = objective()(**double)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(objective()(**signals).item(), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("policy_action", (3, 5, 1)),
        ("policy_action", (3, 5)),
        ("action", (5, 2)),
        ("reward", (3, 5, 1)),
        ("value", (3, 4)),
        ("next_value", (3, 6)),
        ("terminated", (5, 3)),
        ("is_valid", (15,)),
    ],
)
def test_shapes_that_do_not_agree_are_named(
    signals: Signals, name: str, shape: tuple[int, ...]
) -> None:
    signals[name] = torch.zeros(shape, dtype=signals[name].dtype)
    with pytest.raises(UsageError, match=r"expected .*batch, time") as caught:
        objective()(**signals)
    assert name in str(caught.value)
    assert str(shape) in str(caught.value)


def test_the_class_is_the_packages_public_name() -> None:
    assert mgrl_cli.LearnedObjective is LearnedObjective


def test_the_documented_example_trains_an_ordinary_actor(tmp_path: Path) -> None:
    path = tmp_path / "objective.safetensors"
    objective().save(path)
    example = ROOT / "docs" / "examples" / "actor_loss.py"
    options = ["--episodes", "1", "--updates", "2"]
    result = subprocess.run(
        [sys.executable, str(example), str(path), *options],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("episode 1  return ")
