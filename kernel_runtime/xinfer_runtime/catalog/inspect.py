"""What a node finds out about a model before it is placed. Reads a file's header, so it runs in a thread on the
node.
"""

from pathlib import Path

import msgspec

from xinfer_runtime.catalog.draft_file import read_draft
from xinfer_runtime.catalog.embedding_forecast import fit_embedding
from xinfer_runtime.catalog.fitting import fit
from xinfer_runtime.catalog.forecast import forecast, forecast_draft, forecast_projector
from xinfer_runtime.catalog.gguf_facts import GgufFile
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.catalog.locate import locate
from xinfer_runtime.catalog.lora_file import adapter_path, read_adapter
from xinfer_runtime.catalog.model_kind import LLM, model_type
from xinfer_runtime.catalog.projector_file import PARAM as PROJECTOR
from xinfer_runtime.catalog.projector_file import projector_path, read_projector
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.errors import InvalidRequest, ModelFileError
from xinfer_runtime.models import ModelSpec


def inspect(spec: ModelSpec, room: int | None = None, on_gpu: bool | None = None) -> ModelSpec:
    """`spec` with type, path, quantization, size, context length and memory filled in from the file on this node, which
    has `room` bytes for it, `on_gpu` or not; None where that is open.

    Raises ModelFileError for a file that is missing or broken, InvalidRequest for a context the model cannot have or
    a type that it is not.
    """
    path = locate(spec)
    file = read_gguf(path)
    if spec.context_length is not None and file.context_length and spec.context_length > file.context_length:
        raise InvalidRequest(
            f"context_length {spec.context_length}: {spec.name} was trained for {file.context_length} tokens at most",
            param="context_length",
        )
    spec = msgspec.structs.replace(spec, type=model_type(file, spec))
    beside = _adapter_bytes(file, spec) + _projector_bytes(path, file, spec)
    if spec.type == LLM:
        draft = _draft(path, file, spec)
        # The draft model's cache follows the model's: with what that would like to have, there is room enough.
        most = forecast_draft(draft, file, spec) if draft is not None else 0
        fitted = fit(file, spec, None if room is None else max(0, room - beside - most), on_gpu)
        beside += forecast_draft(draft, file, fitted) if draft is not None else 0
    else:
        fitted = fit_embedding(file, spec)
    return msgspec.structs.replace(
        fitted,
        memory_bytes=fitted.memory_bytes + beside,
        weight_bytes=file.weight_bytes,
        kv_cache_bytes=forecast(file, fitted).kv_cache,
        gpu_share=_gpu_share(Options.of(spec), file.layers),
        path=str(path),
        quantization=spec.quantization or file.quantization or None,
        size_in_billions=spec.size_in_billions or _billions(file.parameters),
    )


def _adapter_bytes(file: GgufFile, spec: ModelSpec) -> int:
    """What the adapters' weights take. Raises ModelFileError for one that is broken or another architecture's."""
    size = 0
    for name, each in Options.of(spec).lora.items():
        path = adapter_path(each)
        adapter = read_adapter(path)
        if adapter.architecture != file.architecture:
            raise ModelFileError(
                f"the LoRA adapter {name!r}, {path.name}, is for {adapter.architecture}, and the model is "
                f"{file.architecture}",
                param="lora",
                place=str(path),
            )
        size += adapter.weight_bytes
    return size


def _projector_bytes(path: Path, file: GgufFile, spec: ModelSpec) -> int:
    """What seeing images takes. Raises ModelFileError for a projector that the model cannot have."""
    projector = Options.of(spec).multimodal_projector
    if projector is None:
        return 0
    if spec.type != LLM:
        raise InvalidRequest(f"{PROJECTOR}: only models that generate text take images", param=PROJECTOR)
    return forecast_projector(read_projector(projector_path(projector, path), file))


def _draft(path: Path, file: GgufFile, spec: ModelSpec) -> GgufFile | None:
    draft_model = Options.of(spec).draft_model
    return read_draft(draft_model, path, file) if draft_model is not None else None


def _gpu_share(options: Options, layers: int) -> float:
    """Of the layers, the output counted as one."""
    wanted = options.n_gpu_layers
    return 1.0 if wanted == "auto" or not 0 <= wanted <= layers else wanted / (layers + 1)


def _billions(parameters: int) -> str:
    """Parameters as Xinference labels sizes: two significant digits of billions, "_" for the point."""
    return f"{float(f'{parameters / 1e9:.2g}'):f}".rstrip("0").rstrip(".").replace(".", "_")
