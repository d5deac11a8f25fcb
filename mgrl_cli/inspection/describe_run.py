"""A run directory in words: settings, progress of every agent, and the state of its files."""

import math
from collections.abc import Iterator, Sequence

from mgrl_cli.inspection.describe_checkpoint import position_text
from mgrl_cli.inspection.describe_objective import objective_facts
from mgrl_cli.inspection.describe_replay import agents_table, notes
from mgrl_cli.inspection.run import AgentProgress, RunReport
from mgrl_cli.inspection.sections import Cell, Curve, Facts, Section, Size, Table


def describe_run(report: RunReport) -> Iterator[Section]:
    """Yield everything about one run."""
    yield Facts(f"run {report.name}", _facts(report))
    if report.kind == "meta-test":
        yield _evaluations_table(report)
        yield _progress_table(report)
    else:
        yield _progress_table(report)
        yield _meta_table(report)
    if report.validations:
        yield _validations_table(report)
    if report.keeping.checkpoints:
        yield _checkpoints_table(report)
    if report.objective is not None:
        yield Facts("Objective", objective_facts(report.objective))
    if report.buffer is not None:
        yield agents_table(report.buffer)
    yield from notes(report.problems, _all_warnings(report))


def _facts(report: RunReport) -> tuple[tuple[str, Cell], ...]:
    return (
        ("kind", report.kind),
        ("preset", report.preset),
        ("seed", str(report.seed)),
        ("environments", ", ".join(report.environments)),
        ("rules", ", ".join(report.rules)),
        ("agents", report.num_agents),
        ("steps per agent", report.steps_per_agent),
        ("rounds", f"{report.rounds_done} of {report.num_rounds}"),
        ("state", _state(report)),
        ("replay", Size(report.buffer.size_bytes) if report.buffer else None),
        ("not yet there", ", ".join(report.absent) or "nothing"),
        ("whole", "yes" if report.is_whole else "no"),
    )


def _state(report: RunReport) -> str:
    keeping = report.keeping
    newest = keeping.checkpoints[-1] if keeping.checkpoints else None
    saved = f"saved {position_text(newest.rounds, newest.updates)}" if newest else "nothing saved"
    match keeping.state:
        case "finished":
            return f"finished: {keeping.early_end}" if keeping.early_end else "finished"
        case "running":
            return f"running ({keeping.holder}), {saved}"
        case "interrupted":
            return f"interrupted, {saved}"
        case "not begun":
            return "not begun, no checkpoint"


def _checkpoints_table(report: RunReport) -> Table:
    return Table(
        "Checkpoints",
        ("name", "rounds ago", "elapsed seconds", "size", "best"),
        tuple(
            (line.name, line.age_rounds, line.elapsed_s, Size(line.size_bytes),
             "best" if line.is_best else "")
            for line in report.keeping.checkpoints
        ),
        note="best: most agents were evaluated higher there than in any other",
    )  # fmt: skip


def _validations_table(report: RunReport) -> Table:
    environments = tuple(report.validations[0].scores)
    return Table(
        "Validations",
        ("after round", *environments, "best"),
        tuple(
            (line.round, *(line.scores[name] for name in environments),
             "best" if line.is_best else "")
            for line in report.validations
        ),
        note="mean final score of fresh agents; best: highest, or best mean rank of several",
    )  # fmt: skip


def _progress_table(report: RunReport) -> Table:
    return Table(
        "Agents",
        ("agent", "environment", "rule", "seed", "steps", "return", "by round", "evaluation",
         "by evaluation"),
        tuple(
            (str(agent.agent_id), agent.environment, agent.rule, str(agent.seed), agent.env_steps,
             agent.mean_return, Curve(agent.returns), agent.evaluation,
             Curve([value for _, value in agent.evaluations]))
            for agent in report.agents
        ),
        note="return: mean of the last round's training episodes; evaluation: without noise",
    )  # fmt: skip


def _meta_table(report: RunReport) -> Table:
    return Table(
        "Learning",
        ("agent", "episodes", "life", "gain", "cosine", "action slack", "critic loss"),
        tuple(
            (str(agent.agent_id), agent.episodes, agent.life, agent.gain, agent.cosine,
             agent.action_slack, agent.critic_loss)
            for agent in report.agents
        ),
        note="gain: of the virtual step, in units of Q; cosine: with the critic's policy gradient",
    )  # fmt: skip


def _evaluations_table(report: RunReport) -> Table:
    """Return the last evaluation of every seed, a column per rule."""
    seeds = sorted({agent.seed for agent in report.agents})
    rows: list[tuple[Cell, ...]] = [
        (f"seed {seed}", *(_at(report.agents, rule, seed) for rule in report.rules))
        for seed in seeds
    ]
    rows.append(("mean", *(_mean(report.agents, rule) for rule in report.rules)))
    return Table("Last evaluation", ("", *report.rules), tuple(rows))


def _at(agents: Sequence[AgentProgress], rule: str, seed: int) -> float:
    return next(
        (agent.evaluation for agent in agents if (agent.rule, agent.seed) == (rule, seed)),
        math.nan,
    )


def _mean(agents: Sequence[AgentProgress], rule: str) -> float:
    known = [
        agent.evaluation
        for agent in agents
        if agent.rule == rule and not math.isnan(agent.evaluation)
    ]
    return sum(known) / len(known) if known else math.nan


def _all_warnings(report: RunReport) -> tuple[str, ...]:
    parts = list(report.warnings)
    if report.objective is not None:
        parts += [f"objective: {line}" for line in report.objective.warnings]
    if report.buffer is not None:
        parts += report.buffer.warnings
    return tuple(parts)
