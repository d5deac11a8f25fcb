import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from mgrl_cli.errors import FileError
from mgrl_cli.inspection.replay import inspect_agent, inspect_buffer
from mgrl_cli.replay.log import ReplayLog
from mgrl_cli.replay.schema import CHUNK_ROWS, Episode

MakeEpisode = Callable[..., Episode]
WriteReplay = Callable[[Path, list[Episode]], Path]


@pytest.fixture
def group(tmp_path: Path, episode: MakeEpisode, replay_at: WriteReplay) -> Path:
    """Three episodes of 2, 1 and 2 steps: returns 3, -4 and 1."""
    saturated = [[1.0, -1.0], [0.995, 0.5]]
    return replay_at(
        tmp_path / "buffer.zarr" / "agent-000",
        [
            episode([1.0, 2.0], is_random=True, version=3),
            episode([-4.0], is_truncated=True, life=1, version=4),
            episode([0.0, 1.0], actions=saturated, life=1, version=9),
        ],
    )


def test_figures_are_those_of_the_stored_steps(group: Path) -> None:
    replay = inspect_agent(group)

    assert (replay.env_steps, replay.num_episodes, replay.lives) == (5, 3, 2)
    assert replay.random_share == pytest.approx(2 / 5)
    assert replay.terminated_share == pytest.approx(2 / 3)
    assert replay.truncated_share == pytest.approx(1 / 3)
    assert (replay.returns.mean, replay.returns.min, replay.returns.max) == (0.0, -4.0, 3.0)
    assert replay.last_return == 1.0
    assert (replay.lengths.mean, replay.lengths.min) == (pytest.approx(5 / 3), 1.0)
    assert (replay.reward.min, replay.reward.max) == (-4.0, 2.0)
    assert replay.reward.mean == pytest.approx(0.0)
    assert sum(replay.reward_histogram.counts) == 5
    assert replay.objective_versions == (3, 9)
    assert replay.not_finite == 0


def test_actions_are_summed_up_over_all_dimensions(group: Path) -> None:
    replay = inspect_agent(group)
    # Ten numbers: three times (0.5, -0.25), then 1, -1, 0.995, 0.5.
    assert replay.action.mean_size == pytest.approx((3 * 0.75 + 3.495) / 10, rel=1e-6)
    assert replay.action.saturated == pytest.approx(3 / 10)
    assert sum(replay.action.histogram.counts) == 10
    # The policy's: without the two random steps.
    assert replay.policy_action.saturated == pytest.approx(3 / 6)
    assert sum(replay.policy_action.histogram.counts) == 6


def test_observations_are_those_actions_were_chosen_at(group: Path) -> None:
    time, constant = inspect_agent(group).obs  # without the final observations
    assert (time.min, time.mean, time.max) == (0.0, pytest.approx(2 / 5), 1.0)
    assert time.std == pytest.approx(math.sqrt(6) / 5)
    assert constant.is_constant
    assert constant.mean == 1.0


def test_episodes_come_with_the_steps_stored_up_to_their_end(group: Path) -> None:
    episodes = inspect_agent(group).episodes
    assert episodes.env_steps == (2.0, 3.0, 5.0)
    assert episodes.length == (2.0, 1.0, 2.0)
    assert episodes.episode_return == (3.0, -4.0, 1.0)
    assert episodes.life == (0.0, 1.0, 1.0)


def test_a_whole_replay_is_called_whole_and_has_a_size(group: Path) -> None:
    replay = inspect_agent(group)
    assert replay.is_whole
    assert replay.problems == ()
    assert replay.size_bytes == sum(f.stat().st_size for f in group.rglob("*") if f.is_file())


def test_attributes_are_text_or_nothing(group: Path) -> None:
    replay = inspect_agent(group)
    assert replay.attribute("environment") == "mgrl/Pendulum-v0"
    assert replay.attribute("environment_kwargs") == ""
    assert replay.attribute("unheard of") == ""


def test_figures_over_several_chunks_are_exact(
    tmp_path: Path, episode: MakeEpisode, replay_at: WriteReplay
) -> None:
    length = CHUNK_ROWS + 3
    rewards = np.arange(length, dtype=np.float64)
    group = replay_at(tmp_path / "agent-000", [episode(rewards.tolist())] * 2)

    replay = inspect_agent(group)

    assert replay.env_steps == 2 * length
    assert replay.reward.mean == pytest.approx(rewards.mean())
    assert replay.reward.std == pytest.approx(rewards.std())
    assert sum(replay.reward_histogram.counts) == 2 * length
    assert replay.obs[0].max == length - 1


def test_only_what_is_committed_counts(tmp_path: Path, episode: MakeEpisode) -> None:
    group = tmp_path / "agent-000"
    log = ReplayLog.create(group, obs_size=2, act_size=2, attributes={})
    log.append(episode([1.0, 2.0]))
    log.commit()
    log.append(episode([100.0]))
    assert inspect_agent(group).env_steps == 2
    log.commit()
    replay = inspect_agent(group)
    assert (replay.env_steps, replay.last_return) == (3, 100.0)


def test_a_replay_without_steps_has_no_figures(tmp_path: Path, replay_at: WriteReplay) -> None:
    replay = inspect_agent(replay_at(tmp_path / "agent-000", []))
    assert replay.is_whole
    assert replay.env_steps == 0
    assert replay.objective_versions is None
    assert replay.episodes.length == ()
    for figure in (replay.random_share, replay.terminated_share, replay.last_return,
                   replay.reward.mean, replay.action.saturated, replay.obs[1].max):  # fmt: skip
        assert math.isnan(figure)
    assert replay.warnings == ("nothing is committed yet",)


def test_a_damaged_chunk_is_named_and_the_rest_still_read(
    group: Path, damage: Callable[[Path], None]
) -> None:
    damage(group / "reward" / "c" / "0")
    (group / "terminated" / "c" / "0").unlink()
    (group / "episodes" / "return" / "c" / "0").unlink()

    replay = inspect_agent(group)

    assert not replay.is_whole
    text = "\n".join(replay.problems)
    for array in ("'reward'", "'terminated'", "'episodes/return'"):
        assert f"array {array} chunk 0" in text
    assert math.isnan(replay.reward.mean)
    assert replay.reward_histogram.counts == ()
    assert math.isnan(replay.terminated_share)
    assert replay.truncated_share == pytest.approx(1 / 3)
    assert all(math.isnan(value) for value in replay.episodes.episode_return)
    assert replay.lengths.max == 2.0
    assert replay.obs[0].max == 1.0


def test_damage_in_one_chunk_leaves_the_figures_of_the_others(
    tmp_path: Path, episode: MakeEpisode, replay_at: WriteReplay
) -> None:
    group = replay_at(tmp_path / "agent-000", [episode([1.0] * CHUNK_ROWS), episode([5.0, 7.0])])
    (group / "reward" / "c" / "0").unlink()
    reward = inspect_agent(group).reward
    assert (reward.min, reward.max) == (5.0, 7.0)


def test_a_replay_that_claims_far_more_than_it_has_is_given_up_soon(group: Path) -> None:
    claimed = 2**40
    for metadata in (group / "zarr.json", *group.glob("**/zarr.json")):
        document = json.loads(metadata.read_text())
        if document["node_type"] == "array":
            document["shape"][0] = claimed
        elif "committed_rows" in document["attributes"]:
            document["attributes"] |= {"committed_rows": claimed, "committed_episodes": claimed}
        metadata.write_text(json.dumps(document))
    replay = inspect_agent(group)
    assert not replay.is_whole
    assert math.isnan(replay.last_return)


def test_numbers_that_are_not_finite_are_counted(group: Path) -> None:
    array = zarr.open_array(group / "obs", mode="r+", zarr_format=3)
    array[1, 0] = math.nan
    replay = inspect_agent(group)
    assert replay.not_finite == 1
    assert not replay.is_whole
    assert replay.warnings[0] == "1 number is NaN or infinite and left out of the figures"


def test_a_buffer_is_its_agents_in_order(
    tmp_path: Path, episode: MakeEpisode, replay_at: WriteReplay, group: Path
) -> None:
    replay_at(group.parent / "agent-001", [episode([1.0])])
    buffer = inspect_buffer(group.parent)
    assert [(agent.name, agent.env_steps) for agent in buffer.agents] == [
        ("agent-000", 5),
        ("agent-001", 1),
    ]
    assert buffer.is_whole
    assert buffer.size_bytes > sum(agent.size_bytes for agent in buffer.agents)


def test_an_agent_that_cannot_be_opened_does_not_hide_the_others(
    episode: MakeEpisode, replay_at: WriteReplay, group: Path
) -> None:
    replay_at(group.parent / "agent-001", [episode([1.0])])
    (group / "zarr.json").unlink()
    buffer = inspect_buffer(group.parent)
    assert [agent.name for agent in buffer.agents] == ["agent-001"]
    assert not buffer.is_whole
    assert len(buffer.problems) == 1
    assert "agent-000" in buffer.problems[0]


def test_problems_and_warnings_of_a_buffer_name_the_agent(
    group: Path, damage: Callable[[Path], None]
) -> None:
    damage(group / "reward" / "c" / "0")
    buffer = inspect_buffer(group.parent)
    assert buffer.problems[0].startswith("agent-000: ")
    assert buffer.warnings == ("agent-000: observation dimension 1 never changes",)


def test_a_group_without_agents_is_refused(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "buffer.zarr", mode="w", zarr_format=3)
    with pytest.raises(FileError, match="without any agent"):
        inspect_buffer(tmp_path / "buffer.zarr")


def test_a_foreign_group_is_refused(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "x", mode="w", zarr_format=3, attributes={"format": "theirs"})
    with pytest.raises(FileError, match="no mgrl replay"):
        inspect_agent(tmp_path / "x")
