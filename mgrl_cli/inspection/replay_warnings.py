"""What looks odd in a replay that may well be whole. Rules of thumb, one line each."""

from collections.abc import Iterator

from mgrl_cli.inspection.replay_figures import SATURATED_FROM, AgentReplay

_SATURATED_SHARE = 0.95
_NAMED_DIMENSIONS = 5


def replay_warnings(replay: AgentReplay) -> Iterator[str]:
    """Yield what a researcher should look at before trusting these data."""
    if replay.env_steps == 0:
        if replay.attribute("rule") != "ppo":  # which keeps none
            yield "nothing is committed yet"
        return
    if replay.not_finite:
        numbers = "1 number is" if replay.not_finite == 1 else f"{replay.not_finite} numbers are"
        yield f"{numbers} NaN or infinite and left out of the figures"
    if replay.random_share == 1:
        yield "no policy steps yet: every action was drawn uniformly"
    yield from _constant_figures(replay)
    if replay.policy_action.saturated >= _SATURATED_SHARE:
        yield (
            f"the policy is saturated: {replay.policy_action.saturated:.0%} of its action numbers "
            f"are beyond ±{SATURATED_FROM}"
        )
    if replay.num_episodes > 1 and replay.lengths.max == 1:
        yield "every episode has a single step"
    if replay.terminated_share == 0 and replay.truncated_share == 0:
        yield "no episode ends by terminating or by a limit"


def _constant_figures(replay: AgentReplay) -> Iterator[str]:
    if replay.env_steps == 1:
        return  # a single row is constant whatever it holds
    if replay.reward.is_constant:
        yield f"the reward is always {replay.reward.min:.4g}"
    constant = [index for index, spread in enumerate(replay.obs) if spread.is_constant]
    if constant:
        named = ", ".join(map(str, constant[:_NAMED_DIMENSIONS]))
        more = len(constant) - _NAMED_DIMENSIONS
        yield (
            f"observation dimension {named}{f' and {more} more' if more > 0 else ''} never changes"
        )
