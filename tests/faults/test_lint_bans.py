"""What can run a stranger's code does not pass `make check`: ruff itself says so, line by line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

BANNED = {
    "import pickle": "TID251",
    "import cPickle": "TID251",
    "import dill": "TID251",
    "import cloudpickle": "TID251",
    "import shelve": "TID251",
    "import marshal": "TID251",
    "import joblib": "TID251",
    "from pickle import loads": "TID251",
    "from torch import load": "TID251",
    "torch.load(name)": "TID251",
    "torch.save(name, name)": "TID251",
    "numpy.load(name)": "TID251",
    "np.load(name, allow_pickle=True)": "TID251",
    "yaml.load(name)": "TID251",
    "yaml.unsafe_load(name)": "TID251",
    "eval(name)": "S307",
    "exec(name)": "S102",
    "tempfile.mktemp()": "S306",
    "subprocess.run(name, shell=True)": "S602",
    "subprocess.Popen(name, shell=True)": "S602",
    "os.system(name)": "S605",
    "os.popen(name)": "S605",
}
"""Line → the rule that must refuse it. `__import__`, for which ruff has no rule, is refused by
`test_architecture`."""
ALLOWED = ("import json", "tomllib.loads(name)", "subprocess.run([name])", "yaml.safe_load(name)")
IMPORTS = "import os, subprocess, tempfile, tomllib, numpy, torch, yaml, numpy as np"


@pytest.fixture(scope="module")
def findings() -> dict[str, set[str]]:
    """Line → rules that ruff, with this project's settings, finds broken in it."""
    lines = [IMPORTS, "name = str()", *BANNED, *ALLOWED]
    words = ("check", "--output-format", "json", "--stdin-filename", "mgrl_cli/scratch.py", "-")
    outcome = subprocess.run(
        [sys.executable, "-m", "ruff", *words],
        input="\n".join(lines),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 1, outcome.stderr  # 2: ruff itself failed
    found: dict[str, set[str]] = {line: set() for line in lines}
    for finding in json.loads(outcome.stdout):
        found[lines[finding["location"]["row"] - 1]].add(finding["code"])
    return found


@pytest.mark.parametrize("line", BANNED)
def test_what_could_run_code_is_refused(findings: dict[str, set[str]], line: str) -> None:
    assert BANNED[line] in findings[line]


@pytest.mark.parametrize("line", ALLOWED)
def test_what_cannot_is_not(findings: dict[str, set[str]], line: str) -> None:
    assert findings[line] & set(BANNED.values()) == set()
