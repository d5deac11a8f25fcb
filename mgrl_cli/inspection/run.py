"""What a run directory holds: its settings, how far it is, and which of its files are whole.

Files are judged by what the run's own records say must be there by now, so a run that has only
begun is not called damaged. Reads settings first: without them nothing else has a meaning.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mgrl_cli.agents.population import AgentSpec, agent_specs
from mgrl_cli.config import RunConfig
from mgrl_cli.errors import FileError, StorageError, UsageError
from mgrl_cli.inspection.metrics import MetricsSummary, count, figure, last_known, read_metrics
from mgrl_cli.inspection.objective import ObjectiveReport, inspect_objective
from mgrl_cli.inspection.replay import inspect_buffer
from mgrl_cli.inspection.replay_figures import Buffer
from mgrl_cli.inspection.run_checkpoints import Keeping, inspect_checkpoints
from mgrl_cli.inspection.validations import ValidationLine, validation_lines
from mgrl_cli.run_dir.layout import RunDirectory, agent_name
from mgrl_cli.run_dir.settings import read_settings

_Report = TypeVar("_Report")
_SATURATED_BELOW = 0.02
"""Action slack (mean of 1 - a²) below which a policy is stuck at its bounds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentProgress:
    """One agent by its metrics. Figures not known (yet) are NaN, the others as last recorded."""

    agent_id: int
    environment: str
    rule: str
    seed: int
    """Number of the agent's random streams; in a meta-test that of the test seed."""
    round: int
    """Rounds recorded."""
    life: int
    env_steps: int
    episodes: int
    returns: tuple[float, ...]
    """Mean training return of every round."""
    mean_return: float
    evaluations: tuple[tuple[int, float], ...]
    """Env steps and mean noise-free return, one pair per evaluation."""
    evaluation: float
    gain: float
    """Of the virtual step, in units of Q."""
    cosine: float
    """Between the policy gradients of the objective and of the critic."""
    action_slack: float
    critic_loss: float
    skipped_updates: int
    """Over all rounds: updates left out because they were not finite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """A run, finished or not."""

    path: str
    name: str
    kind: str
    preset: str
    seed: int
    environments: tuple[str, ...]
    rules: tuple[str, ...]
    num_agents: int
    steps_per_agent: int
    rounds_done: int
    """Rounds that every agent has recorded that is not in quarantine."""
    num_rounds: int
    agents: tuple[AgentProgress, ...]
    validations: tuple[ValidationLine, ...]
    """Tests of the objective on the way, oldest first."""
    objective: ObjectiveReport | None
    buffer: Buffer | None
    keeping: Keeping
    """Its checkpoints, and what they show."""
    absent: tuple[str, ...]
    """Files that are not there yet, and need not be."""
    is_whole: bool
    problems: tuple[str, ...]
    """Missing and damaged files, one line each; of the buffer, see `buffer` too."""
    warnings: tuple[str, ...]


def inspect_run(path: Path) -> RunReport:
    """Read a run directory as it is now.

    Raises:
        FileError: `config.toml` is missing, damaged or not ours, or the lock file is a link.
        StorageError: the operating system refused to read settings or metrics, or to list a part.
    """
    run = RunDirectory(path)
    config = _settings(run)
    # The population's row of a round comes after its agents': read first, it never runs ahead.
    population = read_metrics(run.population_metrics)
    specs = agent_specs(config)
    files = [read_metrics(run.agent_metrics(spec.agent_id)) for spec in specs]
    agents = tuple(_progress(spec, file) for spec, file in zip(specs, files, strict=True))
    problems = [file.problem for file in (population, *files) if file.problem]
    validations, problem = validation_lines(read_metrics(run.validation_metrics))
    problems += [problem] if problem else []
    objective = _read_or_note(run.objective, inspect_objective, problems)
    buffer = None
    if any(run.buffer.glob("agent-*")):
        buffer = _read_or_note(run.buffer, inspect_buffer, problems)
    if buffer is not None:
        problems += buffer.problems
    keeping = inspect_checkpoints(run, config, max(agent.round for agent in agents))
    problems += keeping.problems
    files_due = _files(run, config, agents, population, keeping)
    absent = {file: is_due for file, is_due in files_due if not file.exists()}
    problems += [f"{file} is missing; restore it from a copy" for file in absent if absent[file]]
    return RunReport(
        path=str(path),
        name=path.resolve().name,
        kind=config.kind,
        preset=config.preset,
        seed=config.seed,
        environments=tuple(dict.fromkeys(spec.env.id for spec in specs)),
        rules=tuple(dict.fromkeys(spec.rule for spec in specs)),
        num_agents=len(specs),
        steps_per_agent=config.steps,
        rounds_done=_rounds_done(agents, keeping),
        num_rounds=config.num_rounds,
        agents=agents,
        validations=validations,
        objective=objective,
        buffer=buffer,
        keeping=keeping,
        absent=tuple(str(file) for file in absent if not absent[file]),
        is_whole=not problems,
        problems=tuple(problems),
        warnings=tuple(_warnings(agents, keeping)),
    )


def _rounds_done(agents: tuple[AgentProgress, ...], keeping: Keeping) -> int:
    rounds = {agent_name(agent.agent_id): agent.round for agent in agents}
    active = [number for name, number in rounds.items() if name not in keeping.quarantined]
    return min(active or rounds.values())


def _settings(run: RunDirectory) -> RunConfig:
    try:
        return read_settings(run)
    except UsageError as error:
        # Not the user's own settings: the file does not hold what mgrl wrote.
        raise FileError(f"{error}; restore the file from a copy") from error


def _progress(spec: AgentSpec, file: MetricsSummary) -> AgentProgress:
    rows = file.rows
    last = rows[-1] if rows else {}
    evaluations = tuple(
        (count(row, "env_steps"), figure(row, "evaluation"))
        for row in rows
        if not math.isnan(figure(row, "evaluation"))
    )
    return AgentProgress(
        agent_id=spec.agent_id,
        environment=spec.env.id,
        rule=spec.rule,
        seed=spec.seed_index,
        round=count(last, "round"),
        life=count(last, "life"),
        env_steps=count(last, "env_steps"),
        episodes=count(last, "episodes"),
        returns=tuple(figure(row, "mean_return") for row in rows),
        mean_return=last_known(rows, "mean_return"),
        evaluations=evaluations,
        evaluation=last_known(rows, "evaluation"),
        gain=last_known(rows, "gain"),
        cosine=last_known(rows, "cosine"),
        action_slack=last_known(rows, "action_slack"),
        critic_loss=last_known(rows, "critic_loss"),
        skipped_updates=sum(count(row, "skipped_updates") for row in rows),
    )


def _read_or_note(
    path: Path, inspect: Callable[[Path], _Report], problems: list[str]
) -> _Report | None:
    """Return the report on a part of the run, or None where it is absent, damaged or refused.

    What the operating system refuses to read is not known to be whole, and hides nothing else.
    """
    if not path.exists():
        return None
    try:
        return inspect(path)
    except (FileError, StorageError) as error:
        problems.append(str(error))
        return None


def _files(
    run: RunDirectory,
    config: RunConfig,
    agents: tuple[AgentProgress, ...],
    population: MetricsSummary,
    keeping: Keeping,
) -> Iterator[tuple[Path, bool]]:
    """Yield every file that the run comes to have, and whether it must be there by now."""
    # Saved a moment after the population's row of the same round.
    is_saved = len(population.rows) > 1 or any(line.rounds for line in keeping.checkpoints)
    if config.needs_objective:
        yield run.objective, is_saved
    # Written a moment after the last agent's row.
    yield run.population_metrics, all(agent.round > 1 for agent in agents)
    is_round_complete = bool(population.rows)
    for agent in agents:
        yield run.agent_metrics(agent.agent_id), is_round_complete
    if not run.buffer.exists():
        yield run.buffer, any(agent.round for agent in agents)
        return
    for agent in agents:
        yield run.agent_buffer(agent.agent_id), is_round_complete or agent.round > 0


def _warnings(agents: tuple[AgentProgress, ...], keeping: Keeping) -> Iterator[str]:
    if not any(agent.round for agent in agents):
        yield "no agent has recorded a round yet"
    for name, reason in keeping.quarantined.items():
        yield f"{name} is out of the population: {reason}"
    for agent in agents:
        name = agent_name(agent.agent_id)
        if agent.skipped_updates:
            yield f"{name}: {agent.skipped_updates} updates were not finite and left out"
        if agent.action_slack < _SATURATED_BELOW:
            slack = f"action slack {agent.action_slack:.2g}"
            yield f"{name}: the policy is stuck at its bounds ({slack})"
