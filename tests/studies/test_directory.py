"""A study's directory is begun once and never mixed with another study."""

from pathlib import Path

import pytest

from mgrl_cli.errors import FileError, RunLockedError, UsageError
from mgrl_cli.studies.directory import (
    StudyDirectory,
    check_copy,
    find_study,
    import_file,
    opened,
    read_specification,
    sha256_of,
    slug,
)

SPECIFICATION = {"seeds": 3, "test": [{"env": "reacher", "set": []}], "train": []}


@pytest.fixture
def study(tmp_path: Path) -> StudyDirectory:
    return StudyDirectory(tmp_path / "runs" / "m", "matrix")


def open_and_close(study: StudyDirectory, specification: dict[str, object]) -> list[str]:
    called: list[str] = []
    with opened(
        study, specification, lambda: called.append("prepared"), lambda: called.append("checked")
    ):
        pass
    return called


def test_a_study_is_prepared_once_and_checked_every_time(study: StudyDirectory) -> None:
    assert open_and_close(study, SPECIFICATION) == ["prepared", "checked"]
    assert read_specification(study) == SPECIFICATION
    assert open_and_close(study, SPECIFICATION) == ["checked"]


def test_another_specification_is_refused(study: StudyDirectory) -> None:
    open_and_close(study, SPECIFICATION)
    with pytest.raises(UsageError, match="a matrix with seeds = 3, got 4; choose another --run"):
        open_and_close(study, {**SPECIFICATION, "seeds": 4})
    with pytest.raises(UsageError, match="steps"):
        open_and_close(study, {**SPECIFICATION, "steps": 1})
    assert read_specification(study) == SPECIFICATION


def test_what_is_no_study_is_never_taken_over(study: StudyDirectory) -> None:
    study.path.mkdir(parents=True)
    (study.path / "mine.txt").touch()
    with pytest.raises(UsageError, match="never overwritten"):
        open_and_close(study, SPECIFICATION)


def test_a_study_that_died_while_it_was_prepared_begins_again(study: StudyDirectory) -> None:
    def die() -> None:
        study.objectives.mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), opened(study, SPECIFICATION, die, lambda: None):
        pass
    assert open_and_close(study, SPECIFICATION) == ["prepared", "checked"]


def test_what_a_check_refuses_has_not_begun(study: StudyDirectory) -> None:
    def refuse() -> None:
        raise UsageError("no")

    with pytest.raises(UsageError), opened(study, SPECIFICATION, lambda: None, refuse):
        pass
    assert open_and_close(study, {**SPECIFICATION, "seeds": 4}) == ["prepared", "checked"]


def test_a_study_that_died_while_its_specification_was_written_begins_again(
    study: StudyDirectory,
) -> None:
    study.objectives.mkdir(parents=True)
    partial = study.path / f".matrix.toml.{'0a' * 16}.partial"
    for path in (partial, study.objectives / f".first.safetensors.{'0a' * 16}.partial"):
        path.write_bytes(b"seeds =")
    assert open_and_close(study, SPECIFICATION) == ["prepared", "checked"]
    assert not list(study.path.rglob("*.partial"))


def test_a_partial_file_of_something_else_is_not_taken_over(study: StudyDirectory) -> None:
    study.path.mkdir(parents=True)
    (study.path / f".mine.txt.{'0a' * 16}.partial").touch()
    with pytest.raises(UsageError, match="never overwritten"):
        open_and_close(study, SPECIFICATION)


def test_two_processes_do_not_work_on_one_study(study: StudyDirectory) -> None:
    with (
        opened(study, SPECIFICATION, lambda: None, lambda: None),
        pytest.raises(RunLockedError),
    ):
        open_and_close(study, SPECIFICATION)


def test_a_study_is_found_by_name_and_path(study: StudyDirectory) -> None:
    open_and_close(study, SPECIFICATION)
    runs_dir = study.path.parent
    assert find_study("m", runs_dir, "matrix") == study
    assert find_study(str(study.path), Path("elsewhere"), "matrix") == study
    with pytest.raises(FileError, match="no progress 'm'"):
        find_study("m", runs_dir, "progress")
    with pytest.raises(FileError, match="Did you mean 'm'"):
        find_study("mm", runs_dir, "matrix")


def test_slugs_differ_where_names_do() -> None:
    taken: set[str] = set()
    names = [slug(text, taken) for text in ("a,b", "a b", "A-B", "../..", "my:Env-v0", "x" * 99)]
    assert names == ["a-b", "a-b-2", "A-B-3", "x", "my-Env-v0", "x" * 60]


def test_a_copy_takes_the_place_of_an_older_one_and_is_known_by_its_digest(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "copies" / "target"
    source.write_bytes(b"first")
    import_file(source, target)
    first = sha256_of(target)
    source.write_bytes(b"second")
    import_file(source, target)
    assert target.read_bytes() == b"second"
    check_copy(target, sha256_of(source))
    with pytest.raises(FileError, match="its SHA-256 is another"):
        check_copy(target, first)
    for missing in (tmp_path / "absent", tmp_path / "copies" / "absent"):
        with pytest.raises(FileError, match="does not exist"):
            check_copy(missing, first)
    with pytest.raises(FileError, match="does not exist"):
        import_file(tmp_path / "absent", tmp_path / "copies" / "other")
