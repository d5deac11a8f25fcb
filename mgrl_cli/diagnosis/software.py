"""Python, the packages mgrl stands on and its extras: there, new enough, usable.

Judges only; `imports` measures.
"""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mgrl_cli.diagnosis.check import Check
from mgrl_cli.diagnosis.imports import Imported, ImportReport
from mgrl_cli.diagnosis.packages import EXTRAS, REQUIRED, Extra, Package, release_numbers

_OLDEST_PYTHON = "3.11"
_NO_VECTORS = ("DEFAULT", "NO AVX")
MODULES = tuple(module for item in (*REQUIRED, *EXTRAS) for module in item.modules)
"""What to import, in this order."""


def installed_versions() -> dict[str, str]:
    """Return the version of each distribution of interest that is installed."""
    versions: dict[str, str] = {}
    for package in (*REQUIRED, *(package for extra in EXTRAS for package in extra.packages)):
        try:
            versions[package.distribution] = version(package.distribution)
        except PackageNotFoundError:
            continue
    return versions


def judge_software(
    imports: ImportReport, versions: Mapping[str, str], python: str
) -> Iterator[Check]:
    """Yield the checks on software.

    Args:
        imports: how importing `MODULES` went.
        versions: distribution → version.
        python: version of the interpreter.
    """
    yield judge_python(python)
    for package in REQUIRED:
        yield _required(package, imports.modules, versions.get(package.distribution))
    if imports.torch is not None:
        yield _torch_build(imports.torch)
    for extra in EXTRAS:
        yield _extra(extra, imports.modules, versions)


def judge_python(python: str) -> Check:
    """Judge the interpreter's version."""
    finding = f"{python} on {platform.system()} {platform.machine()}"
    if release_numbers(python) < release_numbers(_OLDEST_PYTHON):
        remedy = f"install Python {_OLDEST_PYTHON} or newer and mgrl into it"
        return Check("Python", "missing", finding, remedy)
    return Check("Python", "ok", finding)


def _required(package: Package, modules: Mapping[str, Imported], installed: str | None) -> Check:
    name = package.distribution
    if not _were_tried((package,), modules):
        return _not_tried(name)
    problem = _problem((package,), modules)
    shown = installed or "of unknown version"
    install = f"pip install '{package.requirement}'"
    if problem is None:
        return Check(name, "missing", "not installed", install)
    if problem:
        again = f"pip install --force-reinstall '{package.requirement}'"
        return Check(name, "missing", f"{shown}, but {problem}", again)
    if installed is not None and not package.accepts(installed):
        return Check(name, "missing", f"{shown}, expected {package.requirement}", install)
    return Check(name, "ok", shown)


def _extra(extra: Extra, modules: Mapping[str, Imported], versions: Mapping[str, str]) -> Check:
    name, install = f"extra {extra.name}", f"pip install 'mgrl[{extra.name}]'"
    if not _were_tried(extra.packages, modules):
        return _not_tried(name)
    problem = _problem(extra.packages, modules)
    known = {
        package: versions[package.distribution]
        for package in extra.packages
        if package.distribution in versions
    }
    shown = ", ".join(f"{package.distribution} {known[package]}" for package in known)
    if problem is None:
        return Check(name, "warning", f"not installed; needed for {extra.purpose}", install)
    if problem:
        status = "missing" if extra.is_used_unasked else "warning"
        again = " ".join(f"'{package.requirement}'" for package in extra.packages)
        return Check(
            name,
            status,
            f"{shown or 'found'}, but {problem}; needed for {extra.purpose}",
            f"pip install --force-reinstall {again}, or uninstall it",
        )
    too_old = [package.requirement for package in known if not package.accepts(known[package])]
    if too_old:
        return Check(name, "warning", f"{shown}, expected {', '.join(too_old)}", install)
    return Check(name, "ok", shown or "usable")


def _were_tried(packages: tuple[Package, ...], modules: Mapping[str, Imported]) -> bool:
    """Return whether the imports of `packages` had an end; one that is not found ends them all."""
    for module in (module for package in packages for module in package.modules):
        if module not in modules:
            return False
        if not modules[module].is_found:
            return True
    return True


def _not_tried(name: str) -> Check:
    finding = "not known: there was no time left to finish its import"
    return Check(name, "warning", finding, "run mgrl doctor again when the machine is idle")


def _problem(packages: tuple[Package, ...], modules: Mapping[str, Imported]) -> str | None:
    """Return what is wrong with the modules of `packages`, None where one is not installed."""
    for module in (module for package in packages for module in package.modules):
        if not modules[module].is_found:
            return None
        if modules[module].problem:
            return f"importing {module} fails: {modules[module].problem}"
    return ""


def _torch_build(build: Mapping[str, Any]) -> Check:
    accelerator = next(
        (f"{name.upper()} {build[name]}" for name in ("cuda", "hip") if build[name]), None
    )
    kind = f"{accelerator} build, but mgrl does not use it yet" if accelerator else "CPU build"
    finding = f"{kind}; vector instructions of the processor: {build['capability']}"
    if build["capability"] in _NO_VECTORS and platform.machine().lower() in ("x86_64", "amd64"):
        remedy = "updates will be slow: unset ATEN_CPU_CAPABILITY, or use a processor with AVX2"
        return Check("torch build", "warning", finding, remedy)
    return Check("torch build", "ok", finding)
