"""What the control groups of this process leave it: memory and CPU time, in version 2 and version 1.

A process is limited by its own group and by every group around it: a SLURM job, a systemd service or a Kubernetes pod
often sets the limit a few levels up. In a container the root of the file system is mostly the container's own group.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")

_VERSION_2 = ("memory.max", "memory.current", ("active_file", "inactive_file"))
_VERSION_1 = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_active_file", "total_inactive_file"),
)


@dataclass(frozen=True)
class MemoryLimit:
    """Bytes: the smallest limit, and the least that any of the groups has left."""

    total: int
    available: int


def memory_limit(root: Path = ROOT, own: Path = OWN) -> MemoryLimit | None:
    """None where no group limits memory.

    Page cache counts as left: the kernel drops it for others. That includes mapped weights, which placement counts as
    promised to their replica.
    """
    found = [*_memory(_groups(root, own, ""), *_VERSION_2), *_memory(_groups(root, own, "memory"), *_VERSION_1)]
    if not found:
        return None
    return MemoryLimit(min(each.total for each in found), min(each.available for each in found))


def usable_cores(root: Path = ROOT, own: Path = OWN) -> int:
    """Cores by affinity and by CPU quota, at least 1.

    `os.cpu_count()` counts the machine's: in a container with two of 64 cores, 64 threads would fight for two.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root, own)
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


def cpu_quota(root: Path = ROOT, own: Path = OWN) -> float | None:
    """Cores' worth of CPU time, such as 1.5; None where no group limits it."""
    quotas = []
    for group in _groups(root, own, ""):
        limit, _, period = _text(group / "cpu.max").partition(" ")
        quotas.append(_ratio(limit, period))
    for group in _groups(root, own, "cpu"):
        quotas.append(_ratio(_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")))
    return min((quota for quota in quotas if quota is not None), default=None)


def _memory(groups: Iterator[Path], limit: str, used: str, cache: tuple[str, ...]) -> Iterator[MemoryLimit]:
    for group in groups:
        total = _text(group / limit)
        usage = _text(group / used)
        if not total.isdecimal() or not usage.isdecimal():
            continue
        lines = (line.split() for line in _text(group / "memory.stat").splitlines())
        dropped = sum(int(line[1]) for line in lines if len(line) == 2 and line[0] in cache)
        yield MemoryLimit(int(total), max(0, int(total) - max(0, int(usage) - dropped)))


def _groups(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's group and of those around it, as far as they are visible; "" means version 2."""
    base = root / controller
    yield base
    for line in _text(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            group = base
            for part in Path(path).parts[1:]:
                group = group / part
                yield group


def _ratio(limit: str, period: str) -> float | None:
    if not limit.isdecimal() or not period.isdecimal() or int(period) == 0 or int(limit) == 0:
        return None
    return int(limit) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
