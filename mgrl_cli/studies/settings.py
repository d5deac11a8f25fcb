"""The settings of one run of a study, as its command takes them and as the run will resolve them.

So a mistake shows before the first hour is spent. Knows nothing of matrices or processes.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, final

from pydantic import AfterValidator, Field, ValidationError

from mgrl_cli.config import RULES, RunConfig
from mgrl_cli.errors import UsageError, did_you_mean
from mgrl_cli.presets import resolve_config
from mgrl_cli.studies.jobs import Job

TEST_SEED_OFFSET = 2_000_000
"""Between the seed of a training, or of a study, and that of its tests: with the same seed fresh
agent i would begin with the networks, noise and episodes of training agent i."""

_ELSEWHERE = {
    "kind": "the command decides it",
    "preset": "give it as --preset",
    "rules": "name them as --objectives or --against",
    "seeds": "give it as --seeds",
    "seed": "give it as --seed",
    "steps": "give it as --steps or --train-steps",
    "envs": "name them as --train, --test or --env",
    "agents": "give numbers of agents with the environments, as lunar:3",
}
"""Settings that a study decides itself → where they are given."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected printable characters on one line")
    return text


# All of them are shown in terminals.
LONGEST_NAME = 100
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME), AfterValidator(_printable)]
"""Of an environment."""
RowName = Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(_printable)]
RunPath = Annotated[str, Field(max_length=4096), AfterValidator(_printable)]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """What is asked of one run."""

    kind: Literal["meta-train", "meta-test"]
    envs: tuple[str, ...]
    """Environments; in a training with numbers of agents, if any, as "lunar:3"."""
    preset: str
    seed: int
    """Root of the run's randomness."""
    steps: int | None
    """Env steps per agent; None: the preset's."""
    set: tuple[str, ...]
    """Single settings, as --set takes them."""
    config: Path | None = None
    """TOML file with settings that win over the preset's, as --config takes it."""
    rule: str = "learned"
    """Of a test: what drives the agents."""
    seeds: int = 1
    """Of a test: fresh agents."""

    @property
    def options(self) -> tuple[str, ...]:
        """The command's options."""
        shared = ["--preset", self.preset, "--seed", str(self.seed)]
        if self.steps is not None:
            shared += ["--steps", str(self.steps)]
        if self.config is not None:
            shared += ["--config", str(self.config)]
        for assignment in self.set:
            shared += ["--set", assignment]
        if self.kind == "meta-train":
            return ("--envs", ",".join(self.envs), *shared)
        return ("--env", self.envs[0], "--seeds", str(self.seeds), *shared)

    def resolved(self, where: str, base: Mapping[str, Any] | None = None) -> RunConfig:
        """Return the run's settings.

        Args:
            where: names the run.
            base: settings that follow from its objective; win over the preset.

        Raises:
            UsageError: one is invalid, is not to be set here, or leaves a test without a score;
                names `where`.
            FileError: `config` cannot be read.
        """
        of_kind: dict[str, Any] = {}
        if self.kind == "meta-test":
            of_kind = {"rules": [self.rule], "seeds": self.seeds}
        try:
            _refuse_decided(self.set, is_test=self.kind == "meta-test")
            config = resolve_config(
                kind=self.kind,
                preset=self.preset,
                base=base,
                config_file=self.config,
                assignments=self.set,
                options={
                    "envs": population(self.envs, "envs"),
                    "steps": self.steps,
                    "seed": self.seed,
                    **of_kind,
                },
            )
            _refuse_scoreless(config)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        return config


def job_of(
    name: str, run: Path, begin: Sequence[str], settings: RunSettings, needs: Sequence[str] = ()
) -> Job:
    """Return the job of a run.

    Args:
        name: of the job.
        run: its run directory.
        begin: the command, and what names its objective or rule.
        settings: of the run.
        needs: names of jobs to wait for.

    Raises:
        UsageError: a setting is invalid.
    """
    config = settings.resolved(name)
    return Job(
        name=name,
        run=run,
        arguments=(*begin, *settings.options),
        agents=config.agents,
        agent_steps=config.agents * config.steps,
        num_rounds=config.num_rounds,
        needs=tuple(needs),
    )


def section_of(assignment: str) -> str:
    """Return the first key of "section.key=value"."""
    return assignment.partition("=")[0].strip().partition(".")[0]


def _refuse_decided(assignments: Sequence[str], *, is_test: bool) -> None:
    """Refuse settings that options of the run's command would override, or that mean nothing."""
    for assignment in assignments:
        section = section_of(assignment)
        if section in _ELSEWHERE:
            raise UsageError(
                f"set got {assignment!r:.80}, expected no '{section}': {_ELSEWHERE[section]}"
            )
        if is_test and section == "validation":
            raise UsageError(
                f"set got {assignment!r:.80}, expected no 'validation' of a test: only trainings "
                "are validated; leave it out"
            )


def _refuse_scoreless(config: RunConfig) -> None:
    interval = config.evaluation.interval
    if config.kind == "meta-test" and not 1 <= interval <= config.steps:
        raise UsageError(
            f"evaluation.interval={interval} leaves a test of {config.steps} env steps without a "
            "score, expected at least 1 and at most the steps; set it with --set, or raise --steps"
        )


def population(envs: Sequence[str], where: str) -> list[dict[str, Any]]:
    """Return environments as settings: "name", or "name:count"; "module:Name-v0" is a name.

    Raises:
        UsageError: a count is 0; names `where`.
    """
    found: list[dict[str, Any]] = []
    for item in envs:
        name, separator, count = item.rpartition(":")
        if not separator or not re.fullmatch(r"[0-9]{1,9}", count):
            found.append({"id": item})
        elif int(count) < 1:
            raise UsageError(f"{where} got '{item}', expected at least one agent per environment")
        else:
            found.append({"id": name, "agents": int(count)})
    return found


def check_rule_names(rules: Iterable[object], where: str) -> None:
    """Refuse rules that do not exist.

    Raises:
        UsageError: one does not; names `where`.
    """
    for rule in rules:
        if rule not in RULES:
            raise UsageError(
                f"{where} got {rule!r:.80}, expected some of {', '.join(RULES)}."
                f"{did_you_mean(str(rule), RULES)}"
            )


def explain(error: ValidationError) -> str:
    """Return the first problem of a specification on one line: key, what was wrong, got."""
    problem = error.errors()[0]
    where = repr(".".join(str(part) for part in problem["loc"]))  # keys may be anybody's
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    got = "" if problem["type"] == "missing" else f", got {problem['input']!r:.80}"
    return f"{where:.120}: {message[0].lower()}{message[1:]}{got}"
