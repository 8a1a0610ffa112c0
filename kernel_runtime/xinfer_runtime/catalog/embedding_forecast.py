"""How much memory one replica of an embedding model or a reranker will take, from the file's header alone."""

from msgspec.structs import replace

from xinfer_runtime.catalog.forecast import PROCESS_BYTES, TOKEN_BYTES, MemoryForecast
from xinfer_runtime.catalog.gguf_facts import GgufFile
from xinfer_runtime.catalog.model_kind import is_encoder, pooling_of
from xinfer_runtime.engines.llama_cpp.embedding_sizing import EmbeddingSize, choose
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.models import ModelSpec

_F16_BYTES = 2
_F32_BYTES = 4


def embedding_size(file: GgufFile, spec: ModelSpec, *, on_gpu: bool) -> EmbeddingSize:
    """What the engine computes at once of `file`, as `spec` asks for it."""
    options = Options.of(spec)
    return choose(
        file.context_length,
        file.vocab_size,
        divisible=file.causal and pooling_of(file, spec) in ("last", "rank"),
        on_gpu=on_gpu,
        context_length=spec.context_length,
        max_sequences=spec.max_sequences,
        token_budget=options.token_budget,
    )


def forecast_embedding(file: GgufFile, spec: ModelSpec) -> MemoryForecast:
    """The memory of one replica. Where it is open whether there will be a GPU, the larger passes count."""
    size = embedding_size(file, spec, on_gpu=spec.n_gpu != 0)
    cells = 0 if is_encoder(file) else size.batch_tokens
    return MemoryForecast(
        weights=file.weight_bytes,
        kv_cache=cells * file.cache_shape.bytes_per_cell,
        compute=_compute(file, size, flash=Options.of(spec).flash_attention != "off")
        + output_bytes(file, size.batch_tokens),
        process=PROCESS_BYTES + file.vocab_size * TOKEN_BYTES,
    )


def fit_embedding(file: GgufFile, spec: ModelSpec) -> ModelSpec:
    """`spec` with context length and memory filled in.

    However little memory is free: texts do not get shorter by it, so placement says what is missing. Raises
    InvalidRequest for options that only models have that generate.
    """
    if Options.of(spec).lora:
        raise InvalidRequest(f"lora: adapters are for models that generate, not for {spec.type}", param="lora")
    size = embedding_size(file, spec, on_gpu=spec.n_gpu != 0)
    wanted = replace(spec, context_length=size.context_length)
    return replace(wanted, memory_bytes=forecast_embedding(file, wanted).total)


def output_bytes(file: GgufFile, tokens: int) -> int:
    """Where llama.cpp puts the vectors of so many tokens, and logits that nobody reads."""
    return tokens * (file.vocab_size + file.embedding_length) * _F32_BYTES


def _compute(file: GgufFile, size: EmbeddingSize, *, flash: bool) -> int:
    """Bytes of the buffers of a pass: of each phase, what lives at once; the largest counts."""
    width, inner, heads = file.embedding_length, file.feed_forward_length, file.head_count
    batch = size.pass_tokens
    tokens = batch * _F32_BYTES
    attended = batch if is_encoder(file) else size.batch_tokens
    mask = batch * attended * (_F16_BYTES if flash else _F32_BYTES)
    scores = 0 if flash else tokens * attended * heads
    pooling = tokens * size.max_sequences
    gated = any(tensor.name == "blk.0.ffn_gate.weight" for tensor in file.tensors)
    attention = mask + scores + pooling + tokens * (2 * width + 2 * heads * file.key_length + 2 * file.key_value_width)
    feed_forward = mask + pooling + tokens * ((4 * width + 3 * inner) if gated else (3 * width + inner))
    head = 0 if is_encoder(file) else tokens * (file.vocab_size + 2 * width)
    return max(attention, feed_forward, head)
