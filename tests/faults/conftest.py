"""Environments that fail, for tests of what a run survives."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gymnasium.envs.registration import registry

from tests.faults.tally import IS_CAMPAIGN, table

_SOURCE = Path(__file__).with_name("faulty_environments.py")
_MODULE, _ID = "faulty_module", "Faulty-v0"


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The id of the environment in `faulty_environments.py`, importable in worker processes too."""
    shutil.copyfile(_SOURCE, tmp_path / f"{_MODULE}.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    _forget()  # other tests have a module of this name
    yield f"{_MODULE}:{_ID}"
    _forget()


def _forget() -> None:
    sys.modules.pop(_MODULE, None)
    registry.pop(_ID, None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the campaign's figures."""
    if IS_CAMPAIGN:
        terminalreporter.section("faults: survived of tried")
        for line in table():
            terminalreporter.write_line(line)
