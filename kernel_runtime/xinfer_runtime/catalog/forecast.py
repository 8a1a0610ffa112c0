"""How much memory one replica will take, from the file's header alone.

weights   everything after the header: llama.cpp loads or maps all of it
KV cache  cells x bytes per cell (`engines.llama_cpp.sizing`, which the engine uses too)
store     what `prefix_store_bytes` lets the engine keep of evicted prefixes
compute   llama.cpp's buffers for one forward pass, and the logits that come out of it
process   the Python interpreter and libraries, measured, and the vocabulary as llama.cpp and Python keep it
"""

from dataclasses import dataclass, replace

from xinfer_runtime.catalog.gguf_facts import GgufFile
from xinfer_runtime.catalog.projector_file import patches, vision_number
from xinfer_runtime.engines.llama_cpp import sizing
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.models import ModelSpec

_F16_BYTES = 2
_F32_BYTES = 4

PROCESS_BYTES = 62 << 20
"""Resident after some requests with the smallest of models, without what the rest of the forecast counts."""

TOKEN_BYTES = 300
"""What one token of the vocabulary takes in tables of texts, ids and attributes."""


@dataclass(frozen=True)
class MemoryForecast:
    """Bytes for one replica."""

    weights: int
    kv_cache: int
    compute: int
    process: int = PROCESS_BYTES
    store: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.compute + self.process + self.store


def forecast(file: GgufFile, spec: ModelSpec, on_gpu: bool | None = None) -> MemoryForecast:
    """The memory of one replica of `file` as `spec` asks for it.

    Passes are larger on a GPU; where it is open whether there will be one (None, and the launch does not say), the
    larger size counts. Raises InvalidRequest for options that the model cannot have.
    """
    options = Options.of(spec)
    shape = cache_shape(file, options)
    size = sizing.choose(shape, file.context_length, spec.context_length, spec.max_sequences)
    if options.kv_cells is not None:
        size = replace(size, cells=options.kv_cells, split=False)
    elif options.prefix_store_bytes:
        size = size.shared()
    sequences = sizing.kv_sequences(size.max_sequences, options.prefix_cache, size.split) + size.split
    rows = sequences + (sizing.DRAFT_ROWS if options.speculation != "off" else 0)
    on_gpu = spec.n_gpu != 0 if on_gpu is None else on_gpu
    budget = sizing.GPU_TOKEN_BUDGET if on_gpu else sizing.CPU_TOKEN_BUDGET
    batch = max(options.token_budget or budget, size.max_sequences)
    return MemoryForecast(
        weights=file.weight_bytes,
        kv_cache=size.cells * shape.bytes_per_cell,
        compute=_compute(file, batch, rows, size.attended_cells, flash=options.flash_attention != "off"),
        process=PROCESS_BYTES + file.vocab_size * TOKEN_BYTES,
        store=options.prefix_store_bytes,
    )


def forecast_draft(draft: GgufFile, file: GgufFile, spec: ModelSpec) -> int:
    """The bytes that a draft model takes beside the model of `file`: its weights, as many cells as that has, and its
    passes.
    """
    cells, sequences = draft_cache(file, spec)
    shape = replace(draft.cache_shape, key_type="f16", value_type="f16")
    return (
        draft.weight_bytes
        + cells * shape.bytes_per_cell
        + _compute(draft, sizing.draft_token_budget(sequences), sequences, cells, flash=True)
        + draft.vocab_size * TOKEN_BYTES
    )


def forecast_projector(projector: GgufFile) -> int:
    """The bytes that a multimodal projector takes beside a model: its weights, its pass over one image, the image's
    pixels, and what is kept of images.
    """
    count, width = patches(projector), vision_number(projector, "embedding_length")
    inner, heads = vision_number(projector, "feed_forward_length"), vision_number(projector, "attention.head_count")
    attention = count * (4 * width + count * heads)
    feed_forward = count * (3 * width + 2 * inner)
    compute = max(attention, feed_forward) * _F32_BYTES
    return projector.weight_bytes + compute + sizing.IMAGE_PIXEL_BYTES + sizing.IMAGE_ROWS_BYTES


def draft_cache(file: GgufFile, spec: ModelSpec) -> tuple[int, int]:
    """Cells and sequences that a draft model's cache has, for the model of `file`."""
    options = Options.of(spec)
    size = sizing.choose(cache_shape(file, options), file.context_length, spec.context_length, spec.max_sequences)
    return options.kv_cells or size.usable_cells, size.max_sequences


def cache_shape(file: GgufFile, options: Options) -> sizing.CacheShape:
    """What a cell of the model costs with these options. Raises InvalidRequest for types that its heads cannot have."""
    for param, cache_type, length in (
        ("cache_type_k", options.cache_type_k, file.key_length),
        ("cache_type_v", options.cache_type_v, file.value_length),
    ):
        block = sizing.block_elements(cache_type)
        if length % block:
            raise InvalidRequest(
                f"{param} {cache_type} stores {block} numbers together, and the heads of this model have {length}: "
                "use f16",
                param=param,
            )
    return replace(file.cache_shape, key_type=options.cache_type_k, value_type=options.cache_type_v)


def _compute(file: GgufFile, batch: int, rows: int, cells: int, flash: bool) -> int:
    """Bytes of the buffers of a pass over `batch` tokens that gives at most `rows` rows of logits.

    Of each phase, what lives at once, found by comparison with what llama.cpp allocates for shapes of all kinds. The
    phases use the same memory, so the largest counts.
    """
    width, inner, heads = file.embedding_length, file.feed_forward_length, file.head_count
    tokens = batch * _F32_BYTES
    # The mask of the attention: a number per token of the batch and cell it may attend to.
    mask = batch * cells * (_F16_BYTES if flash else _F32_BYTES)
    scores = 0 if flash else tokens * cells * heads
    attention = mask + scores + tokens * (2 * width + 2 * heads * file.key_length + 2 * file.key_value_width)
    feed_forward = mask + tokens * (4 * width + 3 * inner)
    head = min(rows, batch) * (file.vocab_size + 2 * width) * _F32_BYTES
    return max(attention, feed_forward, head) + rows * file.vocab_size * _F32_BYTES
