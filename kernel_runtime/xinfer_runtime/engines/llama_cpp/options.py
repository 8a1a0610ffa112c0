"""The engine's own settings: `engine_options` of a launch."""

from math import inf
from typing import Literal

import msgspec

from xinfer_runtime.engines.llama_cpp.sizing import CacheType
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.models import LoraAdapter, ModelSpec

SplitMode = Literal["layer", "row", "none"]


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings that only this engine has. None lets the engine choose."""

    threads: int | None = None
    """CPU threads; by default those of `cores.threads_for`, and for large passes what turns out to be fastest."""
    kv_cells: int | None = None
    """Tokens in the KV cache, all sequences together; see `sizing`."""
    token_budget: int | None = None
    """Tokens in one forward pass; by default those of `sizing`. Smaller disturbs running answers less while a prompt is
    computed; too small makes prompts slow."""
    prefix_cache: bool = True
    """Whether what was computed for one request is used again for the beginning of another's prompt, where the model
    allows it."""
    prefix_store_bytes: int = 0
    """Host memory for what the prefix cache has no room for any more, from where it comes back when it is asked for
    again. All sequences then share the KV cache. 0 keeps nothing."""
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    """How keys and values are stored. q8_0 takes about half of f16's memory and q4_0 about a quarter; either needs
    heads of a multiple of 32, and values need flash attention."""
    flash_attention: Literal["auto", "on", "off"] = "auto"
    """`auto` has it wherever llama.cpp has code for it."""
    lora: dict[str, LoraAdapter] = {}
    """LoRA adapters by the name that requests choose them with."""
    n_gpu_layers: int | Literal["auto"] = "auto"
    """Layers on GPUs, the last ones first, the output counted as one: as many as fit, or so many, -1 for all."""
    split_mode: SplitMode = "layer"
    """How several GPUs share a model: whole layers, rows of matrices, or not at all: `main_gpu` has it alone."""
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    """Parts of the model for each GPU; without any, in proportion to the memory that is free."""
    pooling: Literal["mean", "cls", "last", "rank"] | None = None
    """How an embedding model makes one vector of those of a text's tokens; None as its file says."""
    speculation: Literal["off", "prompt-lookup", "draft-model"] = "off"
    """Whether and how tokens are guessed, and computed along with those that came; see `speculation`."""
    draft_model: str | None = None
    """The smaller model that guesses: a GGUF file on the node, or the name of a packaged model."""
    draft_tokens: int = 8
    """Tokens guessed for one sequence in one step at most."""
    multimodal_projector: str | None = None
    """What makes images something that the model can take: a GGUF file on the node, by its path or beside the model."""
    exact_resume_tokens: int = 256
    """A resumed request with at most so many tokens is recomputed as it was computed at first, one token a step, which
    continues a greedy or seeded text exactly when nothing else runs. Longer ones are computed like a prompt: much
    faster, and rounding may then turn a choice between equally good tokens."""

    @classmethod
    def of(cls, spec: ModelSpec) -> "Options":
        """The options of a launch. Raises InvalidRequest for an unknown name or a value of the wrong kind."""
        try:
            options = msgspec.convert(spec.engine_options, cls)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"engine_options for llama.cpp: {error}", param="engine_options") from error
        for name in ("threads", "kv_cells", "token_budget", "draft_tokens"):
            value = getattr(options, name)
            if value is not None and value < 1:
                raise InvalidRequest(f"engine_options: {name} must be at least 1, not {value}", param="engine_options")
        if (options.speculation == "draft-model") is (options.draft_model is None):
            raise InvalidRequest(
                'speculation "draft-model" and a draft_model belong together: give both or neither', param="draft_model"
            )
        if options.prefix_store_bytes < 0 or (options.prefix_store_bytes and not options.prefix_cache):
            raise InvalidRequest(
                "prefix_store_bytes is the size of a store for the prefix cache: 0 or more, and with prefix_cache on",
                param="prefix_store_bytes",
            )
        if options.multimodal_projector is not None and (options.speculation != "off" or options.prefix_store_bytes):
            other = "speculation" if options.speculation != "off" else "prefix_store_bytes"
            raise InvalidRequest(
                f"multimodal_projector: a model that takes images cannot have {other}. Leave one of the two out.",
                param="multimodal_projector",
            )
        if options.n_gpu_layers != "auto" and options.n_gpu_layers < -1:
            raise InvalidRequest(
                f'n_gpu_layers is "auto", -1 for all, or a number, not {options.n_gpu_layers}', param="n_gpu_layers"
            )
        if options.main_gpu < 0:
            raise InvalidRequest(f"main_gpu is the number of a GPU, not {options.main_gpu}", param="main_gpu")
        if options.tensor_split and (min(options.tensor_split) < 0 or not 0 < sum(options.tensor_split) < inf):
            raise InvalidRequest(
                "tensor_split has a number for each GPU, none of them negative and not all zero", param="tensor_split"
            )
        if options.flash_attention == "off" and options.cache_type_v != "f16":
            raise InvalidRequest(
                f"cache_type_v {options.cache_type_v} needs flash attention: leave flash_attention at auto, or "
                "cache_type_v at f16",
                param="cache_type_v",
            )
        return options
