"""How many CPU cores this process may really use, and how many are of use to a model."""

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


_WEIGHTS_PER_THREAD = 16 << 20


def threads_for(weight_bytes: int, cores: int) -> int:
    """Threads for a model: one per 16 MiB of weights, at most one per core.

    llama.cpp's threads meet at a barrier after every operation. With little work between barriers one thread is faster
    even on idle cores, and when something else wants a core, every barrier waits for the operating system: a tiny model
    with two threads on two busy cores was measured to take 20 ms for a step instead of 0.2.
    """
    return max(1, min(cores, weight_bytes // _WEIGHTS_PER_THREAD))


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores by affinity and by CPU quota of the control group (v2 and v1), at least 1.

    `os.cpu_count()` counts the machine's: in a container with two of 64 cores, 64 threads would fight for two.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


def _quota(cgroup: Path) -> float | None:
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass  # No control groups v2 here.
    try:
        limit_us = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((cgroup / "cpu" / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return limit_us / period_us if limit_us > 0 and period_us > 0 else None
