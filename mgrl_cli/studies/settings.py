"""The settings of one run of a study, as its command takes them and as the run will resolve them.

So a mistake shows before the first hour is spent. Knows nothing of matrices or processes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from pydantic import ValidationError

from mgrl_cli.config import RULES, RunConfig
from mgrl_cli.errors import UsageError, did_you_mean
from mgrl_cli.presets import resolve_config
from mgrl_cli.studies.jobs import Job


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
        for assignment in self.set:
            shared += ["--set", assignment]
        if self.kind == "meta-train":
            return ("--envs", ",".join(self.envs), *shared)
        return ("--env", self.envs[0], "--seeds", str(self.seeds), *shared)

    def resolved(self, where: str) -> RunConfig:
        """Return the run's settings.

        Raises:
            UsageError: one is invalid; names `where`.
        """
        of_kind: dict[str, Any] = {}
        if self.kind == "meta-test":
            of_kind = {"rules": [self.rule], "seeds": self.seeds}
        try:
            return resolve_config(
                kind=self.kind,
                preset=self.preset,
                assignments=self.set,
                options={
                    "envs": population(self.envs),
                    "steps": self.steps,
                    "seed": self.seed,
                    **of_kind,
                },
            )
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error


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


def population(envs: Sequence[str]) -> list[dict[str, Any]]:
    """Return environments, "lunar" or "lunar:3" with its number of agents, as settings."""
    found: list[dict[str, Any]] = []
    for item in envs:
        name, separator, count = item.rpartition(":")
        is_counted = bool(separator) and count.isascii() and count.isdecimal()
        found.append({"id": name, "agents": int(count)} if is_counted else {"id": item})
    return found


def check_rules(rules: Iterable[object], where: str) -> None:
    """Refuse rules that do not exist.

    Raises:
        UsageError: one does not; names `where`.
    """
    for rule in rules:
        if rule not in RULES:
            raise UsageError(
                f"{where} got '{rule}', expected some of {', '.join(RULES)}."
                f"{did_you_mean(str(rule), RULES)}"
            )


def explain(error: ValidationError) -> str:
    """Return the first problem of a specification on one line: key, what was wrong, got."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if not where:
        return message
    got = "" if problem["type"] == "missing" else f", got {problem['input']!r:.80}"
    return f"'{where}': {message[0].lower()}{message[1:]}{got}"
