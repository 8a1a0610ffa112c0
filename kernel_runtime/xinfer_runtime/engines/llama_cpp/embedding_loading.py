"""From a ModelSpec to an embedding model or a reranker that is ready to run. Blocking: runs on the loop's thread."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xinfer_runtime.catalog.embedding_forecast import embedding_size, forecast_embedding, output_bytes
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.catalog.locate import locate
from xinfer_runtime.catalog.model_kind import ABILITIES, pooling_of
from xinfer_runtime.control_group import usable_cores
from xinfer_runtime.engines.llama_cpp.cores import choose_threads
from xinfer_runtime.engines.llama_cpp.embedding_context import EmbeddingContext
from xinfer_runtime.engines.llama_cpp.embedding_inputs import InputBuilder
from xinfer_runtime.engines.llama_cpp.embedding_queue import EmbeddingQueue
from xinfer_runtime.engines.llama_cpp.embedding_sizing import EmbeddingSize
from xinfer_runtime.engines.llama_cpp.loading import WEIGHTS_SHARE, Proceed, in_steps, offload_for
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.engines.llama_cpp.prompt import PromptBuilder
from xinfer_runtime.engines.llama_cpp.repacking import mostly_repacked, processor_features
from xinfer_runtime.engines.llama_cpp.thread_choice import ThreadChoice
from xinfer_runtime.engines.llama_cpp.weights import Weights, load_weights
from xinfer_runtime.models import ModelInfo, ModelSpec


@dataclass(frozen=True)
class LoadedEmbedder:
    """Everything that was made of a file. `free` must run on the thread that loaded, when nothing uses the rest.

    `prompts` answers requests for tokens; this model generates nothing.
    """

    weights: Weights
    context: EmbeddingContext
    size: EmbeddingSize
    inputs: InputBuilder
    prompts: PromptBuilder
    info: ModelInfo
    threads: Callable[[int], ThreadChoice]
    """What passes choose from with so many cores."""

    def free(self) -> None:
        self.context.free()
        self.weights.free()

    def queue(self) -> EmbeddingQueue:
        return EmbeddingQueue(self.size.token_budget, self.size.max_sequences)


def load_embedder(spec: ModelSpec, options: Options, proceed: Proceed, cores: int | None = None) -> LoadedEmbedder:
    """Load the model of `spec`, to use so many cores, None for all that this process may use.

    Raises ModelFileError for a file that cannot be used, InvalidRequest for a spec that cannot be honoured, Cancelled
    when `proceed` said so, EngineError when there is no memory for a pass.
    """
    path = Path(spec.path) if spec.path else locate(spec)
    file = read_gguf(path)
    pooling = pooling_of(file, spec)
    offload = offload_for(spec, options, file, forecast_embedding(file, spec))
    size = embedding_size(file, spec, on_gpu=offload.on_gpu)
    mapped = offload.on_gpu or not mostly_repacked(file.tensors, processor_features())
    weights = load_weights(path, offload, in_steps(proceed), mapped=mapped)
    try:
        proceed(WEIGHTS_SHARE, "making room for a pass")
        threads = partial(choose_threads, weights.bytes, fixed=options.threads, on_gpu=offload.on_gpu)
        context = EmbeddingContext(weights, size, pooling, threads(cores or usable_cores()), options.flash_attention)
    except BaseException:
        weights.free()
        raise
    vocabulary = weights.vocabulary
    ranks = pooling == "rank"
    # llama.cpp makes room for the rows of a batch when the first one of its size comes.
    grows = output_bytes(file, size.batch_tokens - size.max_sequences)
    proceed(1.0, "ready")
    return LoadedEmbedder(
        weights=weights,
        context=context,
        size=size,
        inputs=InputBuilder(vocabulary, size.context_length, ranks, weights.chat_template("rerank") if ranks else None),
        prompts=PromptBuilder(vocabulary, "it makes vectors", "it makes vectors", size.context_length),
        info=ModelInfo(
            context_length=size.context_length,
            vocab_size=vocabulary.size,
            abilities=ABILITIES[spec.type],
            parameters=weights.parameters,
            memory_bytes=context.memory_bytes + grows,
            architecture=weights.architecture,
            gpu_layers=weights.layers + 1 if offload.layers < 0 else offload.layers,
            dimensions=0 if ranks else context.dimensions,
            # A pass has many tokens, so it can make use of all cores.
            threads=options.threads or (1 if offload.on_gpu else usable_cores()),
        ),
        threads=threads,
    )
