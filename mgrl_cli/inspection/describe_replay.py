"""Replay in words: the sections of one agent's, and of a whole buffer's with a row per agent."""

from collections.abc import Iterator, Sequence

from mgrl_cli.inspection.replay_figures import ActionFigures, AgentReplay, Buffer
from mgrl_cli.inspection.sections import Cell, Curve, Facts, Notes, Section, Share, Size, Table
from mgrl_cli.inspection.statistics import Spread


def describe_agent(replay: AgentReplay) -> Iterator[Section]:
    """Yield everything about one agent's replay."""
    yield Facts(f"replay of {replay.name}", _facts(replay))
    yield Table(
        "Episodes",
        ("", "mean", "std", "min", "max", "last", "oldest to newest"),
        (
            ("return", *_spread_cells(replay.returns), replay.last_return,
             Curve(replay.episodes.episode_return)),
            ("length", *_spread_cells(replay.lengths), _last(replay.episodes.length),
             Curve(replay.episodes.length)),
        ),
    )  # fmt: skip
    yield Table(
        "Steps",
        ("", "mean", "std", "min", "max", "mean |a|", "|a|>.99", "histogram"),
        (
            ("reward", *_spread_cells(replay.reward), None, None,
             Curve(replay.reward_histogram.counts)),
            ("actions", *_action_cells(replay.action)),
            ("of policy", *_action_cells(replay.policy_action)),
        ),
        note="of policy: actions that were not drawn uniformly",
    )  # fmt: skip
    yield Table(
        "Observations",
        ("dimension", "min", "mean", "max", "std"),
        tuple(
            (str(index), spread.min, spread.mean, spread.max, spread.std)
            for index, spread in enumerate(replay.obs)
        ),
    )
    yield from notes(replay.problems, replay.warnings)


def describe_buffer(buffer: Buffer) -> Iterator[Section]:
    """Yield what there is to say about each agent, and how they compare."""
    is_whole = "yes" if buffer.is_whole else "no"
    facts = (("agents", len(buffer.agents) + len(buffer.unreadable)),
             ("env steps", sum(agent.env_steps for agent in buffer.agents)),
             ("size", Size(buffer.size_bytes)), ("whole", is_whole))  # fmt: skip
    yield Facts("replay of a run", facts)
    yield agents_table(buffer)
    yield Table(
        "Episodes",
        ("agent", "mean return", "min", "max", "last", "oldest to newest", "length",
         "terminated", "truncated"),
        tuple(
            (agent.name, agent.returns.mean, agent.returns.min, agent.returns.max,
             agent.last_return, Curve(agent.episodes.episode_return), agent.lengths.mean,
             Share(agent.terminated_share), Share(agent.truncated_share))
            for agent in buffer.agents
        ),
    )  # fmt: skip
    yield Table(
        "Steps",
        ("agent", "reward from", "to", "histogram", "mean |a|", "|a|>.99", "obs from", "to",
         "constant"),
        tuple(
            (agent.name, agent.reward.min, agent.reward.max, Curve(agent.reward_histogram.counts),
             agent.action.mean_size, Share(agent.action.saturated), *_obs_cells(agent.obs))
            for agent in buffer.agents
        ),
        note="constant: observation dimensions that never change",
    )  # fmt: skip
    yield from notes(buffer.problems, buffer.warnings)


def agents_table(buffer: Buffer) -> Table:
    """Return one row per agent: who it is and how much it has stored."""
    return Table(
        "Replay",
        ("agent", "environment", "rule", "steps", "episodes", "lives", "random", "versions",
         "whole"),
        tuple(
            (agent.name, agent.attribute("environment"), agent.attribute("rule"), agent.env_steps,
             agent.num_episodes, agent.lives, Share(agent.random_share), _versions(agent),
             "yes" if agent.is_whole else "no")
            for agent in buffer.agents
        ),
    )  # fmt: skip


def notes(problems: Sequence[str], warnings: Sequence[str]) -> Iterator[Section]:
    """Yield sections for problems and warnings, where there are any."""
    if problems:
        yield Notes("Problems", tuple(problems))
    if warnings:
        yield Notes("Warnings", tuple(warnings))


def _facts(replay: AgentReplay) -> tuple[tuple[str, Cell], ...]:
    settings = [
        (name.removeprefix("environment_"), str(replay.attributes[name]))
        for name in ("environment_kwargs", "environment_randomise")
        if replay.attributes.get(name)
    ]
    return (
        ("environment", replay.attribute("environment")),
        *settings,
        ("rule", replay.attribute("rule")),
        ("env steps", replay.env_steps),
        ("episodes", replay.num_episodes),
        ("lives", replay.lives),
        ("random actions", Share(replay.random_share)),
        ("terminated", Share(replay.terminated_share)),
        ("truncated", Share(replay.truncated_share)),
        ("objective versions", _versions(replay)),
        ("size", Size(replay.size_bytes)),
        ("whole", "yes" if replay.is_whole else "no"),
    )


def _versions(replay: AgentReplay) -> str:
    if replay.objective_versions is None:
        return ""
    oldest, newest = replay.objective_versions
    return str(oldest) if oldest == newest else f"{oldest} to {newest}"


def _spread_cells(spread: Spread) -> tuple[Cell, ...]:
    return (spread.mean, spread.std, spread.min, spread.max)


def _action_cells(action: ActionFigures) -> tuple[Cell, ...]:
    return (
        *_spread_cells(action.spread),
        action.mean_size,
        Share(action.saturated),
        Curve(action.histogram.counts),
    )


def _obs_cells(obs: Sequence[Spread]) -> tuple[Cell, ...]:
    """Return lowest and highest number of any dimension, and how many dimensions are constant."""
    constant = sum(spread.is_constant for spread in obs)
    return (min(spread.min for spread in obs), max(spread.max for spread in obs), constant)


def _last(values: Sequence[float]) -> float | None:
    return values[-1] if values else None
