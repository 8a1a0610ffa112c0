"""What a node finds out about a model's file, with a context that fits into what the node has free. In threads."""

import asyncio
import logging

from xinfer_runtime.catalog.inspect import inspect
from xinfer_runtime.cluster.placement_refusal import largest_forecast
from xinfer_runtime.cluster.placement_room import headroom
from xinfer_runtime.cluster.protocol import Inventory
from xinfer_runtime.errors import EngineError, XinferError
from xinfer_runtime.models import ModelSpec

logger = logging.getLogger("xinfer.agent")


async def inspect_file(spec: ModelSpec, inventory: Inventory | None = None) -> ModelSpec:
    """The spec with what its file says, fitted to the node as `inventory` has it, or not at all. Raises XinferError."""
    try:
        return await asyncio.to_thread(_inspect, spec, inventory)
    except XinferError as error:
        logger.warning("the file of %s: %s", spec.uid, error)
        raise
    except Exception as error:
        logger.exception("looking at the file of %s", spec.uid)
        raise EngineError(f"the file of {spec.uid!r} could not be looked at: {type(error).__name__}") from error


def _inspect(spec: ModelSpec, inventory: Inventory | None) -> ModelSpec:
    if inventory is None:
        return inspect(spec)
    memory = max(0, inventory.memory_available - headroom(inventory.memory_total))
    room = _gpu_room(spec, inventory, memory)
    if room:
        found = inspect(spec, room, on_gpu=True)
        if found.memory_bytes <= room or spec.n_gpu is not None:
            return found
    return inspect(spec, memory, on_gpu=False)


def _gpu_room(spec: ModelSpec, inventory: Inventory, memory: int) -> int:
    """Bytes of the largest replica for the GPUs that it may have here; 0 for none."""
    support = (inventory.engines or {}).get(spec.engine)
    wish = spec.wish(0)
    if support is None or not support.gpu or wish.n_gpu == 0:
        return 0
    gpus = [gpu for gpu in inventory.gpus if not wish.gpu_idx or gpu.index in wish.gpu_idx]
    if any(gpu.parent for gpu in gpus):
        gpus = [max(gpus, key=lambda gpu: gpu.memory_free)]
    counts = [len(set(wish.gpu_idx)) or wish.n_gpu] if wish.gpu_idx or wish.n_gpu else range(1, len(gpus) + 1)
    return max((largest_forecast(memory, [gpu.memory_free for gpu in gpus], count) for count in counts), default=0)
