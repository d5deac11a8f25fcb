"""A study's directory: its paths, what it is made of, and that it is never mixed with another.

The specification is written once, first of all. Whoever comes with the same goes on; whoever comes
with another is refused.
"""

import hashlib
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import tomli_w

from mgrl_cli.errors import FileError, StorageError, UsageError, did_you_mean
from mgrl_cli.presets import parse_toml
from mgrl_cli.run_dir.atomic import (
    create_directory,
    explain_os_error,
    remove_unfinished,
    write_atomically,
)
from mgrl_cli.run_dir.layout import RunDirectory, check_run_name, is_unstarted
from mgrl_cli.run_dir.lock import locked

Specification = dict[str, Any]
"""What a study is made of, as TOML values."""

_LONGEST_SLUG = 60
_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{32}\.partial")
"""A file that `write_atomically` had not finished."""


@final
@dataclass(frozen=True, slots=True)
class StudyDirectory:
    """The paths of one study."""

    path: Path
    kind: str
    """"matrix" or "progress"; the specification is KIND.toml."""

    @property
    def specification(self) -> Path:
        """What the study is made of."""
        return self.path / f"{self.kind}.toml"

    @property
    def train(self) -> Path:
        """Directory of the meta-trainings."""
        return self.path / "train"

    @property
    def test(self) -> Path:
        """Directory of the tests."""
        return self.path / "test"

    @property
    def objectives(self) -> Path:
        """Directory of copies of objectives that were there before the study."""
        return self.path / "objectives"

    @property
    def log(self) -> Path:
        """Directory of what the runs print."""
        return self.path / "log"

    @property
    def rows(self) -> Path:
        """Every evaluation of every test; all tables follow from it."""
        return self.path / "rows.csv"

    def table(self, suffix: str) -> Path:
        """Return the path of the table as .txt, .csv or .md."""
        return self.path / f"table{suffix}"

    def figure(self, name: str, suffix: str) -> Path:
        """Return the path of a figure."""
        return self.path / f"{name}{suffix}"


def named_study(name: str, runs_dir: Path, kind: str) -> StudyDirectory:
    """Return the study of this name, whether it has begun or not.

    Raises:
        UsageError: the name cannot be a directory's.
    """
    if Path(name).name != name or not (runs_dir / name).exists():
        check_run_name(runs_dir, name)
    return StudyDirectory(runs_dir / name, kind)


def find_study(name_or_path: str, runs_dir: Path, kind: str) -> StudyDirectory:
    """Return an existing study by path or by name.

    Raises:
        FileError: there is no such study.
    """
    for candidate in (Path(name_or_path), runs_dir / name_or_path):
        study = StudyDirectory(candidate, kind)
        if study.specification.is_file():
            return study
    known = [path.parent.name for path in sorted(runs_dir.glob(f"*/{kind}.toml"))]
    raise FileError(
        f"no {kind} '{name_or_path}' here or in '{runs_dir}'.{did_you_mean(name_or_path, known)}"
    )


def read_specification(study: StudyDirectory) -> Specification:
    """Return what a study is made of.

    Raises:
        FileError: missing or not readable.
    """
    try:
        return parse_toml(study.specification.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"cannot read '{study.specification}': {error}") from error


@contextmanager
def opened(
    study: StudyDirectory,
    specification: Specification,
    prepare: Callable[[], None],
    check: Callable[[], None],
) -> Generator[None]:
    """Begin a study, or go on with one that is made of the same, and be its only process.

    Args:
        study: its parent need not exist.
        specification: what it is made of.
        prepare: called in a new study before the specification is written: whoever finds a
            specification finds what `prepare` made. A study that died before may have left some.
        check: called every time, in a new study after `prepare` and before the specification is
            written; raises where the study cannot go on.

    Raises:
        UsageError: something else bears the name, or a study made of something else.
        RunLockedError: another process works on the study.
        FileError: the study's specification is damaged.
        StorageError: the operating system refused.
    """
    path = study.path
    is_new = not study.specification.exists()
    if is_new:
        check_run_name(path.parent, path.name if not _is_begun(study) else None)
        try:
            create_directory(path)
        except OSError as error:
            raise StorageError(explain_os_error(error, f"create '{path}'")) from error
    with locked(RunDirectory(path)):
        for directory in (path, study.objectives):
            remove_unfinished(directory)
        if study.specification.exists():
            _check_same(study, read_specification(study), specification)
            check()
        else:
            prepare()
            check()
            write_atomically(study.specification, tomli_w.dumps(specification).encode())
        yield


def _is_begun(study: StudyDirectory) -> bool:
    """Return whether `path` holds nothing but what a study leaves that never got further."""
    allowed = {study.objectives.name, ".lock", ".lock-holder.json"}
    written = {study.specification.name, ".lock-holder.json"}

    def is_ours(name: str) -> bool:
        partial = _PARTIAL.fullmatch(name)
        return name in allowed or (partial is not None and partial[1] in written)

    return is_unstarted(study.path) or (
        study.path.is_dir() and all(is_ours(entry.name) for entry in study.path.iterdir())
    )


def _check_same(study: StudyDirectory, found: Specification, wanted: Specification) -> None:
    different = [
        key for key in {**found, **wanted} if _plain(found.get(key)) != _plain(wanted.get(key))
    ]
    if different:
        key = different[0]
        raise UsageError(
            f"'{study.path}' is a {study.kind} with {key} = {found.get(key)!r:.120}, got "
            f"{wanted.get(key)!r:.120}; choose another --run, or continue it as it is with: "
            f"mgrl {study.kind} --resume {study.path}"
        )


def _plain(value: object) -> object:
    """Return a value as it is read back from TOML: what stands for nothing is not written."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def slug(text: str, taken: set[str]) -> str:
    """Return a name for files made from `text`, unlike those in `taken`, and add it to them."""
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:_LONGEST_SLUG] or "x"
    name, number = clean, 1
    while name.lower() in taken:  # some file systems know no capitals
        number += 1
        name = f"{clean}-{number}"
    taken.add(name.lower())
    return name


def import_file(source: Path, target: Path) -> None:
    """Keep a copy of a file in a new study, in the place of what a study left that died early.

    Raises:
        FileError: there is no such file.
        StorageError: the operating system refused.
    """
    write_atomically(target, _content(source))


def check_copy(path: Path, sha256: str) -> None:
    """Check that a study's copy of a file is what the study began with.

    Raises:
        FileError: it is missing or another one.
        StorageError: the operating system refused.
    """
    if sha256_of(path) != sha256:
        raise FileError(
            f"'{path}' is not what the study began with: its SHA-256 is another; restore it from a "
            "copy, or begin a study under another name"
        )


def sha256_of(path: Path) -> str:
    """Return the digest of a file's content.

    Raises:
        FileError: there is no such file.
        StorageError: the operating system refused.
    """
    return hashlib.sha256(_content(path)).hexdigest()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileError(f"'{path}' does not exist; check the path") from error
    except OSError as error:
        raise StorageError(explain_os_error(error, f"read '{path}'")) from error
