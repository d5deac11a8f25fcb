"""What a container or scheduler leaves this process of the machine (Linux control groups).

Reads both versions of the interface; knows nothing of what the limits are for.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import final

_NO_LIMIT_FROM = 2**60
"""Version 1 writes "no limit" as a number near 2^63."""


@final
class ControlGroups:
    """The control groups of a process; without limits where the system has none or hides them."""

    def __init__(
        self,
        membership: Path = Path("/proc/self/cgroup"),
        root: Path = Path("/sys/fs/cgroup"),
    ) -> None:
        """Read which groups the process is in.

        Args:
            membership: the kernel's list of them.
            root: where they are mounted.
        """
        self._root = root
        try:
            lines = membership.read_text(encoding="utf-8").splitlines()
        except OSError:
            lines = []
        self._groups = [line.split(":", 2)[1:] for line in lines if line.count(":") >= 2]

    def cpu_quota_cores(self) -> float | None:
        """Return how many cores' worth of time the process may use, None without a limit."""
        quotas = [
            _ratio(*_words(group / "cpu.max", 2))
            or _ratio(
                *_words(group / "cpu.cfs_quota_us", 1), *_words(group / "cpu.cfs_period_us", 1)
            )
            for group in self._directories("cpu")
        ]
        return min((quota for quota in quotas if quota is not None), default=None)

    def memory_limit_bytes(self) -> int | None:
        """Return how much memory the process and its group may use, None without a limit."""
        return min((limit for _, limit in self._memory_limits()), default=None)

    def available_memory_bytes(self) -> int | None:
        """Return what is left below the tightest limit; file cache that can go counts as free."""
        return min(
            (max(0, limit - _used_bytes(group)) for group, limit in self._memory_limits()),
            default=None,
        )

    def _memory_limits(self) -> Iterator[tuple[Path, int]]:
        for group in self._directories("memory"):
            for name in ("memory.max", "memory.limit_in_bytes"):
                limit = _number(group / name)
                if limit is not None and limit < _NO_LIMIT_FROM:
                    yield group, limit

    def _directories(self, controller: str) -> Iterator[Path]:
        """Yield the group's directory and all above it: a limit anywhere on the way binds."""
        for controllers, path in self._groups:
            if controllers and controller not in controllers.split(","):
                continue
            mounts = [self._root / controllers, self._root / controller]
            mount = next((m for m in mounts if m.is_dir()), None) if controllers else self._root
            if mount is None:
                continue
            group = mount / path.lstrip("/")
            yield group
            yield from (parent for parent in group.parents if parent.is_relative_to(mount))


def _used_bytes(group: Path) -> int:
    used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes") or 0
    statistics: dict[str, int] = {}
    with suppress(OSError, ValueError):
        for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines():
            name, value = line.split()
            statistics[name] = int(value)
    cache = statistics.get("total_inactive_file", statistics.get("inactive_file", 0))
    return max(0, used - cache)


def _ratio(quota: str = "", period: str = "") -> float | None:
    """Return the cores of "quota period" in microseconds; "max" and -1 mean no limit."""
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None
    return int(quota) / int(period)


def _number(path: Path) -> int | None:
    words = _words(path, 1)
    return int(words[0]) if words and words[0].isdigit() else None


def _words(path: Path, count: int) -> list[str]:
    """Return the first words of a file, none where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").split()[:count]
    except OSError:
        return []
