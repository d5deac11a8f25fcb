"""Imports that work, are missing, raise, crash or hang, in real probes."""

import time
from pathlib import Path

import pytest

from mgrl_cli.diagnosis.imports import Imported, ImportReport, collect_imports, start_import_probe

LONG_ENOUGH_S = 100.0
MODULES = {
    "sound_module": "print('Hello!')",
    "raising_module": "raise RuntimeError('no\\n  library')",
    "exiting_module": "import sys; sys.exit(3)",
    "crashing_module": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "hanging_module": "import time; open({marker!r}, 'w').close(); time.sleep(60)",
    "alarmed_module": "import os, signal; os.kill(os.getpid(), signal.SIGALRM)",
}


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, source in MODULES.items():
        text = source.replace("{marker!r}", repr(str(tmp_path / "marker")))
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


def imported(*names: str) -> ImportReport:
    deadline_s = time.monotonic() + LONG_ENOUGH_S
    with start_import_probe(names, show_errors=False) as probe:
        return collect_imports(probe, names, deadline_s, show_errors=False)


def test_a_crash_is_a_finding_and_the_modules_after_it_are_tried() -> None:
    report = imported(
        *("no_such_module_anywhere", "raising_module", "crashing_module", "exiting_module"),
        *("alarmed_module", "sound_module"),
    )
    assert report == ImportReport(
        {
            "no_such_module_anywhere": Imported(is_found=False),
            "raising_module": Imported(True, "RuntimeError: no library"),
            "crashing_module": Imported(True, "its import was killed by SIGSEGV"),
            "exiting_module": Imported(True, "SystemExit: 3"),
            "alarmed_module": Imported(True, "its import did not end within 9 s"),
            "sound_module": Imported(is_found=True),
        },
        torch=None,
        kernels=None,
    )


def test_a_crash_of_the_last_module_is_found() -> None:
    assert imported("crashing_module").modules["crashing_module"].problem


def test_what_has_no_end_at_the_deadline_is_neither_good_nor_bad(tmp_path: Path) -> None:
    names = ("sound_module", "hanging_module", "raising_module")
    with start_import_probe(names, show_errors=False) as probe:
        while not (tmp_path / "marker").exists():
            time.sleep(0.01)
        report = collect_imports(probe, names, time.monotonic(), show_errors=False)
    assert report.modules == {"sound_module": Imported(is_found=True)}
