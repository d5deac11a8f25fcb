"""What is in the replay of one agent or of all: figures, whether it is whole, what looks odd.

One pass over the chunks, so memory does not grow with the number of steps (only with that of the
episodes). A chunk that cannot be read is named and left out of the figures.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from mgrl_cli.errors import FileError
from mgrl_cli.inspection.replay_figures import AgentReplay, Buffer, EpisodeColumns
from mgrl_cli.inspection.replay_sums import BINS, SUMMED_FIELDS, StepSums, readable_blocks
from mgrl_cli.inspection.replay_warnings import replay_warnings
from mgrl_cli.inspection.statistics import (
    FloatArray,
    Histogram,
    HistogramSum,
    Spread,
    spread_of,
)
from mgrl_cli.replay.reader import ReplayReader, agent_groups


def inspect_agent(path: Path) -> AgentReplay:
    """Read one agent's group as it is committed now, and check it.

    Raises:
        FileError: not a replay, or damaged beyond its chunks.
        StorageError: the operating system refused.
    """
    reader = ReplayReader(path)
    sums = StepSums(reader.obs_size)
    for _, block in readable_blocks(reader, SUMMED_FIELDS, reader.committed_rows):
        sums.add(block)
    problems = reader.verify()
    replay = _summary(reader, sums, problems)
    return replace(replay, warnings=tuple(replay_warnings(replay)))


def inspect_buffer(path: Path) -> Buffer:
    """Read the groups of all agents; one that is damaged does not hide the others.

    Raises:
        FileError: not a Zarr group, or without any agent.
        StorageError: the operating system refused.
    """
    groups = agent_groups(path)
    if not groups:
        raise FileError(
            f"{path} is a Zarr group without any agent, expected agent-000 and so on; "
            "name a buffer.zarr that a run has begun to fill"
        )
    agents: list[AgentReplay] = []
    unreadable: list[str] = []
    for group in groups:
        try:
            agents.append(inspect_agent(group))
        except FileError as error:
            unreadable.append(str(error))
    return Buffer(
        path=str(path),
        agents=tuple(agents),
        unreadable=tuple(unreadable),
        size_bytes=_size_bytes(path),
        is_whole=not unreadable and all(agent.is_whole for agent in agents),
    )


def _episode_columns(reader: ReplayReader) -> dict[str, FloatArray]:
    """Return one number per episode and field, NaN in chunks that cannot be read."""
    names = ("start", "length", "return", "life")
    pieces: dict[str, list[FloatArray]] = {name: [np.zeros(0)] for name in names}
    for num_rows, block in readable_blocks(reader, names, reader.committed_episodes):
        for name in names:
            values = block.get(name, np.full(num_rows, math.nan))
            pieces[name].append(values.astype(np.float64))
    return {name: np.concatenate(parts) for name, parts in pieces.items()}


def _summary(reader: ReplayReader, sums: StepSums, problems: list[str]) -> AgentReplay:
    columns = _episode_columns(reader)
    returns = columns["return"]
    reward = sums.reward.spreads()[0]
    count = reader.committed_episodes
    return AgentReplay(
        name=reader.path.name,
        path=str(reader.path),
        attributes=dict(reader.attributes),
        env_steps=reader.committed_rows,
        num_episodes=count,
        lives=len(np.unique(columns["life"][np.isfinite(columns["life"])])),
        random_share=sums.random.spreads()[0].mean,
        terminated_share=sums.ends["terminated"] / count if count else math.nan,
        truncated_share=sums.ends["truncated"] / count if count else math.nan,
        returns=spread_of(returns),
        last_return=float(returns[-1]) if 0 < count == returns.size else math.nan,
        lengths=spread_of(columns["length"]),
        reward=reward,
        reward_histogram=_reward_histogram(reader, reward),
        action=sums.action.figures(),
        policy_action=sums.policy_action.figures(),
        obs=sums.obs.spreads(),
        objective_versions=(sums.versions[0], sums.versions[1]) if sums.versions else None,
        not_finite=sums.obs.not_finite + sums.reward.not_finite + sums.action.not_finite,
        size_bytes=_size_bytes(reader.path),
        episodes=EpisodeColumns(
            env_steps=tuple((columns["start"] + columns["length"]).tolist()),
            length=tuple(columns["length"].tolist()),
            episode_return=tuple(returns.tolist()),
            life=tuple(columns["life"].tolist()),
        ),
        is_whole=not problems,
        problems=tuple(problems),
        warnings=(),
    )


def _reward_histogram(reader: ReplayReader, reward: Spread) -> Histogram:
    """Read the rewards once more, now that their range is known."""
    total = HistogramSum(reward.min, reward.max, BINS)
    for _, block in readable_blocks(reader, ("reward",), reader.committed_rows):
        total.add(block.get("reward", np.zeros(0)))
    return total.histogram()


def _size_bytes(path: Path) -> int:
    """Return the size of all files below; one that a writer removes meanwhile counts nothing."""
    total = 0
    for file in path.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:
            continue
    return total
