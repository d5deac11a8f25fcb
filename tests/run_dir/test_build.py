"""A build names everything that decides the last bits, and what of it differs from another's."""

import platform
from importlib.metadata import version

import pytest
import torch
from pydantic import ValidationError

from mgrl_cli.run_dir.build import THREADS, Build, this_build

BUILD = Build(
    python="3.11.7",
    packages={"mgrl": "0.2.0", "torch": "2.6.0"},
    architecture="x86_64",
    processor="Some CPU @ 2.00GHz",
    cpu_capability="AVX2",
    threads=1,
    device="cpu",
)


def changed(**fields: object) -> Build:
    return BUILD.model_copy(update=fields)


def test_a_build_does_not_differ_from_itself() -> None:
    assert this_build() == this_build()
    assert this_build().differences(this_build()) == []


def test_this_build_is_that_of_this_process() -> None:
    build = this_build()
    assert build.python == platform.python_version()
    assert build.packages["torch"] == version("torch")
    assert build.architecture == platform.machine()
    assert build.cpu_capability == torch.backends.cpu.get_cpu_capability()
    assert (build.threads, build.device) == (THREADS, "cpu")


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        ({"python": "3.12.1"}, "python 3.11.7 → 3.12.1"),
        ({"packages": {"mgrl": "0.2.0", "torch": "2.7.0"}}, "torch 2.6.0 → 2.7.0"),
        ({"packages": {"mgrl": "0.2.0"}}, "torch 2.6.0 → none"),
        ({"packages": {**BUILD.packages, "numba": "0.61.0"}}, "numba none → 0.61.0"),
        ({"architecture": "aarch64"}, "architecture x86_64 → aarch64"),
        ({"processor": ""}, "processor Some CPU @ 2.00GHz → none"),
        ({"cpu_capability": "AVX512"}, "cpu_capability AVX2 → AVX512"),
        ({"threads": 8}, "threads 1 → 8"),
        ({"threads": 0}, "threads 1 → 0"),
        ({"device": "cuda"}, "device cpu → cuda"),
    ],
)
def test_every_difference_is_named_from_ours_to_theirs(
    fields: dict[str, object], difference: str
) -> None:
    assert BUILD.differences(changed(**fields)) == [difference]


def test_differences_are_named_one_by_one_in_a_fixed_order() -> None:
    other = changed(threads=4, device="cuda", packages={"mgrl": "0.3.0", "numba": "0.61.0"})
    assert BUILD.differences(other) == [
        "device cpu → cuda",
        "mgrl 0.2.0 → 0.3.0",
        "numba none → 0.61.0",
        "torch 2.6.0 → none",
        "threads 1 → 4",
    ]


def test_a_strangers_build_cannot_write_to_the_terminal() -> None:
    other = changed(
        processor="\x1b[2J", device="x" * 10_000, threads=10**1000, packages={"a\nb": "\ud800"}
    )
    differences = BUILD.differences(other)
    assert len(differences) == 6
    for difference in differences:
        assert difference.isprintable()
        assert len(difference) < 250


@pytest.mark.parametrize("fields", [{"threads": "1"}, {"threads": True}, {"host": "x"}])
def test_what_is_no_build_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Build.model_validate({**BUILD.model_dump(), **fields})
    assert Build.model_validate(BUILD.model_dump()) == BUILD
