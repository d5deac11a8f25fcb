"""What came with a run from elsewhere and could lead out of it is refused."""

import os
from pathlib import Path

import pytest

from mgrl_cli.errors import FileError, StorageError
from mgrl_cli.run_dir.intrusions import refuse_links
from mgrl_cli.run_dir.layout import RunDirectory


def make_run(path: Path) -> RunDirectory:
    """What a run is recognised by."""
    (path / "metrics").mkdir(parents=True)
    (path / "config.toml").write_text("")
    return RunDirectory(path)


@pytest.mark.parametrize("place", ["link", ".lock", "logs/deep/link"])
@pytest.mark.parametrize("target", ["outside", "absent", "run/config.toml", "run"])
def test_a_link_anywhere_inside_a_run_is_refused_by_name(
    tmp_path: Path, place: str, target: str
) -> None:
    (tmp_path / "outside").mkdir()
    run = make_run(tmp_path / "run")
    (run.logs / "deep").mkdir(parents=True)
    refuse_links(run)
    (run.path / place).symlink_to(tmp_path / target)
    with pytest.raises(FileError, match=f"'{run.path / place}' is a symbolic link"):
        refuse_links(run)


def test_links_above_a_run_are_the_users_own(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "link").symlink_to("run")
    refuse_links(RunDirectory(tmp_path / "link"))


def test_a_directory_that_cannot_be_looked_through_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    run = make_run(tmp_path / "run")
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match=r"cannot look through run .*: Permission denied"):
        refuse_links(run)
