"""Processor and memory, and how many workers they carry.

Knows what one worker costs, roughly; knows nothing of what a worker does.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from mgrl_cli.cgroups import ControlGroups
from mgrl_cli.cores import visible_cores, within_quota
from mgrl_cli.diagnosis.check import BYTES_PER_GIB, Check

WORKER_BYTES = 350_000_000
"""Rough size of one worker: torch, replay of one agent, environment."""
_BUSY_SHARE = 0.75
"""Share of the cores in use from which timings suffer."""


@dataclass(frozen=True, slots=True)
class HardwareFacts:
    """What was measured of processor and memory."""

    visible_cores: int
    """Cores that this process may run on."""
    quota_cores: float | None
    """Cores' worth of time that a container allows, None without a limit."""
    total_bytes: int
    available_bytes: int
    load: float | None
    """Processes that wanted to run, averaged over the last minute; None where unknown."""

    @property
    def usable_cores(self) -> int:
        """Cores that can really be busy all the time, at least 1."""
        return within_quota(self.visible_cores, self.quota_cores)


def measure_hardware() -> HardwareFacts:
    """Measure; call before anything else makes the machine busy."""
    import psutil

    groups = ControlGroups()
    memory = psutil.virtual_memory()
    limit, available = groups.memory_limit_bytes(), groups.available_memory_bytes()
    return HardwareFacts(
        visible_cores=visible_cores(),
        quota_cores=groups.cpu_quota_cores(),
        total_bytes=memory.total if limit is None else min(memory.total, limit),
        available_bytes=memory.available if available is None else min(memory.available, available),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def judge_hardware(facts: HardwareFacts) -> Iterator[Check]:
    """Yield the checks on processor and memory."""
    yield _cores(facts)
    total, available = (size / BYTES_PER_GIB for size in (facts.total_bytes, facts.available_bytes))
    yield Check("memory", "ok", f"{available:.1f} GiB of {total:.1f} GiB available")
    yield _workers(facts)
    if facts.load is not None:
        yield _load(facts.load, facts.usable_cores)


def _cores(facts: HardwareFacts) -> Check:
    cores = facts.usable_cores
    if facts.quota_cores is not None and cores < facts.visible_cores:
        return Check(
            "cores",
            "warning",
            f"{facts.visible_cores} visible, but the container allows the time of "
            f"{facts.quota_cores:.3g}",
            f"start meta-training with --workers {cores}: by default there is one for each agent",
        )
    return Check("cores", "ok", f"{cores} usable")


def _workers(facts: HardwareFacts) -> Check:
    fitting = facts.available_bytes // WORKER_BYTES
    finding = (
        f"memory for about {fitting}, cores for {facts.usable_cores} "
        f"(estimated at {WORKER_BYTES // 1_000_000} MB each)"
    )
    if fitting < facts.usable_cores:
        return Check(
            "workers",
            "warning",
            finding,
            f"close other programs, or start runs with --workers {fitting}",
        )
    return Check("workers", "ok", finding)


def _load(load: float, cores: int) -> Check:
    finding = f"{load:.1f} on {cores} cores over the last minute"
    if load >= _BUSY_SHARE * cores:
        return Check(
            "load",
            "warning",
            f"{finding}: the machine is busy",
            "timings will suffer: wait for other programs to end, or use fewer --workers",
        )
    return Check("load", "ok", finding)
