"""Dask's settings in the clusters that we start."""

from typing import Any, Final

DASK_CONFIG: Final[dict[str, Any]] = {
    # A cluster that mostly waits: what Dask measures ten or fifty times a second costs more than it tells here.
    "distributed.admin.tick.interval": "500 ms",
    "distributed.admin.system-monitor.interval": "2 s",
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.work-stealing": False,
    "distributed.comm.timeouts.connect": "10 s",
    "distributed.diagnostics.nvml": False,
}
