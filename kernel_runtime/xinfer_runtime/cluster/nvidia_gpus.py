"""NVIDIA's GPUs, read through NVML: the driver's own library, which makes no CUDA context and takes no GPU memory."""

import importlib
import logging
from typing import Any, Protocol

from xinfer_runtime.cluster.protocol import Gpu

logger = logging.getLogger("xinfer.agent")


class Nvml(Protocol):
    """What is used of the module `pynvml`. Its functions raise `NVMLError`."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: N802
    def nvmlDeviceGetUUID(self, handle: Any) -> str: ...  # noqa: N802
    def nvmlDeviceGetName(self, handle: Any) -> str: ...  # noqa: N802
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetMigMode(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int: ...  # noqa: N802
    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Any, index: int) -> Any: ...  # noqa: N802


def load_nvml() -> Nvml | None:
    """NVML, ready to be asked; None where there is no driver. May block for seconds: call it in a thread."""
    try:
        nvml: Nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        logger.debug("no NVIDIA GPU can be asked: %s", error)
        return None
    return nvml


def nvidia_gpus(nvml: Nvml) -> list[Gpu]:
    """All GPUs of the machine as they are now, in NVML's order. One that does not answer is left out."""
    gpus: list[Gpu] = []
    try:
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        logger.warning("NVIDIA's driver does not answer: %s", error)
        return gpus
    for index in range(count):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            instances = _instances(nvml, handle)
            gpus += [_gpu(nvml, each, index, parent=handle) for each in instances or [handle]]
        except nvml.NVMLError as error:
            logger.warning("GPU %d does not answer: %s", index, error)
    return gpus


def _gpu(nvml: Nvml, handle: Any, index: int, parent: Any) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        uuid=nvml.nvmlDeviceGetUUID(handle),
        index=index,
        name=nvml.nvmlDeviceGetName(handle),
        memory_total=int(memory.total),
        memory_free=int(memory.free),
        utilisation=_utilisation(nvml, handle),
        parent="" if handle is parent else nvml.nvmlDeviceGetUUID(parent),
    )


def _instances(nvml: Nvml, handle: Any) -> list[Any]:
    """The MIG instances of a GPU that is divided: then the GPU itself is of use to nobody."""
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
        slots = nvml.nvmlDeviceGetMaxMigDeviceCount(handle) if current else 0
    except nvml.NVMLError:
        # Most GPUs cannot be divided.
        return []
    found = []
    for slot in range(slots):
        try:
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot))
        except nvml.NVMLError:
            continue
    return found


def _utilisation(nvml: Nvml, handle: Any) -> float:
    try:
        return float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
    except nvml.NVMLError:
        # MIG instances have none.
        return 0.0
