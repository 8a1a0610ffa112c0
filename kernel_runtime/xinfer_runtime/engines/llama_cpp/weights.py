"""A GGUF as llama.cpp has it in memory: its handle and facts, without a context to compute in."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import llama_cpp

from xinfer_runtime.engines.llama_cpp import devices, native_log
from xinfer_runtime.engines.llama_cpp.offload import Offload
from xinfer_runtime.engines.llama_cpp.vocabulary import Vocabulary
from xinfer_runtime.errors import Cancelled, InvalidRequest, ModelFileError


@dataclass(frozen=True)
class Weights:
    """A loaded GGUF without a context: handle and facts."""

    handle: int
    vocabulary: Vocabulary
    trained_context: int
    layers: int
    parameters: int
    bytes: int
    architecture: str
    shares_prefixes: bool
    """Whether cells of one sequence can be used by another: not where a state sums up all tokens so far (recurrent
    layers), nor where cells outside a sliding window are dropped."""
    bos_text: str
    eos_text: str

    def chat_template(self, variant: str | None = None) -> str | None:
        """The Jinja source in the file, `variant` such as `tool_use`, or None."""
        name = variant.encode() if variant else None
        raw: bytes | None = llama_cpp.llama_model_chat_template(self.handle, name)
        return raw.decode("utf-8", errors="replace") if raw else None

    def free(self) -> None:
        llama_cpp.llama_model_free(self.handle)


def load_weights(path: Path, offload: Offload, proceed: Callable[[float], bool], *, mapped: bool = True) -> Weights:
    """Load the GGUF at `path`, `mapped` where that is possible. `proceed` gets the fraction done and may return False
    to stop.

    Raises ModelFileError with llama.cpp's reason, Cancelled when `proceed` said so, InvalidRequest for a model that
    does not generate text.
    """
    native_log.install()
    native_log.clear()
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    kept_alive = devices.place(params, offload)
    if not mapped:
        params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
    stopped = False

    def report(fraction: float, _user_data: object) -> bool:
        nonlocal stopped
        stopped = stopped or not proceed(float(fraction))
        return not stopped

    callback = llama_cpp.llama_progress_callback(report)
    params.progress_callback = callback
    handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    del kept_alive
    if not handle:
        if stopped:
            raise Cancelled(f"Loading {path.name} was cancelled")
        reason = native_log.errors().replace(str(path), path.name) or "no reason was given"
        raise ModelFileError(f"llama.cpp could not load {path.name}: {reason}", param="model_path", place=str(path))
    if llama_cpp.llama_model_has_encoder(handle) or not llama_cpp.llama_model_has_decoder(handle):
        llama_cpp.llama_model_free(handle)
        raise InvalidRequest(
            f"{path.name} is an encoder; this engine serves models that generate text", param="model_path"
        )
    vocabulary = Vocabulary(handle)
    return Weights(
        handle=handle,
        vocabulary=vocabulary,
        trained_context=llama_cpp.llama_model_n_ctx_train(handle),
        layers=llama_cpp.llama_model_n_layer(handle),
        parameters=llama_cpp.llama_model_n_params(handle),
        bytes=llama_cpp.llama_model_size(handle),
        architecture=_metadata(handle, "general.architecture"),
        shares_prefixes=not (
            llama_cpp.llama_model_is_recurrent(handle)
            or llama_cpp.llama_model_is_hybrid(handle)
            or llama_cpp.llama_model_n_swa(handle) > 0
        ),
        bos_text=vocabulary.text(vocabulary.bos),
        eos_text=vocabulary.text(vocabulary.eos),
    )


def _metadata(handle: int, key: str) -> str:
    buffer = ctypes.create_string_buffer(256)
    length = llama_cpp.llama_model_meta_val_str(handle, key.encode(), buffer, len(buffer))
    return buffer.value.decode("utf-8", errors="replace") if length >= 0 else ""
