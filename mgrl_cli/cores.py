"""How many processes of ours can compute at the same time."""

import os
from math import floor

from mgrl_cli.cgroups import ControlGroups


def visible_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_cores() -> int:
    """Return how many cores can be busy all the time, at least 1: a container may allow fewer."""
    return within_quota(visible_cores(), ControlGroups().cpu_quota_cores())


def within_quota(cores: int, quota_cores: float | None) -> int:
    """Return how many of so many cores a quota keeps busy, at least 1.

    Args:
        cores: that can be seen.
        quota_cores: cores' worth of time that is allowed, None without a limit.
    """
    return cores if quota_cores is None else max(1, min(cores, floor(quota_cores)))
