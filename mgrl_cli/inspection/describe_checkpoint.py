"""A checkpoint in words: where it stands, its agents, its tensors, what it was made with."""

from collections.abc import Iterator

from mgrl_cli.inspection.checkpoint import CheckpointReport
from mgrl_cli.inspection.describe_replay import notes
from mgrl_cli.inspection.sections import Cell, Facts, Section, Size, Table


def describe_checkpoint(report: CheckpointReport) -> Iterator[Section]:
    """Yield everything about one checkpoint."""
    yield Facts(f"checkpoint {report.name}", _facts(report))
    yield Table(
        "Agents",
        ("agent", "steps", "episodes", "updates", "life", "evaluation", "replay", "of episodes",
         "quarantined"),
        tuple(
            (agent.name, agent.env_steps, agent.episodes, agent.updates, agent.life,
             agent.evaluation, agent.replay_steps, agent.replay_episodes, agent.quarantine)
            for agent in report.agents
        ),
        note="replay: steps in the run's buffer that belong to the checkpoint",
    )  # fmt: skip
    yield Table(
        "Tensors",
        ("file", "tensor", "shape", "norm", "finite"),
        tuple(
            (tensor.file.removesuffix(".safetensors"), tensor.name,
             " × ".join(map(str, tensor.shape)), tensor.norm, "yes" if tensor.is_finite else "no")
            for tensor in report.tensors
        ),
    )  # fmt: skip
    yield Facts("Build", tuple((name, _text(value)) for name, value in report.build.items()))
    yield from notes(report.problems, tuple(_warnings(report)))


def position_text(rounds: int, updates: int) -> str:
    """Return where in its run a checkpoint stands."""
    within = f", {updates:,} updates into round {rounds + 1}" if updates else ""
    return f"after round {rounds}{within}"


def _facts(report: CheckpointReport) -> tuple[tuple[str, Cell], ...]:
    best = "this one" if report.best == report.name else report.best
    return (
        ("kind", report.kind),
        ("position", position_text(report.rounds, report.updates)),
        ("elapsed seconds", report.elapsed_s),
        ("best so far", best),
        ("files", ", ".join(name.removesuffix(".safetensors") for name in report.files)),
        ("size", Size(report.size_bytes)),
        ("whole", "yes" if report.is_whole else "no"),
    )


def _warnings(report: CheckpointReport) -> Iterator[str]:
    if report.barren_meetings:
        yield f"no gradient was finite in the last {report.barren_meetings} meta-steps"
    for agent in report.agents:
        if agent.quarantine:
            yield f"{agent.name} is out of the population: {agent.quarantine}"


def _text(value: object) -> str:
    """Return a value of the build on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)
