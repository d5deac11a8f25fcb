"""`config.toml` gives back the settings it was written from."""

import sys
import tomllib
from pathlib import Path

import pytest

from mgrl_cli.config import RunConfig
from mgrl_cli.errors import FileError, StorageError, UsageError
from mgrl_cli.presets import PRESETS, resolve_config
from mgrl_cli.run_dir.layout import RunDirectory
from mgrl_cli.run_dir.settings import (
    package_versions,
    read_settings,
    settings_sha256,
    write_settings,
)

AWKWARD = {
    "id": 'a "quoted" \\ id, ä, \x1b, \n',
    "agents": 3,
    "kwargs": {"a": True, "b": 1, "c": 0.1 + 0.2, "d": "1", "e.f": 1e-300, "g": 1e300},
    "randomise": {"mass kg": [1, 1 / 3]},
}


def settings(preset: str = "paper", **options: object) -> RunConfig:
    return resolve_config(
        kind="meta-train", preset=preset, options={"envs": [{"id": "pendulum"}], **options}
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_survive_the_file(tmp_path: Path, preset: str) -> None:
    run = RunDirectory(tmp_path)
    write_settings(run, settings(preset))
    assert read_settings(run) == settings(preset)


def test_awkward_values_survive_the_file_with_their_kinds(tmp_path: Path) -> None:
    run, config = RunDirectory(tmp_path), settings(envs=[AWKWARD], seed=2**63 - 1)
    write_settings(run, config)
    read = read_settings(run)
    assert read == config
    kinds = [type(value) for value in read.envs[0].kwargs.values()]
    assert kinds == [bool, int, float, str, float, float]


def test_where_the_run_came_from_is_kept_but_is_no_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mgrl", "meta-train", "--envs", "pendulum"])
    run = RunDirectory(tmp_path)
    write_settings(run, settings())
    provenance = tomllib.loads(run.config.read_text())["provenance"]
    assert provenance["command"] == ["mgrl", "meta-train", "--envs", "pendulum"]
    assert provenance["packages"] == package_versions()
    assert provenance["python"].split(".")[0] == "3"


def test_a_command_line_that_is_not_utf_8_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux allows any bytes in a path; Python hands them on as lone surrogates."""
    monkeypatch.setattr(
        sys, "argv", ["mgrl", "--runs-dir", b"r\xfcns".decode(errors="surrogateescape")]
    )
    run = RunDirectory(tmp_path)
    write_settings(run, settings())
    assert tomllib.loads(run.config.read_text())["provenance"]["command"][2] == "r\\udcfcns"
    assert read_settings(run) == settings()


def test_versions_name_what_decides_results() -> None:
    versions = package_versions()
    assert {"torch", "numpy", "gymnasium", "zarr"} <= set(versions)
    assert all(version[0].isdigit() for version in versions.values())


@pytest.mark.parametrize(
    "content",
    [None, b"\xff", b"seed =", b"seed = " + b"9" * 5000, b"x = " + b"[" * 20_000],
)
def test_an_unreadable_file_is_a_file_error(tmp_path: Path, content: bytes | None) -> None:
    run = RunDirectory(tmp_path)
    if content is not None:
        run.config.write_bytes(content)
    with pytest.raises(FileError, match=r"cannot read '.*config\.toml'"):
        read_settings(run)


def test_a_setting_that_is_wrong_is_named_with_the_file(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    write_settings(run, settings())
    run.config.write_text(run.config.read_text().replace("seed = 0", "sed = 0"))
    with pytest.raises(UsageError, match=r"invalid '.*config\.toml': unknown key 'sed'.* 'seed'"):
        read_settings(run)


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"config\.toml"):
        write_settings(RunDirectory(tmp_path / "file"), settings())


def test_the_digest_of_settings_survives_the_file(tmp_path: Path) -> None:
    run, config = RunDirectory(tmp_path), settings(envs=[AWKWARD])
    write_settings(run, config)
    assert settings_sha256(read_settings(run)) == settings_sha256(config)


def test_what_may_change_on_the_way_is_not_in_the_digest() -> None:
    digest = settings_sha256(settings())
    free = [
        {"checkpoints": {"interval_s": 1.5, "keep": 7}},
        {"supervision": {"max_restarts": 9, "hang_timeout_s": 12.5}},
    ]
    assert {settings_sha256(settings(**changes)) for changes in free} == {digest}
    assert len(digest) == 64


def test_what_decides_results_is_in_the_digest() -> None:
    deciding = [
        {},
        {"seed": 1},
        {"steps": 12_345},
        {"supervision": {"max_failed_episodes": 7}},
        {"supervision": {"max_skipped_updates": 7}},
        {"critic": {"learning_rate": 0.0123}},
        {"evaluation": {"episodes": 77}},
        {"compiled": False},
        {"envs": [{"id": "pendulum", "kwargs": {"a": 1}}]},
        {"envs": [{"id": "pendulum", "kwargs": {"a": 1.0}}]},
        {"envs": [{"id": "pendulum", "kwargs": {"a": True}}]},
        {"envs": [{"id": "pendulum"}, {"id": "hopper"}]},
        {"envs": [{"id": "hopper"}, {"id": "pendulum"}]},
    ]
    digests = {settings_sha256(settings(**changes)) for changes in deciding}
    assert len(digests) == len(deciding)
