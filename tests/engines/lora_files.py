"""LoRA adapters with random weights, written as GGUF."""

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

RANK = 4
ALPHA = 8.0


def write_adapter(
    path: Path, shapes: Mapping[str, tuple[int, int]], seed: int = 1, architecture: str = "llama", strength: float = 0.3
) -> dict[str, NDArray[np.float32]]:
    """An adapter of the weights of these names and shapes (rows, columns). Returns what it adds to each at scale 1."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, ALPHA)
    added = {}
    for name, (rows, columns) in shapes.items():
        down = (rng.standard_normal((RANK, columns)) * strength).astype(np.float32)
        up = (rng.standard_normal((rows, RANK)) * strength).astype(np.float32)
        writer.add_tensor(f"{name}.lora_a", down)
        writer.add_tensor(f"{name}.lora_b", up)
        added[name] = (up @ down * np.float32(ALPHA / RANK)).astype(np.float32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return added
