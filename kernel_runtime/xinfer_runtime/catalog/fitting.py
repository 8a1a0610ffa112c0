"""A KV cache that fits into the memory that is free, where the launch leaves room to choose.

A launch that says nothing gets as long a context as the model was trained for and the cache can hold. Where memory is
short, the cache gets smaller: first it holds fewer sequences at full length, then, unless the launch names the context
length, shorter ones.
"""

from msgspec.structs import replace

from xinfer_runtime.catalog.forecast import cache_shape, forecast
from xinfer_runtime.catalog.gguf_facts import GgufFile
from xinfer_runtime.engines.llama_cpp import sizing
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.models import ModelSpec

LEAST_CONTEXT = 1024
"""Tokens below which a context is of little use: rather say that the model does not fit."""

_ALIGNMENT = 256


def fit(file: GgufFile, spec: ModelSpec, room: int | None, on_gpu: bool | None = None) -> ModelSpec:
    """`spec` with context length and memory filled in, for a node with `room` bytes; None for as much as it likes.

    `on_gpu` is whether it will run on one, None where that is open.

    When all replicas cannot be on this node, as much as one alone can have. What cannot fit at all is left as it is
    without a bound, for placement to refuse with its numbers. Raises InvalidRequest for options that the model cannot
    have.
    """
    shape = cache_shape(file, Options.of(spec))
    size = sizing.choose(shape, file.context_length, spec.context_length, spec.max_sequences)
    wanted = replace(spec, context_length=size.context_length)
    whole = replace(wanted, memory_bytes=forecast(file, wanted, on_gpu).total)
    if room is None or "kv_cells" in spec.engine_options:
        return whole
    for share in (room // spec.replica, room):
        if whole.memory_bytes <= share:
            return whole
        smaller = _with_fewer_cells(file, whole, share, on_gpu)
        if smaller is not None and spec.context_length in (None, smaller.context_length):
            return smaller
    return whole


def _with_fewer_cells(file: GgufFile, spec: ModelSpec, room: int, on_gpu: bool | None) -> ModelSpec | None:
    shape = cache_shape(file, Options.of(spec))
    rest = spec.memory_bytes - forecast(file, spec).kv_cache
    cells = (room - rest) // max(shape.bytes_per_cell, 1) // _ALIGNMENT * _ALIGNMENT
    least = min(LEAST_CONTEXT, spec.context_length or LEAST_CONTEXT)
    if cells < least:
        return None
    smaller = replace(
        spec,
        context_length=min(spec.context_length or cells, cells),
        engine_options={**spec.engine_options, "kv_cells": cells},
    )
    return replace(smaller, memory_bytes=forecast(file, smaller, on_gpu).total)
