"""The table of packages, held to pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest

from mgrl_cli.diagnosis.packages import EXTRAS, REQUIRED, Package, release_numbers

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]


def without_marker(requirement: str) -> str:
    return requirement.partition(";")[0].strip()


def test_required_packages_are_those_of_pyproject() -> None:
    assert {package.requirement for package in REQUIRED} == set(PROJECT["dependencies"])


def test_extras_are_those_of_pyproject() -> None:
    stated = {
        name: {without_marker(requirement) for requirement in requirements}
        for name, requirements in PROJECT["optional-dependencies"].items()
        if name not in ("all", "bench", "dev")
    }
    # MuJoCo comes through an extra of gymnasium; what it brings is looked for by its own name.
    assert stated.pop("mujoco") == {"gymnasium[mujoco]>=1.1"}
    ours = {extra.name: {p.requirement for p in extra.packages} for extra in EXTRAS}
    assert ours.pop("mujoco") == {"mujoco"}
    assert ours == stated


def test_all_brings_every_extra() -> None:
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert set(re.findall(r"\w+", everything)) == {"mgrl", *(extra.name for extra in EXTRAS)}


@pytest.mark.parametrize(
    ("version", "is_accepted"),
    [
        ("3.1.4", True),
        ("3.1.3", False),
        ("3.1", False),
        ("3.10", True),
        ("3.2.0rc1", True),
        ("4.0.0", False),
        ("4", False),
        ("3.99+local", True),
    ],
)
def test_versions_compare_by_their_numbers(version: str, is_accepted: bool) -> None:
    assert Package("zarr", ("zarr",), "3.1.4", "4").accepts(version) is is_accepted


def test_numbers_end_before_a_suffix_and_zeros_at_the_end() -> None:
    assert release_numbers("2.13.0+cpu") == (2, 13)
    assert release_numbers("unknown") == ()
