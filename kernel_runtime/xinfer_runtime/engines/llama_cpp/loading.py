"""From a ModelSpec to a model that is ready to run. Blocking: runs on the engine loop's thread."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from msgspec import structs

from xinfer_runtime.catalog.draft_file import read_draft
from xinfer_runtime.catalog.forecast import (
    MemoryForecast,
    cache_shape,
    draft_cache,
    forecast,
    forecast_draft,
    forecast_projector,
)
from xinfer_runtime.catalog.gguf_facts import GgufFile
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.catalog.locate import locate
from xinfer_runtime.catalog.projector_file import projector_path, read_projector
from xinfer_runtime.chat.template import ChatTemplate
from xinfer_runtime.control_group import usable_cores
from xinfer_runtime.engines.llama_cpp import sizing
from xinfer_runtime.engines.llama_cpp.adapters import Adapters
from xinfer_runtime.engines.llama_cpp.constraint_compiler import ConstraintCompiler
from xinfer_runtime.engines.llama_cpp.context import Context
from xinfer_runtime.engines.llama_cpp.cores import choose_threads, threads_for
from xinfer_runtime.engines.llama_cpp.devices import gpus, supports_gpu
from xinfer_runtime.engines.llama_cpp.draft_loading import load_draft
from xinfer_runtime.engines.llama_cpp.draft_model import DraftModel
from xinfer_runtime.engines.llama_cpp.generation import TokenFacts
from xinfer_runtime.engines.llama_cpp.offload import ALL_LAYERS, Offload, layer_costs, plan
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.engines.llama_cpp.passes import ATTENTION_TILE
from xinfer_runtime.engines.llama_cpp.prefix_file import PrefixFile
from xinfer_runtime.engines.llama_cpp.prefix_identity import prefix_file, state_identity
from xinfer_runtime.engines.llama_cpp.projector import Projector
from xinfer_runtime.engines.llama_cpp.prompt import PromptBuilder
from xinfer_runtime.engines.llama_cpp.prompt_lookup import PromptLookups
from xinfer_runtime.engines.llama_cpp.repacking import mostly_repacked, processor_features
from xinfer_runtime.engines.llama_cpp.scheduler import Limits
from xinfer_runtime.engines.llama_cpp.sequence_breakers import SequenceBreakers
from xinfer_runtime.engines.llama_cpp.thread_choice import ThreadChoice
from xinfer_runtime.engines.llama_cpp.weights import Weights, load_weights
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.models import ModelInfo, ModelSpec

logger = logging.getLogger(__name__)

WEIGHTS_SHARE = 0.9
"""Of the progress: the rest is the KV cache."""

Proceed = Callable[[float, str], bool]
"""Takes a fraction from 0 to 1 and a stage name; returns False to give the load up."""


@dataclass(frozen=True)
class LoadedModel:
    """Everything that was made of a file. `free` must run on the thread that loaded, when nothing uses the rest."""

    weights: Weights
    context: Context
    adapters: Adapters
    limits: Limits
    prompts: PromptBuilder
    facts: TokenFacts
    info: ModelInfo
    on_gpu: bool
    threads: Callable[[int], ThreadChoice]
    """What passes choose from with so many cores."""
    drafter: PromptLookups | DraftModel | None = None
    """What guesses tokens, where the launch wants that."""
    prefix_file: PrefixFile | None = None
    """Where prefixes are kept while it is not loaded, where the launch wants that."""
    projector: Projector | None = None
    """What looks at images, where the launch names one."""

    def free(self) -> None:
        if self.projector is not None:
            self.projector.free()
        if isinstance(self.drafter, DraftModel):
            self.drafter.free()
        self.context.free()
        self.weights.free()


def load_model(spec: ModelSpec, options: Options, proceed: Proceed, cores: int | None = None) -> LoadedModel:
    """Load the model of `spec`, to use so many cores, None for all that this process may use.

    Raises ModelFileError for a file that cannot be used, InvalidRequest for a spec that cannot be honoured, Cancelled
    when `proceed` said so, EngineError when there is no memory for the KV cache.
    """
    path = Path(spec.path) if spec.path else locate(spec)
    file = read_gguf(path)
    size = sizing.choose(cache_shape(file, options), file.context_length, spec.context_length, spec.max_sequences)
    if options.prefix_store_bytes:
        size = size.shared()
    memory = forecast(file, spec)
    draft = read_draft(options.draft_model, path, file) if options.draft_model is not None else None
    if draft is not None:
        memory = replace(memory, compute=memory.compute + forecast_draft(draft, file, spec))
    projector: GgufFile | None = None
    if options.multimodal_projector is not None:
        projector = read_projector(projector_path(options.multimodal_projector, path), file)
        memory = replace(memory, compute=memory.compute + forecast_projector(projector))
    offload = offload_for(spec, options, file, memory)
    sizes = (size.context_length, size.cells, options.kv_cells or 0, offload.layers)
    kept = prefix_file(spec.uid, file, options, sizes) if options.prefix_store_bytes else None
    mapped = offload.on_gpu or not mostly_repacked(file.tensors, processor_features())
    weights = load_weights(path, offload, in_steps(proceed), mapped=mapped)
    try:
        proceed(WEIGHTS_SHARE, "making the KV cache")
        default_budget = sizing.GPU_TOKEN_BUDGET if offload.on_gpu else sizing.CPU_TOKEN_BUDGET
        budget = max(options.token_budget or default_budget, size.max_sequences)
        loaded = _with_context(weights, size, budget, options, offload, cores or usable_cores())
    except BaseException:
        weights.free()
        raise
    if offload.on_gpu:
        proceed(1.0, "warming up")
        try:
            loaded.context.warm_up(size.max_sequences, budget)
        except BaseException:
            loaded.free()
            raise
    if draft is not None:
        try:
            proceed(1.0, "loading the draft model")
            beside = replace(offload, layers=ALL_LAYERS) if offload.on_gpu else offload
            cache = draft_cache(file, spec)
            drafter, size_in_bytes = load_draft(draft, path, weights, cache, spec, beside, cores or usable_cores())
        except BaseException:
            loaded.free()
            raise
        info = structs.replace(loaded.info, memory_bytes=loaded.info.memory_bytes + size_in_bytes)
        loaded = replace(loaded, drafter=drafter, info=info)
    if weights.shares_prefixes:  # Else a sequence is more than its cells.
        moves = state_identity(spec.created, file, options, sizes)
        loaded = replace(loaded, info=structs.replace(loaded.info, state_identity=moves))
    if projector is not None:
        try:
            proceed(1.0, "loading the projector")
            eyes = Projector(projector.path, weights.handle, options, cores or usable_cores(), offload.on_gpu)
        except BaseException:
            loaded.free()
            raise
        size_in_bytes = loaded.info.memory_bytes + projector.weight_bytes
        loaded = replace(loaded, projector=eyes, info=structs.replace(loaded.info, memory_bytes=size_in_bytes))
    proceed(1.0, "ready")
    return replace(loaded, prefix_file=kept)


def offload_for(spec: ModelSpec, options: Options, file: GgufFile, memory: MemoryForecast) -> Offload:
    """What goes on GPUs: all that fits where there are some, unless the launch says otherwise."""
    if (spec.n_gpu or options.n_gpu_layers not in ("auto", 0)) and not supports_gpu():
        param = "n_gpu" if spec.n_gpu else "n_gpu_layers"
        raise InvalidRequest(
            f"{param}={spec.n_gpu or options.n_gpu_layers}: this build of llama.cpp has no GPU support. Install "
            "llama-cpp-python with it, or launch with n_gpu=0.",
            param=param,
        )
    offload = plan(gpus(), spec.n_gpu, options, layer_costs(file, memory.kv_cache), memory.compute)
    if offload.on_gpu:
        logger.info("%s: %s", spec.uid, offload)
    return offload


def in_steps(proceed: Proceed) -> Callable[[float], bool]:
    """llama.cpp reports after every tensor; pass on each percent."""
    reported = -1.0

    def report(fraction: float) -> bool:
        nonlocal reported
        if fraction - reported < 0.01:
            return True
        reported = fraction
        return proceed(WEIGHTS_SHARE * fraction, "loading weights")

    return report


def _with_context(
    weights: Weights, size: sizing.CacheSize, budget: int, options: Options, offload: Offload, cores: int
) -> LoadedModel:
    on_gpu = offload.on_gpu
    length = min(size.context_length, options.kv_cells or size.cells)
    threads = partial(choose_threads, weights.bytes, fixed=options.threads, on_gpu=on_gpu)
    sharing = options.prefix_cache and weights.shares_prefixes
    # Prefixes cannot be shared where a sequence is more than its cells, and then it may not be possible to move it.
    split = size.split and weights.shares_prefixes and options.kv_cells is None
    kv_sequences = sizing.kv_sequences(size.max_sequences, sharing, split)
    speculates = options.speculation != "off"
    if speculates and not weights.shares_prefixes:
        raise InvalidRequest(
            "speculation: this model has recurrent layers or a sliding window, so that its cache cannot forget what "
            "was guessed wrong. Launch it without.",
            param="speculation",
        )
    # One sequence is kept apart, to bring saved cells back in.
    spare = 1 if options.prefix_store_bytes else 0
    if spare and not (sharing and kv_sequences > size.max_sequences):
        raise InvalidRequest(
            "prefix_store_bytes: this model has recurrent layers or a sliding window, or max_sequences is "
            f"{sizing.MOST_KV_SEQUENCES}, so that no prefixes can be saved. Launch it without.",
            param="prefix_store_bytes",
        )
    adapters = Adapters(weights.handle, options.lora)
    context = Context(
        weights,
        options.kv_cells or size.cells,
        kv_sequences,
        budget,
        threads(cores),
        attention_tile=None if on_gpu or split else ATTENTION_TILE,
        split=split,
        cache_types=(options.cache_type_k, options.cache_type_v),
        flash_attention=options.flash_attention,
        adapters=adapters,
        draft_rows=sizing.DRAFT_ROWS if speculates else 0,
        padding=on_gpu,
    )
    # llama.cpp rounds the number of cells up; an option is taken at its word.
    cells = options.kv_cells or (size.usable_cells if split else context.cells)
    vocabulary = weights.vocabulary
    constraints = ConstraintCompiler(vocabulary.piece, vocabulary.size, vocabulary.end_of_generation)
    template = _template(weights)
    tool_template = _template(weights, "tool_use")
    templates = [each for each in (template, tool_template) if isinstance(each, ChatTemplate)]
    return LoadedModel(
        weights=weights,
        context=context,
        adapters=adapters,
        threads=threads,
        limits=Limits(
            cells,
            size.max_sequences,
            budget,
            sizing.retained_cells(cells, on_gpu, sharing, split),
            kv_sequences - spare,
            least_shared=sizing.WORTH_COPYING if split else 1,
            whole_chunks=split,
            prompts_apart=split and on_gpu,
            patience=sizing.GPU_PATIENCE if on_gpu else 0,
            drafts=sizing.DRAFT_ROWS if speculates else 0,
            worth_saving=sizing.WORTH_RESTORING if spare else None,
        ),
        prompts=PromptBuilder(vocabulary, template, tool_template, length, options.multimodal_projector is not None),
        facts=TokenFacts(
            vocabulary.piece,
            vocabulary.end_of_generation,
            length,
            constraints,
            SequenceBreakers(vocabulary.spelling, vocabulary.size, vocabulary.tokens_of),
            tokenize=lambda text: vocabulary.tokenize([text], begin=False),
            template="\n".join(each.source for each in templates),
            takes_tools=any(each.takes_tools for each in templates),
        ),
        info=ModelInfo(
            context_length=length,
            vocab_size=vocabulary.size,
            abilities=_abilities(templates, options.multimodal_projector is not None),
            parameters=weights.parameters,
            memory_bytes=context.memory_bytes,
            architecture=weights.architecture,
            prefix_cache=sharing,
            lora=adapters.names,
            threads=options.threads or (1 if on_gpu else threads_for(weights.bytes, usable_cores())),
            gpu_layers=weights.layers + 1 if offload.layers == ALL_LAYERS else offload.layers,
            max_sequences=size.max_sequences,
            speculation=options.speculation if speculates else "",
        ),
        on_gpu=on_gpu,
        drafter=PromptLookups() if options.speculation == "prompt-lookup" else None,
    )


def _template(weights: Weights, variant: str | None = None) -> ChatTemplate | str:
    """A chat template of the model, or why there is none that works."""
    source = weights.chat_template(variant)
    if source is None:
        return "its file has no chat template"
    try:
        return ChatTemplate(source, weights.bos_text, weights.eos_text)
    except InvalidRequest as error:
        return error.message


def _abilities(templates: list[ChatTemplate], sees: bool) -> tuple[str, ...]:
    if not templates:
        return ("generate",)
    takes_tools = any(each.takes_tools for each in templates)
    return ("chat", "generate", *(("tools",) if takes_tools else ()), *(("vision",) if sees else ()))
