"""What a node has: processors and memory, within the limits of its control group."""

import os
import socket
from pathlib import Path

import psutil

from xinfer_runtime.cluster.protocol import Inventory

_CGROUP = Path("/sys/fs/cgroup")


def measure(cgroup: Path = _CGROUP) -> Inventory:
    """The node now. In a container, memory is what the container may still take, not what the host has."""
    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    limit, used = _cgroup_memory(cgroup)
    if limit is not None and limit < total:
        total = limit
        available = min(available, max(0, limit - used))
    host = socket.gethostname()
    return Inventory(host=host, label=host, cpus=_cpus(), memory_total=total, memory_available=available)


def private_memory(pid: int) -> int:
    """Bytes that process `pid` holds besides mapped files, which the kernel can drop; 0 where it is gone."""
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return max(0, int(memory.rss) - int(getattr(memory, "shared", 0)))


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroup_memory(root: Path) -> tuple[int | None, int]:
    """Limit and use of the control group, version 2 or 1.

    Page cache does not count as used: the kernel drops it for others. That includes mapped weights, which placement
    counts as promised to their replica.
    """
    for limit_file, used_file, cache in (
        (root / "memory.max", root / "memory.current", ("active_file", "inactive_file")),
        (
            root / "memory/memory.limit_in_bytes",
            root / "memory/memory.usage_in_bytes",
            ("total_active_file", "total_inactive_file"),
        ),
    ):
        try:
            text = limit_file.read_text().strip()
            if text == "max":
                return None, 0
            used = int(used_file.read_text())
            stat = limit_file.with_name("memory.stat").read_text()
        except OSError:
            continue
        lines = (line.split() for line in stat.splitlines())
        dropped = sum(int(size) for name, size in lines if name in cache)
        return int(text), max(0, used - dropped)
    return None, 0
