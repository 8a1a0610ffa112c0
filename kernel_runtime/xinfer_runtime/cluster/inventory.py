"""What a node has: processors, memory and disk within the limits of its control groups, GPUs, engines, labels."""

import logging
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

import psutil

from xinfer_runtime.cluster.amd_gpus import AmdSmi, amd_gpus, load_amdsmi
from xinfer_runtime.cluster.gpu_visibility import visible
from xinfer_runtime.cluster.nvidia_gpus import Nvml, load_nvml, nvidia_gpus
from xinfer_runtime.cluster.protocol import EngineSupport, Gpu, Inventory
from xinfer_runtime.control_group import ROOT, memory_limit, usable_cores
from xinfer_runtime.engines.registry import installed_engines
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.labels import parse_labels

logger = logging.getLogger("xinfer.agent")

LABELS_VARIABLE = "XINFER_LABELS"
"""`name=value,name=value`: what an administrator says of the node, for launches to ask for."""

DEVICE_VARIABLE = "XINFER_DEVICE"
"""What replicas may compute on."""

_VENDORS = {"auto": ("nvidia", "amd"), "cuda": ("nvidia",), "rocm": ("amd",), "cpu": ()}


class NodeSurvey:
    """Measures this node. Opening it may take seconds and belongs in a thread; `measure` is a matter of a millisecond.

    `address` is where others reach the node and `home` the folder whose disk counts.
    """

    def __init__(self, label: str, address: str, home: Path, environ: Mapping[str, str] = os.environ) -> None:
        self.label = label or socket.gethostname()
        self._address = address
        self._home = home
        self._environ = environ
        self._labels = _labels(environ)
        self._vendors = _vendors(environ)
        self._nvml: Nvml | None = load_nvml()
        self._amdsmi: AmdSmi | None = load_amdsmi()
        self._engines = {
            name: EngineSupport(version=version, gpu=gpu) for name, (version, gpu) in installed_engines().items()
        }

    def measure(self, cgroup: Path = ROOT) -> Inventory:
        """The node now. In a container, memory is what the container may still take, not what the host has."""
        total, available = machine_memory(cgroup)
        disk = _disk(self._home)
        return Inventory(
            host=socket.gethostname(),
            label=self.label,
            address=self._address,
            cpus=usable_cores(cgroup),
            memory_total=total,
            memory_available=available,
            disk_total=disk[0],
            disk_free=disk[1],
            gpus=self.gpus(),
            engines=self._engines,
            labels=self._labels,
        )

    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that are left to this process."""
        found: list[Gpu] = []
        if self._nvml is not None:
            found += nvidia_gpus(self._nvml)
        if self._amdsmi is not None:
            found += amd_gpus(self._amdsmi)
        return visible([gpu for gpu in found if gpu.vendor in self._vendors], self._environ)


def _vendors(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Whose GPUs count. A word that nobody knows is logged and ignored."""
    device = environ.get(DEVICE_VARIABLE, "").lower() or "auto"
    if device not in _VENDORS:
        logger.error("%s is %r; there is %s. It is ignored.", DEVICE_VARIABLE, device, ", ".join(_VENDORS))
    return _VENDORS.get(device, _VENDORS["auto"])


def machine_memory(cgroup: Path = ROOT) -> tuple[int, int]:
    """Total and available bytes, of the machine or of the control group that has less."""
    memory = psutil.virtual_memory()
    limit = memory_limit(cgroup)
    if limit is None or limit.total >= memory.total:
        return memory.total, memory.available
    return limit.total, min(memory.available, limit.available)


def private_memory(pid: int) -> int:
    """Bytes that process `pid` holds besides mapped files, which the kernel can drop; 0 where it is gone."""
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return max(0, int(memory.rss) - int(getattr(memory, "shared", 0)))


def _labels(environ: Mapping[str, str]) -> dict[str, str]:
    try:
        return parse_labels(environ.get(LABELS_VARIABLE, ""))
    except InvalidRequest as error:
        logger.error("%s is left out: %s", LABELS_VARIABLE, error)
        return {}


def _disk(folder: Path) -> tuple[int, int]:
    """Total and free bytes of the file system that holds `folder`, or will."""
    for place in (folder, *folder.parents):
        try:
            usage = shutil.disk_usage(place)
        except OSError:
            continue
        return usage.total, usage.free
    return 0, 0
