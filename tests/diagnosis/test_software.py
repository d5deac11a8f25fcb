"""Packages and extras, judged from injected imports and versions."""

from collections.abc import Mapping

import pytest

from mgrl_cli.diagnosis.check import Check
from mgrl_cli.diagnosis.imports import Imported, ImportReport
from mgrl_cli.diagnosis.packages import EXTRAS, REQUIRED, Extra
from mgrl_cli.diagnosis.software import MODULES, installed_versions, judge_python, judge_software

CPU_BUILD = {"cuda": None, "hip": None, "capability": "AVX2"}
FINE = Imported(is_found=True)
ABSENT = Imported(is_found=False)
VERSIONS = {
    package.distribution: package.at_least or "1.0"
    for package in (*REQUIRED, *(package for extra in EXTRAS for package in extra.packages))
}


def judged(
    changes: Mapping[str, Imported] | None = None,
    versions: Mapping[str, str] | None = None,
    torch: Mapping[str, object] | None = CPU_BUILD,
) -> dict[str, Check]:
    """Return the checks where all imports went well, but for the changes."""
    modules = {**dict.fromkeys(MODULES, FINE), **(changes or {})}
    report = ImportReport(modules, None if torch is None else dict(torch), None)
    found = judge_software(report, {**VERSIONS, **(versions or {})}, "3.12.1")
    return {check.name: check for check in found}


def test_a_complete_installation_has_no_remedies() -> None:
    checks = judged()
    assert set(checks) == {
        *("Python", "torch build"),
        *(package.distribution for package in REQUIRED),
        *(f"extra {extra.name}" for extra in EXTRAS),
    }
    assert all(check.status == "ok" and not check.remedy for check in checks.values())


@pytest.mark.parametrize(
    ("version", "status"), [("3.10.14", "missing"), ("3.11.0", "ok"), ("3.14.0rc2", "ok")]
)
def test_python_must_be_new_enough(version: str, status: str) -> None:
    check = judge_python(version)
    assert check.status == status
    assert bool(check.remedy) is (status != "ok")


def test_a_required_package_that_is_not_there_is_missing() -> None:
    check = judged({"safetensors": ABSENT})["safetensors"]
    assert (check.status, check.finding) == ("missing", "not installed")
    assert check.remedy == "pip install 'safetensors>=0.8'"


def test_a_required_package_that_cannot_be_imported_is_missing() -> None:
    check = judged({"torch": Imported(True, "OSError: libtorch.so")})["torch"]
    assert check.status == "missing"
    assert "libtorch.so" in check.finding
    assert "--force-reinstall" in check.remedy


@pytest.mark.parametrize("version", ["3.1.3", "4.0.0"])
def test_a_required_package_outside_its_range_is_missing(version: str) -> None:
    check = judged(versions={"zarr": version})["zarr"]
    assert (check.status, check.finding) == ("missing", f"{version}, expected zarr>=3.1.4,<4")
    assert check.remedy == "pip install 'zarr>=3.1.4,<4'"


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: extra.name)
def test_an_extra_that_is_not_there_is_a_warning_with_the_command(extra: Extra) -> None:
    check = judged({extra.modules[0]: ABSENT})[f"extra {extra.name}"]
    assert check.status == "warning"
    assert check.finding.startswith("not installed")
    assert check.remedy == f"pip install 'mgrl[{extra.name}]'"


@pytest.mark.parametrize(
    ("extra", "module", "status"),
    [
        ("box2d", "Box2D", "warning"),
        ("mujoco", "gymnasium.envs.mujoco", "warning"),
        ("fast", "numba", "missing"),  # every run would use it, and fail
        ("tensorboard", "torch.utils.tensorboard", "missing"),
    ],
)
def test_an_extra_that_is_there_but_broken_says_what_is_wrong(
    extra: str, module: str, status: str
) -> None:
    check = judged({module: Imported(True, "its import was killed by SIGSEGV")})[f"extra {extra}"]
    assert check.status == status
    assert "its import was killed by SIGSEGV" in check.finding
    assert "--force-reinstall" in check.remedy


def test_an_extra_that_is_too_old_is_a_warning() -> None:
    check = judged(versions={"numba": "0.60.1"})["extra fast"]
    assert check.status == "warning"
    assert check.finding == "numba 0.60.1, expected numba>=0.61"


@pytest.mark.parametrize(("module", "name"), [("torch", "torch"), ("numba", "extra fast")])
def test_what_was_not_tried_is_a_warning(module: str, name: str) -> None:
    modules = {known: FINE for known in MODULES if known != module}
    checks = judge_software(ImportReport(modules, None, None), VERSIONS, "3.12.1")
    (check,) = [check for check in checks if check.name == name]
    assert check.status == "warning"
    assert "no time" in check.finding
    assert check.remedy


@pytest.mark.parametrize(
    ("build", "part"),
    [
        ({**CPU_BUILD, "cuda": "12.8"}, "CUDA 12.8 build, but mgrl does not use it yet"),
        ({**CPU_BUILD, "hip": "6.2"}, "HIP 6.2 build, but mgrl does not use it yet"),
        (CPU_BUILD, "CPU build; vector instructions of the processor: AVX2"),
    ],
)
def test_the_build_of_torch_is_told(build: dict[str, object], part: str) -> None:
    check = judged(torch=build)["torch build"]
    assert check.status == "ok"
    assert part in check.finding


@pytest.mark.parametrize(("machine", "status"), [("x86_64", "warning"), ("arm64", "ok")])
def test_torch_without_vector_instructions_is_a_warning_where_there_should_be_some(
    machine: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert judged(torch={**CPU_BUILD, "capability": "DEFAULT"})["torch build"].status == status


def test_versions_of_this_installation_are_found() -> None:
    versions = installed_versions()
    assert {package.distribution for package in REQUIRED} <= set(versions)
