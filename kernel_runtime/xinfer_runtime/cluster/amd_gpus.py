"""AMD's GPUs, read through `amdsmi`, the Python package that comes with ROCm."""

import importlib
import logging
from typing import Any, Protocol

from xinfer_runtime.cluster.protocol import Gpu

logger = logging.getLogger("xinfer.agent")

_MIB = 1 << 20


class AmdSmi(Protocol):
    """What is used of the module `amdsmi`. Its functions raise `AmdSmiException`."""

    AmdSmiException: type[Exception]

    def amdsmi_init(self) -> Any: ...
    def amdsmi_get_processor_handles(self) -> list[Any]: ...
    def amdsmi_get_gpu_asic_info(self, handle: Any) -> dict[str, Any]: ...
    def amdsmi_get_gpu_enumeration_info(self, handle: Any) -> dict[str, Any]: ...
    def amdsmi_get_gpu_vram_usage(self, handle: Any) -> dict[str, Any]: ...
    def amdsmi_get_gpu_activity(self, handle: Any) -> dict[str, Any]: ...


def load_amdsmi() -> AmdSmi | None:
    """The library, ready to be asked; None where there is no ROCm. May block: call it in a thread."""
    try:
        library: AmdSmi = importlib.import_module("amdsmi")
    except (ImportError, OSError, KeyError):
        # The package without ROCm raises any of these.
        return None
    try:
        library.amdsmi_init()
    except library.AmdSmiException as error:
        logger.debug("no AMD GPU can be asked: %s", error)
        return None
    return library


def amd_gpus(library: AmdSmi) -> list[Gpu]:
    """All GPUs as they are now. One that does not answer, or that has no UUID, is left out."""
    gpus: list[Gpu] = []
    try:
        handles = library.amdsmi_get_processor_handles()
    except library.AmdSmiException as error:
        logger.warning("AMD's driver does not answer: %s", error)
        return gpus
    for index, handle in enumerate(handles):
        try:
            gpus.append(_gpu(library, handle, index))
        except (library.AmdSmiException, KeyError, ValueError) as error:
            logger.warning("GPU %d does not answer: %r", index, error)
    return gpus


def _gpu(library: AmdSmi, handle: Any, index: int) -> Gpu:
    uuid = str(library.amdsmi_get_gpu_enumeration_info(handle)["hip_uuid"])
    if not uuid:
        raise ValueError("it has no UUID")
    memory = library.amdsmi_get_gpu_vram_usage(handle)
    total, used = int(memory["vram_total"]) * _MIB, int(memory["vram_used"]) * _MIB
    busy = library.amdsmi_get_gpu_activity(handle).get("gfx_activity")
    return Gpu(
        uuid=uuid if uuid.startswith("GPU-") else f"GPU-{uuid}",
        index=index,
        name=str(library.amdsmi_get_gpu_asic_info(handle)["market_name"]),
        memory_total=total,
        memory_free=max(0, total - used),
        utilisation=busy / 100 if isinstance(busy, int | float) else 0.0,
        vendor="amd",
    )
