"""What a test along a meta-training is made of: objectives kept on the way, and where to test them.

The objectives are copied when the study begins, so the training may go on meanwhile. Knows nothing
of how its runs are executed.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mgrl_cli.config import Count, Rule, RunConfig
from mgrl_cli.errors import FileError, UsageError
from mgrl_cli.presets import META_TEST_STEPS
from mgrl_cli.run_dir.layout import RunDirectory, find_run
from mgrl_cli.run_dir.manifest import Digest
from mgrl_cli.run_dir.settings import read_settings
from mgrl_cli.studies.directory import (
    Specification,
    StudyDirectory,
    check_copy,
    import_file,
    sha256_of,
    slug,
)
from mgrl_cli.studies.plan import LEARNED, Cell, Plan, baseline_job, is_seen
from mgrl_cli.studies.settings import (
    TEST_SEED_OFFSET,
    Name,
    RunSettings,
    check_rule_names,
    explain,
    job_of,
)

DEFAULT_POINTS = 5
_HISTORY_NAME = re.compile(r"round-([0-9]{6})\.safetensors")


class Along(BaseModel):
    """Everything that decides what a test along a training shows."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    run: str
    """Path of the meta-training."""
    trained_on: list[str]
    """Its environments."""
    envs: Annotated[list[Name], Field(min_length=1)]
    """Test environments."""
    points: Annotated[int, Field(ge=1, le=1000)] = DEFAULT_POINTS
    """How many objectives were asked for; there may be fewer."""
    rounds: list[Count]
    """At whose ends the objectives were kept."""
    env_steps: list[Count]
    """Env steps of each agent of the training up to there."""
    sha256: list[Digest]
    """Of these objectives' files."""
    settings_sha256: Digest | None = None
    """Of the training's `config.toml`, which tests begin from; None: the preset alone."""
    against: list[Rule] = []
    """Rules that need no objective, drawn as levels."""
    preset: Literal["smoke", "laptop", "paper"]
    seeds: Annotated[int, Field(ge=1, le=1000)] = 3
    steps: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Env steps of each fresh agent; None: the preset's."""
    seed: Annotated[int, Field(ge=0, le=2**62)] = 0
    """The tests draw from a root seed `TEST_SEED_OFFSET` away from it."""
    set: list[str] = []
    """Settings of the tests."""

    @model_validator(mode="after")
    def _consistent(self) -> "Along":
        if not len(self.rounds) == len(self.env_steps) == len(self.sha256):
            raise ValueError("rounds, env_steps and sha256 differ in length")
        for what, names in (("environments", self.envs), ("rules", list(self.against))):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} {names} name one twice, expected each once")
        if LEARNED in self.against:
            raise ValueError("'learned' is what is tested; leave it out of --against")
        return self

    @property
    def document(self) -> Specification:
        """The study as TOML values."""
        return self.model_dump(mode="json", exclude_none=True)

    def copy_of(self, study: StudyDirectory, round_index: int) -> Path:
        """Return where the study keeps the objective of a round."""
        return study.objectives / f"round-{round_index:06d}.safetensors"

    def settings_in(self, study: StudyDirectory) -> Path | None:
        """Return where the study keeps the training's settings; None: it needs none."""
        return None if self.settings_sha256 is None else study.objectives / "training.toml"


def parse_along(settings: Mapping[str, Any]) -> Along:
    """Return a test along a training as it was given, or written down.

    Raises:
        UsageError: unknown key, wrong type, or it makes no sense.
    """
    try:
        return Along.model_validate({k: v for k, v in settings.items() if v is not None})
    except ValidationError as error:
        raise UsageError(f"invalid progress: {explain(error)}") from error


def kept_rounds(run: RunDirectory) -> list[int]:
    """Return the rounds at whose ends a training's objective was kept, in order.

    Raises:
        FileError: none was.
    """
    names = [path.name for path in run.objectives.glob("round-*.safetensors")]
    found = sorted(int(match[1]) for name in names if (match := _HISTORY_NAME.fullmatch(name)))
    if not found:
        raise FileError(
            f"run '{run.path}' has kept no objective yet, expected objectives/round-*.safetensors "
            "of a meta-training; let it go on first"
        )
    return found


def evenly_spaced(rounds: Sequence[int], points: int) -> list[int]:
    """Return up to `points` of the rounds, the last one always, as evenly spaced as they allow.

    Of n rounds up to the last one R, those nearest to R·k/points are chosen, k = 1 … points: the
    beginning, where there is no objective, is no point.
    """
    last = rounds[-1]
    chosen = {
        min(rounds, key=lambda it: (abs(it * points - last * number), it))
        for number in range(1, points + 1)
    }
    return sorted(chosen)


def env_steps_at(rounds: Sequence[int], config: RunConfig) -> list[int]:
    """Return the env steps that each agent of a training is to have made at these rounds' ends."""
    return [min(it * config.schedule.round_steps, config.steps) for it in rounds]


def along_of(training: str, settings: Mapping[str, Any], runs_dir: Path) -> Along:
    """Return a test along a training, of the objectives that it has kept by now.

    Args:
        training: name or path of the run.
        settings: what was asked for.
        runs_dir: where runs are kept.

    Raises:
        FileError: there is no such run, it is damaged or has kept no objective yet.
        UsageError: the run is no meta-training, or a setting makes no sense.
    """
    run = find_run(training, runs_dir)
    config = read_settings(run)
    if config.kind != "meta-train":
        raise UsageError(f"run '{run.path}' is a {config.kind}, expected a meta-training")
    points = settings.get("points", DEFAULT_POINTS)
    if points < 1:
        raise UsageError(f"--points got {points}, expected at least 1")
    check_rule_names(settings.get("against", []), "--against")
    rounds = evenly_spaced(kept_rounds(run), points)
    return parse_along(
        {
            "preset": config.preset,
            "settings_sha256": None if "preset" in settings else sha256_of(run.config),
            **settings,
            "run": str(run.path),
            "trained_on": [env.id for env in config.envs],
            "rounds": rounds,
            "env_steps": env_steps_at(rounds, config),
            "sha256": [sha256_of(run.objective_at(it)) for it in rounds],
        }
    )


def with_rounds_of(along: Along, begun: Along) -> Along:
    """Return a study with what it copied when it began, not what its run holds now."""
    copied: Specification = {
        "rounds": begun.rounds,
        "env_steps": begun.env_steps,
        "sha256": begun.sha256,
    }
    if None not in (along.settings_sha256, begun.settings_sha256):
        copied["settings_sha256"] = begun.settings_sha256
    return along.model_copy(update=copied)


def import_objectives(along: Along, study: StudyDirectory) -> None:
    """Copy the objectives, and the settings that tests begin from, into a new study.

    Raises:
        FileError: one is missing.
        StorageError: the operating system refused.
    """
    run = RunDirectory(Path(along.run))
    for round_index in along.rounds:
        import_file(run.objective_at(round_index), along.copy_of(study, round_index))
    settings = along.settings_in(study)
    if settings is not None:
        import_file(run.config, settings)


def check_copies(along: Along, study: StudyDirectory) -> None:
    """Check that the study's copies are what it was begun with.

    Raises:
        FileError: one is missing or another.
        StorageError: the operating system refused.
    """
    for round_index, sha256 in zip(along.rounds, along.sha256, strict=True):
        check_copy(along.copy_of(study, round_index), sha256)
    settings = along.settings_in(study)
    if settings is not None and along.settings_sha256 is not None:
        check_copy(settings, along.settings_sha256)


def plan_along(along: Along, study: StudyDirectory) -> Plan:
    """Return jobs and cells: one per objective and environment, then the rules to compare with.

    The study's copies must be there.

    Raises:
        UsageError: a setting is invalid.
        FileError: the training's settings cannot be read.
    """
    taken: set[str] = set()
    cells: list[Cell] = []
    for round_index, env_steps in zip(along.rounds, along.env_steps, strict=True):
        for environment in along.envs:
            name = slug(f"round-{round_index:06d}.{environment}", taken)
            copy = along.copy_of(study, round_index)
            begin = ("meta-test", "--objective", str(copy))
            settings = _test_settings(along, study, environment, LEARNED)
            cells.append(
                Cell(
                    job=job_of(f"test-{name}", study.test / name, begin, settings),
                    settings=settings,
                    copy=copy,
                    row=f"{LEARNED}: round {round_index}",
                    training=Path(along.run).name,
                    meta_seed=None,
                    train_env_steps=env_steps,
                    environment=environment,
                    is_seen=is_seen(environment, along.trained_on),
                )
            )
    for rule in along.against:
        for environment in along.envs:
            settings = _test_settings(along, study, environment, rule)
            cells.append(
                Cell(
                    job=baseline_job(rule, settings, study, taken),
                    settings=settings,
                    copy=None,
                    row=rule,
                    training="",
                    meta_seed=None,
                    train_env_steps=0,
                    environment=environment,
                    is_seen=False,
                )
            )
    return Plan(tuple(cell.job for cell in cells), tuple(cells), tuple(along.envs))


def _test_settings(along: Along, study: StudyDirectory, environment: str, rule: str) -> RunSettings:
    return RunSettings(
        kind="meta-test",
        envs=(environment,),
        preset=along.preset,
        seed=along.seed + TEST_SEED_OFFSET,
        # Not left out: the training's settings have steps of their own.
        steps=along.steps or META_TEST_STEPS[along.preset],
        set=tuple(along.set),
        config=along.settings_in(study),
        rule=rule,
        seeds=along.seeds,
    )
