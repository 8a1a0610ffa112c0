"""How much memory one replica will take, from the file's header alone.

weights   everything after the header: llama.cpp loads or maps all of it
KV cache  cells x bytes per cell, in f16 (`engines.llama_cpp.sizing`, which the engine uses too)
compute   the activations of one forward pass and one row of logits for each sequence, an estimate
process   the Python interpreter and libraries, measured once
"""

from dataclasses import dataclass

from xinfer_runtime.catalog.gguf_file import GgufFile
from xinfer_runtime.engines.llama_cpp import sizing

_F32_BYTES = 4
_MASK_BYTES = 2
_LIVE_ACTIVATIONS = 12
"""Vectors of the model's width that live at once in a pass; attention scores of a flash-attention pass are small."""

PROCESS_BYTES = 100 << 20


@dataclass(frozen=True)
class MemoryForecast:
    """Bytes for one replica."""

    weights: int
    kv_cache: int
    compute: int
    process: int = PROCESS_BYTES

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.compute + self.process


def forecast(
    file: GgufFile, context_length: int | None = None, max_sequences: int | None = None, n_gpu: int | None = None
) -> MemoryForecast:
    """The memory of one replica of `file` with so long a context and so many sequences, None as the engine chooses.

    Passes are larger on a GPU; where it is open whether there will be one, the larger size counts.
    """
    size = sizing.choose(file.cache_shape, file.context_length, context_length, max_sequences)
    kv_sequences = sizing.kv_sequences(size.max_sequences, sharing=True, split=size.split)
    batch = max(sizing.CPU_TOKEN_BUDGET if n_gpu == 0 else sizing.GPU_TOKEN_BUDGET, kv_sequences)
    activations = batch * file.embedding_length * _LIVE_ACTIVATIONS * _F32_BYTES
    # The mask of the attention: a number per token of the batch and cell it may attend to, f16 in flash attention.
    mask = batch * size.attended_cells * _MASK_BYTES
    logits = 2 * kv_sequences * file.vocab_size * _F32_BYTES
    return MemoryForecast(
        weights=file.weight_bytes,
        kv_cache=size.cells * file.cache_shape.bytes_per_cell,
        compute=activations + mask + logits,
    )
